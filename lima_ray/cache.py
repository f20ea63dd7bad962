"""The folder for what is made once on a machine and used again: compiled kernels, scripts."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """A file in `~/.cache/lima_ray`, or in XDG_CACHE_HOME's; made unless it is there.

    Whole or not at all, also where several processes make it at once.

    Args:
        name: of the file; tells all that it is made of.
        make: writes the file, in an empty folder that is removed.

    Raises:
        OSError: the folder cannot be written; XDG_CACHE_HOME names another.
        RuntimeError: this user has no home for it.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lima_ray"
    file = folder / name
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as there:
            made = Path(there, name)
            make(made)
            made.replace(file)
    return file
