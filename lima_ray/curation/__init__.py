"""Choosing examples: raw dumps to candidates, and candidates to a dataset with its card.

Imports `config`, `records`, `web`, `data` and `results`, and never torch. `dumps` reads archives,
`sources` know one raw corpus each.
"""
