"""What every page of ours shares: sessions, login, middleware, the database, the theme.

Imports `lima_ray.config.recipe` and `lima_ray.config.errors` alone.
"""
