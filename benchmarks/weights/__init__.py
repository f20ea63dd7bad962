"""Formats of a model's weights on a CPU, side by side.

Imports what the other benchmarks may.
"""
