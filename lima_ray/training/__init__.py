"""What trains a model in each worker process, and what the driver shows meanwhile.

Imports `config`, `records`, `data` and `model`.
"""
