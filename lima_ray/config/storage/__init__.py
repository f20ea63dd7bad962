"""Buckets of S3 and Google Cloud Storage, and folders on this machine's disk that mirror them.

Imports `config` alone, and never torch.
"""
