"""Replies to prompts, from a local model or from a server.

Imports `config`, `records`, `data`, `model` and `engine`.
"""
