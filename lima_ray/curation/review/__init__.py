"""The human choice: people keep, edit or drop candidates one by one (LIMA section 2).

Imports `web`, `records` and the candidates beside it. Gradio stands in `page` alone.
"""
