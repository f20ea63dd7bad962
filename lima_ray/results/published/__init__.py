"""Published figures, and the numbers they follow from: evidence that the statistics are right.

`shipped` recomputes from the slices beside it, whose heads name source and licence; `alpaca_eval`
and `tulu` from a folder of those projects' own files, which do not ship.
"""
