"""Folders that the store has whole or not at all: weights, resume states, the tokenizer.

    publish(run / "export")        # files first, then the manifest with the hash of each
    fetch(run / "export")          # all files, as the manifest has them

The manifest stands beside the folder, `.export.manifest.json`. Without it, or while it names no
files, the folder is not there: it is being written or removed.
"""

import json
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from lima_ray.config.errors import UserError
from lima_ray.config.storage import bucket
from lima_ray.config.storage.bucket import Checksum, Location
from lima_ray.config.storage.working_copy import (
    COPY_SUFFIX,
    download,
    in_parallel,
    list_files,
    location,
    lock_file,
    partial_name,
    read_bytes,
    write_bytes,
)

MANIFEST_SUFFIX = ".manifest.json"
NOT_WHOLE = b"{}"
ATTEMPTS = 3


def manifest_file(folder: Path) -> Path:
    """Return where a folder's manifest stands, as the store had it when it was last read."""
    return folder.with_name(f".{folder.name}{MANIFEST_SUFFIX}")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder of a working copy; none where the store has it not whole."""
    return parse_manifest(read_bytes(manifest_file(folder)))


def names_of_whole(parent: Path) -> list[str]:
    """Return the names of the folders that are whole in one; of a plain one, of all folders."""
    if location(parent) is None:
        return sorted(f.name for f in parent.glob("*") if f.is_dir())
    return [name for name in names_with_manifest(parent) if read_manifest(parent / name)]


def names_of_not_whole(parent: Path) -> list[str]:
    """Return the names of folders of a working copy that were begun and not finished."""
    return [name for name in names_with_manifest(parent) if read_manifest(parent / name) is None]


def names_with_manifest(parent: Path) -> list[str]:
    files = parent.glob(f".*{MANIFEST_SUFFIX}")
    return sorted(file.name[1 : -len(MANIFEST_SUFFIX)] for file in files)


def is_whole(folder: Path) -> bool:
    """Return whether a folder is there; of a working copy, whether the store has it whole."""
    return folder.exists() if location(folder) is None else read_manifest(folder) is not None


def is_here(folder: Path) -> bool:
    """Return whether this disk has a whole folder's files, those that the store has."""
    made = read_manifest(folder)
    same = read_bytes(copy_file(folder)) == read_bytes(manifest_file(folder))
    return made is not None and same and has_sizes(folder, made["files"])


def publish(folder: Path, about: dict[str, Any] | None = None) -> None:
    """Write a folder to the store, which has it from then on, whole.

    Args:
        about: what the manifest says of it besides its files.
    """
    if location(folder) is None:
        return
    withdraw(folder)
    names = sorted(str(file.relative_to(folder)) for file in list_files(folder))
    commit(folder, upload_files(folder, folder, names), about)


def upload_files(source: Path, folder: Path, names: Iterable[str]) -> dict[str, Checksum]:
    """Write files of a folder to the store, as those of a folder of a working copy."""
    at = location(folder)
    return in_parallel(lambda name: bucket.upload(source / name, at / name), names) if at else {}


def commit(folder: Path, sums: dict[str, Checksum], about: dict[str, Any] | None = None) -> None:
    """Have the store hold a folder whole, whose files it has; files of an earlier one go."""
    if at := location(folder):
        for stale in set(bucket.list_objects(at)) - set(sums):
            bucket.remove_object(at / stale)
        text = json.dumps((about or {}) | {"files": sums}, indent=1).encode()
        bucket.write_object(manifest_of(at), text)
        write_bytes(manifest_file(folder), text)
        note_copy(folder)


def note_copy(folder: Path) -> None:
    """Note that this disk's files of a folder are those of its manifest."""
    if text := read_bytes(manifest_file(folder)):
        write_bytes(copy_file(folder), text)


def copy_published(source: Path, target: Path) -> None:
    """Make a whole folder of the store another one there; nothing goes through this machine."""
    origin, at, made = location(source), location(target), read_manifest(source)
    if origin is None or at is None or made is None:
        raise UserError(f"{origin or source} is not there; it cannot become {at or target}")
    withdraw(target)
    in_parallel(lambda name: bucket.copy_object(origin / name, at / name), made["files"])
    about = {key: value for key, value in made.items() if key != "files"}
    commit(target, made["files"], about)
    copy_file(target).unlink()  # this disk has other files, or none


def withdraw(folder: Path) -> None:
    """Have the store not hold a folder any more; its files stay until they are replaced."""
    if at := location(folder):
        bucket.write_object(manifest_of(at), NOT_WHOLE)
        manifest_file(folder).unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a whole folder from the store and from this disk."""
    if at := location(folder):
        withdraw(folder)
        in_parallel(lambda name: bucket.remove_object(at / name), bucket.list_objects(at))
        bucket.remove_object(manifest_of(at))
        copy_file(folder).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def fetch(folder: Path) -> Path:
    """Bring a whole folder to this disk as the store has it now; what is here already stays.

    Raises:
        UserError: the store has no such folder, or its files are not those of the manifest.
    """
    at = location(folder)
    if at is None:
        return folder
    with FileLock(lock_file(folder), thread_local=False):
        for _ in range(ATTEMPTS):
            text = bucket.read_object(manifest_of(at))
            made = parse_manifest(text)
            if text is None or made is None:
                manifest_file(folder).unlink(missing_ok=True)
                raise UserError(f"{at} is not there, or is being written just now")
            write_bytes(manifest_file(folder), text)
            if is_here(folder) or replace(folder, at, made["files"]):
                return folder
        raise UserError(
            f"{at} is damaged: its files are not those that its manifest names. Write it again, or "
            "remove it"
        )


def replace(folder: Path, at: Location, sums: dict[str, Any]) -> bool:
    """Put the store's files in the place of the ones here; False where they are not as hashed."""
    partial = partial_name(folder)
    partial.mkdir()
    try:
        found = {}
        with suppress(FileNotFoundError):  # written anew meanwhile
            found = in_parallel(lambda name: download(at / name, partial / name), sums)
        if found != {name: tuple(wanted) for name, wanted in sums.items()}:
            return False
        copy_file(folder).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        note_copy(folder)
        return True
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fetch_files(folder: Path, names: Iterable[str], afresh: bool = False) -> None:
    """Bring some files of a whole folder to this disk, unchecked; those of the right size stay.

    Args:
        afresh: fetch those too.
    """
    at, made = location(folder), read_manifest(folder)
    if at is None or made is None:
        return
    sums = made["files"]
    wanted = [n for n in names if afresh or not has_sizes(folder, {n: sums.get(n, (-1, ""))})]
    with suppress(FileNotFoundError):  # found missing by who checks them
        in_parallel(lambda name: download(at / name, folder / name), wanted)


def manifest_of(at: Location) -> Location:
    return at.parent / f".{at.name}{MANIFEST_SUFFIX}"


def copy_file(folder: Path) -> Path:
    """Return where this disk notes which manifest its files are of."""
    return folder.with_name(f".{folder.name}{COPY_SUFFIX}")


def has_sizes(folder: Path, sums: dict[str, Any]) -> bool:
    files = [(folder / name, size) for name, (size, _) in sums.items()]
    return all(file.is_file() and file.stat().st_size == size for file, size in files)


def compute_checksum(path: Path) -> Checksum | None:
    """Return the checksum of a file; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return bucket.read_hashed(file)
    except OSError:
        return None


def parse_manifest(text: bytes | None) -> dict[str, Any] | None:
    with suppress(ValueError):
        found = json.loads(text or b"null")
        return found if isinstance(found, dict) and "files" in found else None
    return None
