"""The model that a run trains: which families, how it is loaded, computed, and exported.

Imports `config`, `records` and `data`.
"""
