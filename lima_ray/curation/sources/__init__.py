"""Raw corpora: how each is published, and how candidates are made of it.

Imports `curation.dumps`, the filters and the contracts beside it.
"""
