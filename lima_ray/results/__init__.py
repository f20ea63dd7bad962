"""What reports share: intervals, figures, units.

Imports `config` and `records`, and never torch.
"""
