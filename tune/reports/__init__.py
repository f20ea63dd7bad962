"""What a sweep found, as tables, charts, findings and pages.

Imports `tune.space` and `tune.results`, never what runs.
"""
