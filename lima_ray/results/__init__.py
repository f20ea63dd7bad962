"""What reports share: units, intervals, figures, Markdown and HTML pages.

Imports `config` and `records`, and never torch.
"""
