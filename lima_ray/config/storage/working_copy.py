"""Working copies: folders on this machine's disk that mirror places in a bucket.

    folder = local_path("s3://bucket/runs/first")
    reference(folder)              # s3://bucket/runs/first, on every machine

The path of a working copy tells its URL, so all else works on paths; what goes to and fro is in
`whole_folders` and `changing_files`, whose functions do nothing to a path of no working copy. Who
writes, and holds the lease, has a copy of its own; readers on the same machine share another.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from lima_ray.config.cache import cache_path
from lima_ray.config.storage import bucket
from lima_ray.config.storage.bucket import Checksum, Location

Role = Literal["work", "read"]
CACHE = "LIMA_STORAGE_CACHE"
"""Variable that names the folder of working copies, such as one on a fast disk of the node."""
THREADS = 8
NO_QUERY = "-"
COPY_SUFFIX = ".copy.json"
"""Of the file that notes which manifest a whole folder's files on this disk are of."""


def storage_folder() -> Path:
    given = os.environ.get(CACHE)
    folder = Path(given).expanduser() if given else cache_path() / "storage"
    return folder.absolute()


def local_path(url: str, role: Role = "work") -> Path:
    """Return the path of a URL's working copy; nothing is fetched."""
    at = bucket.parse_url(url)
    return storage_folder() / role / at.scheme / (quote(at.query, "") or NO_QUERY) / at.place


def location(path: Path) -> Location | None:
    """Return the place in a bucket that a path mirrors; none of any other path."""
    root = storage_folder()
    if not path.is_relative_to(root):
        return None
    parts = path.relative_to(root).parts
    if len(parts) < 4:
        return None
    query = "" if parts[2] == NO_QUERY else unquote(parts[2])
    return Location(parts[1], "/".join(parts[3:]), query)


def reference(path: Path) -> str:
    """Return a path as other machines find it: the URL of a working copy, else the path."""
    return str(location(path) or path)


def from_reference(said: str, like: Path | None = None) -> Path:
    """Return the local path of a reference, in a copy of the same role as that of another path."""
    if not bucket.is_url(said):
        return Path(said)
    reads = like is not None and like.is_relative_to(storage_folder() / "read")
    return local_path(said, "read" if reads else "work")


def reading_copy(path: Path) -> Path:
    """Return the readers' copy of what a path mirrors; any other path as it is."""
    at = location(path)
    return local_path(str(at), "read") if at else path


def rays_folder(folder: Path) -> Path:
    """Return where Ray Train and Ray Tune keep notes of what is in a folder: there, if all see it.

    Of a working copy it is a new folder of this node alone. What Ray would find again at the next
    start is known from our own files, and notes of an earlier start would not fit them.
    """
    if location(folder) is None:
        return folder
    return storage_folder() / "ray" / f"{os.getpid()}-{time.time_ns()}" / folder.name


def name_disk(folder: Path) -> str:
    """Return a name that a folder's disk has had since somebody asked first."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file, trial = folder / ".disk.lock", partial_name(folder / "disk")
    trial.write_text(uuid.uuid4().hex)
    try:
        os.link(trial, file)  # of several at once one succeeds
    except FileExistsError:
        pass
    finally:
        trial.unlink()
    return file.read_text()


def is_own(file: Path) -> bool:
    """Return whether a file is this disk's own: a lock, a note, a file being written."""
    return file.name.endswith((COPY_SUFFIX, ".partial", ".lock")) or file.name == "lock"


def list_files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file())


def lock_file(path: Path) -> Path:
    """Return what processes of this disk lock while one fetches a path; its folder is made."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.lock")


def download(at: Location, file: Path) -> Checksum:
    """Fetch an object; who reads the file sees the old one or the new one."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = partial_name(file)
    try:
        found = bucket.download(at, partial)
        partial.replace(file)
        return found
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(file: Path, content: bytes) -> None:
    """Write a small file so that a reader sees the old one or the new one."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = partial_name(file)
    partial.write_bytes(content)
    partial.replace(file)


def partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def read_bytes(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def in_parallel(call: Callable[[Any], Any], names: Iterable[Any]) -> dict[Any, Any]:
    """Call for every name in a few threads, and return what each gave."""
    todo = list(names)
    if len(todo) < 2:
        return {name: call(name) for name in todo}
    with ThreadPoolExecutor(min(THREADS, len(todo))) as pool:
        running = {name: pool.submit(copy_context().run, call, name) for name in todo}
        return {name: one.result() for name, one in running.items()}
