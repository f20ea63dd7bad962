"""What every page of ours shares: sessions, login, middleware, the database, the theme, Markdown.

Imports `lima_ray.config.recipe` and `lima_ray.config.errors` alone.
"""
