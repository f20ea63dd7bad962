"""Measurements on one GPU, in batches that fit ten minutes each."""
