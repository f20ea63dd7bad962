"""Zstandard as Python 3.14 has it, and the same module for earlier versions."""

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["zstd"]
