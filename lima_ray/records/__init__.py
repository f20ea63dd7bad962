"""What the steps hand to each other: typed records, each with its JSON form.

Imports `config` alone, and never torch.
"""
