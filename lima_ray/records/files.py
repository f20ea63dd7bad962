"""Files written so that a reader sees the old one or the new one, and locks between processes."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from lima_ray.config.errors import UserError
from lima_ray.config.storage.lease import Lease
from lima_ray.config.storage.working_copy import location


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    write_text(path, json.dumps(value, indent=2))


def write_jsonl(records: Iterable[dict[str, Any]], path: Path) -> None:
    """Write records, one a line, so that a reader sees the old file or the new one."""
    write_text(path, "".join(f"{json.dumps(r, ensure_ascii=False)}\n" for r in records))


def read_jsonl(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the record of each line that is not empty, and its place; refuse what is no JSON."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield parse_json(line, where), where


def check_keys(row: dict[str, Any], keys: Iterable[str], where: str, what: str) -> None:
    """Refuse a row that is no object, or lacks a key of the record that it is to be."""
    try:
        for key in keys:
            row[key]
    except (KeyError, TypeError) as error:
        raise UserError(f"{where} is no {what}: {error!r}") from error


def build_record(kind: type[Any], row: dict[str, Any]) -> Any:
    """Make a record of a checked row: lists become tuples, and keys without a field `extra`."""
    names = {one.name for one in fields(kind)} - {"extra"}
    known: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in row.items()
        if key in names
    }
    return kind(**known, extra={key: row[key] for key in row if key not in names})


def write_text(path: Path, text: str) -> None:
    """Write a text to the disk so that a reader sees the old file or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def make_readable(*files: Path) -> None:
    """Let those read files who may read their folder; safetensors writes for its owner alone."""
    for file in files:
        if file.is_file():
            file.chmod(file.parent.stat().st_mode & 0o666)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object that a file holds; none where there is none or it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def parse_json(text: bytes, where: str) -> Any:
    """Parse JSON; an error names `where` it comes from: a file, or a file, `:` and the line."""
    line_known = where.rsplit(":", 1)[-1].isdigit()
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        at = where if line_known else f"{where}:{line}"
        raise UserError(
            f"{at} is not UTF-8: byte {error.start} is 0x{text[error.start]:02x}"
        ) from error
    except json.JSONDecodeError as error:
        said, place = error.msg, error.pos
        if place >= len(error.doc.rstrip()) or said.startswith("Unterminated string"):
            # The parser names where it began to read, which is not where a cut file ends.
            said, place = "it is cut off", len(error.doc.rstrip())
        line, column = error.doc.count("\n", 0, place) + 1, place - error.doc.rfind("\n", 0, place)
        at = where if line_known else f"{where}:{line}"
        raise UserError(f"{at} is not JSON: {said} at column {column}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} cannot be read as JSON: {error}") from error


@contextmanager
def explain_write_errors(path: Path, flag: str = "--runs_dir") -> Iterator[None]:
    """Turn an OSError while writing into a `UserError`, whose way out is another `flag`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}. Make room or give write permission, or "
            f"choose another {flag}; what was there is kept"
        ) from error


@dataclass(frozen=True)
class HeldLock:
    """A lock that this process holds until it is released, or the process ends."""

    lock: BaseFileLock
    lease: Lease | None = None
    """In the store of a working copy, against other machines."""

    def release(self) -> None:
        if self.lease:
            self.lease.release()
        self.lock.release()


def acquire_lock(file: Path, busy: str, everywhere: bool = False) -> HeldLock:
    """Lock a file, made where it is missing, until the lock is released or this process ends.

    Args:
        busy: what it means that another process holds it, and the way out, for a `UserError`.
        everywhere: in a working copy of a bucket, keep processes of other machines away too.
    """
    held = FileLock(file, blocking=False, thread_local=False, fallback_to_soft=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    try:
        held.acquire()
    except Timeout as error:
        raise UserError(busy) from error
    except OSError as error:  # file systems without locks
        print(f"{file} cannot be locked ({error.strerror}); run this once only")
    at = location(file) if everywhere else None
    try:
        return HeldLock(held, Lease(at, busy) if at else None)
    except UserError:
        held.release()
        raise
