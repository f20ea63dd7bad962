"""Conversations of the chat page: what a window does with one, and what is kept. Draws nothing.

Imports `lima_ray` alone, no other room of `serve`.
"""
