"""Rows: read in the forms people have them in, rendered, encoded, checked, packed.

Imports `config` and `records`.
"""
