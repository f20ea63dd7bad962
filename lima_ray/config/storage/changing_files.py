"""Files that change under way, such as metrics and journals: to the store and back, one by one.

    pull(run)                      # at the start: the store's files are the truth
    with Uploads(run / "metrics.jsonl"):      # every few seconds, and at the end
        ...

Folders that the store has whole (`whole_folders`) are left alone.
"""

import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from filelock import FileLock

from lima_ray.config.errors import UserError
from lima_ray.config.storage import bucket, whole_folders
from lima_ray.config.storage.bucket import Location
from lima_ray.config.storage.whole_folders import MANIFEST_SUFFIX
from lima_ray.config.storage.working_copy import (
    download,
    in_parallel,
    is_own,
    list_files,
    local_path,
    location,
    lock_file,
)

SMALL_BYTES = 1 << 16
"""A smaller file is fetched once in a process, whatever its size and time say."""
SETTLED_S = 3.0
"""Age from which an object's time, in whole seconds, tells it from one written later."""
UPLOAD_S = 5.0
"""Between two uploads of what has changed."""
FIRST_S = 20.0
"""How long a command waits for a store before its work has begun."""
Stored = tuple[int, float]
"""Size and time of an object."""
SEEN: dict[Path, Stored] = {}
"""Of the objects that this process has fetched."""


def fetch_url(url: str) -> Path | None:
    """Bring what a URL names to this machine's copy for readers; none where there is nothing.

    A whole folder comes whole, of a run all but its weights and states, any other folder with all
    its files.
    """
    path = local_path(url, "read")
    at = location(path)
    assert at
    if whole_folders.parse_manifest(bucket.read_object(whole_folders.manifest_of(at))):
        return whole_folders.fetch(path)
    pull(path)
    return path if path.exists() else None


def pull(path: Path) -> None:
    """Make a file or folder of this disk what the store has; what it has not goes."""
    at = location(path)
    if at is None:
        return
    with FileLock(lock_file(path), thread_local=False):
        if (stored := bucket.stat_object(at)) is not None:
            if not is_same(path, stored):
                pull_one(at, path, stored)
            return
        listed = bucket.list_objects(at)
        if path.is_file():  # which the store has not
            path.unlink()
        inside = in_whole_folders(listed)
        found = {name: stored for name, stored in listed.items() if not inside.match(name)}
        for file in list_files(path):
            name = str(file.relative_to(path))
            if name not in found and not inside.match(name) and not is_own(file):
                file.unlink(missing_ok=True)
        changed = [name for name, stored in found.items() if not is_same(path / name, stored)]
        with suppress(FileNotFoundError):  # removed meanwhile
            in_parallel(lambda name: pull_one(at / name, path / name, found[name]), changed)


def in_whole_folders(names: dict[str, Stored]) -> re.Pattern[str]:
    """Return what matches the names of files in folders that have a manifest, whole or not."""
    manifests = [name for name in names if name.endswith(MANIFEST_SUFFIX)]
    folders = []
    for name in manifests:
        parent, _, own = name.rpartition("/")
        folders.append(f"{parent}/" * bool(parent) + own[1 : -len(MANIFEST_SUFFIX)] + "/")
    return re.compile("|".join(map(re.escape, folders)) or r"(?!)")


def is_same(file: Path, stored: Stored) -> bool:
    """Return whether a file is surely the object of a size and a time."""
    try:
        here = file.stat()
    except OSError:
        return False
    same = (here.st_size, int(here.st_mtime)) == (stored[0], int(stored[1]))
    return same and (stored[0] > SMALL_BYTES or SEEN.get(file) == stored)


def pull_one(at: Location, file: Path, stored: Stored) -> None:
    download(at, file)
    os.utime(file, (stored[1], stored[1]))
    if time.time() - stored[1] > SETTLED_S:
        SEEN[file] = stored


def push(*paths: Path) -> None:
    """Write files, and all files of folders, to the store; what is not there is passed over."""
    in_parallel(push_one, files_of(path for path in paths if location(path)))


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Return files, and all files of folders, that are not this disk's own."""
    found = [f for path in paths for f in ([path] if path.is_file() else list_files(path))]
    return [file for file in found if not is_own(file)]


def push_one(file: Path) -> None:
    at = location(file)
    assert at
    with suppress(FileNotFoundError):  # removed meanwhile
        bucket.upload(file, at)


def discard(path: Path) -> None:
    """Remove a file, or all files of a folder, from the store."""
    if at := location(path):
        bucket.remove_object(at)
        in_parallel(lambda name: bucket.remove_object(at / name), bucket.list_objects(at))


def forget(folder: Path) -> None:
    """Remove a folder of files from the store and from this disk."""
    discard(folder)
    shutil.rmtree(folder, ignore_errors=True)


class Uploads(AbstractContextManager["Uploads"]):
    """Uploads what has changed of some files and folders, every few seconds and at the end.

    What was there and is removed meanwhile is removed from the store too.

    A store that refuses is told by `upload`, which the end calls too.
    """

    def __init__(self, *paths: Path) -> None:
        self.paths = [path for path in paths if location(path)]
        self.sent: dict[Path, tuple[int, int]] = {}
        """Size and time of each file as it was when it was sent."""
        self.known: set[Path] = set()
        self.at_work, self.ending = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Uploads":
        if self.paths:
            self.known = set(files_of(self.paths))
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        if self.paths:
            self.thread.join()
            self.upload()

    def upload(self) -> None:
        """Send what has changed since it was last sent; it is in the store once this returns."""
        with self.at_work:
            changed: dict[Path, tuple[int, int]] = {}
            for file in files_of(self.paths):
                with suppress(FileNotFoundError):  # removed meanwhile
                    status = file.stat()
                    seen = status.st_size, status.st_mtime_ns
                    if self.sent.get(file) != seen:
                        changed[file] = seen
            in_parallel(push_one, changed)
            self.sent |= changed
            self.known |= set(changed)
            for gone in [file for file in self.known if not file.exists()]:
                discard(gone)
                self.known.discard(gone)
                self.sent.pop(gone, None)

    def _follow(self) -> None:
        while not self.ending.wait(UPLOAD_S):
            with suppress(UserError):  # what is wrong is told by whoever needs it sent
                self.upload()


class Refreshes(AbstractContextManager["Refreshes"]):
    """Keeps a readers' copy of a folder near what the store has, until the context ends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ending = folder, threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Refreshes":
        if location(self.folder):
            pull(self.folder)
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        if location(self.folder):
            self.thread.join()

    def _follow(self) -> None:
        while not self.ending.wait(SETTLED_S):
            with suppress(UserError):  # what is wrong is told by who works there
                pull(self.folder)


def check_writable(folder: Path) -> None:
    """Refuse a place in a bucket where objects cannot be written, listed and removed."""
    if at := location(folder):
        trial = at / f".trial-{uuid.uuid4().hex[:8]}"
        with bucket.impatient(FIRST_S):
            bucket.write_object(trial, b"written to see whether that is allowed")
            bucket.list_objects(at)
            bucket.remove_object(trial)
