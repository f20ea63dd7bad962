"""The folder for what is made once on a machine and used again: compiled kernels, scripts.

What lies there is run, so nobody else may write it: another user's folder is refused, and a file
that others could have written is made again. The folders above may not be open to all; their owners
and groups are trusted, since a container may show root by another number, and many a system gives
each user a group.
"""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path


def cached_file(name: str, make: Callable[[Path], object]) -> Path:
    """Return a file in `~/.cache/lima_ray`, or in XDG_CACHE_HOME's; made unless it is there.

    Args:
        name: of the file; tells all that it is made of.
        make: writes the file, in an empty folder that is removed.

    Raises:
        OSError: the folder cannot be written, or others can write it; XDG_CACHE_HOME names another.
        RuntimeError: this user has no home for it.
    """
    folder = cache_folder()
    file = folder / name
    if file.exists() and not is_private(file):
        file.unlink()
    if not file.exists():
        with tempfile.TemporaryDirectory(dir=folder) as there:
            made = Path(there, name)
            make(made)
            made.chmod(stat.S_IMODE(made.stat().st_mode) & ~WRITABLE)
            made.replace(file)  # whole or not at all, also where several processes make it
    return file


def cache_path() -> Path:
    """Return where this user's files are kept that can be made again; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lima_ray"


def cache_folder() -> Path:
    """Return the folder, made where it is missing; errors are `cached_file`'s."""
    folder = cache_path()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_private(folder)
    return folder


WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def is_private(path: Path) -> bool:
    """Return whether nobody but this user, or root, can have written it."""
    found = path.stat()
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & WRITABLE


def make_private(folder: Path) -> None:
    """Keep others from writing a folder of this user's.

    Raises:
        PermissionError: it is another's, or lies where anyone may exchange it.
    """
    folder = folder.resolve()
    found = folder.stat()
    if found.st_uid == os.geteuid() and found.st_mode & WRITABLE:
        folder.chmod(stat.S_IMODE(found.st_mode) & ~WRITABLE)
    sticky = [(parent, parent.stat().st_mode) for parent in folder.parents]
    loose = [p for p, mode in sticky if mode & stat.S_IWOTH and not mode & stat.S_ISVTX]
    if not is_private(folder) or loose:
        why = f"anyone may write {loose[0]}" if loose else "it is another user's"
        raise PermissionError(
            f"what is run from {folder} could be somebody else's: {why}; let XDG_CACHE_HOME name a "
            "folder of your own"
        )
