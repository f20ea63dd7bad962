"""What the steps hand to each other: frozen types with one JSON form each, and the files they are in.

Imports `config` alone, and never torch.
"""
