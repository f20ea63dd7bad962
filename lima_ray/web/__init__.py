"""What every page of ours shares: sessions, login, middleware, the database, the theme.

Imports `lima_ray.config` and `lima_ray.errors` alone.
"""
