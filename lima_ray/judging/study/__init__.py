"""A study: people answer, blind, the questions that models are asked too (LIMA section 4).

Imports `judging.questions`, `web`, `records` and `results`. Gradio stands in `page` and `handlers`.
"""
