"""Training data attribution: which training rows taught a reply, by text and by gradients.

Imports config, records, data, curation, model and generation.
"""
