"""The OpenAI API over the models of a replica, as an ASGI app.

Imports `serve.engines` below it, and `lima_ray`.
"""
