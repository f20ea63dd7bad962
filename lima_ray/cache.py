"""The folder for what is made once on a machine and used again: compiled kernels, scripts."""

import os
from pathlib import Path


def folder() -> Path:
    """`~/.cache/lima_ray`, or the one in XDG_CACHE_HOME; made if need be.

    Raises:
        OSError: it cannot be made; XDG_CACHE_HOME names another.
        RuntimeError: this user has no home for it.
    """
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lima_ray"
    path.mkdir(parents=True, exist_ok=True)
    return path
