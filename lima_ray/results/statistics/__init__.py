"""Statistics of verdicts: preference, agreement, strengths, length, order, judges' errors, power.

Functions take plain sequences and the prompt of each value, because verdicts on one prompt are
alike; `verdict_table` makes those of `records.verdict.Verdict`. What is no verdict never counts as
a tie or a grade. Imports `config` and `records`, and never torch. `docs/statistics.md` names the
formula and source of every figure.
"""
