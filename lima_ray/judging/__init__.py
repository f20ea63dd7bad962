"""Replies judged: who judges them, and what the verdicts say of a model.

Imports `config`, `records`, `data`, `results`, `model` and `generation`.
"""
