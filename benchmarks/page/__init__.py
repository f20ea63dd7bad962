"""What benchmarks measured, as JSON beside the page, and the page `docs/benchmarks.md` made of it.

`python -m benchmarks.page` makes it anew. Torch is not imported here.
"""
