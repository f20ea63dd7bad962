"""The chat page in Gradio: what is drawn, what each click does, and the way to its replicas.

Imports `serve.conversations` below it, and `lima_ray`.
"""
