"""What the steps hand to each other: frozen types, each with its JSON form, and their files.

Imports `config` alone, and never torch.
"""
