"""Reports of sweeps: tables, charts, findings and pages.

Imports `tune.space` and `tune.results`, never what runs.
"""
