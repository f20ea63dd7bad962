"""What runs in a sweep: the queue of its trainings, warm workers, assessors, and Tune's trials.

Imports what a sweep is (`tune.space`, `tune.training`, `tune.results`), never its reports.
"""
