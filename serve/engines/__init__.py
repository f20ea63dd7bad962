"""What answers: our engine on a thread, vLLM's server, and the pool of models in memory.

Imports `lima_ray` alone, no other room of `serve`.
"""
