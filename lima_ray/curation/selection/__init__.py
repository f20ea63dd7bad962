"""Which candidates become rows: repeats and leaks go, rows are shared over groups and chosen.

Imports `curation.recipe` and the rooms below `curation`.
"""
