"""A study's folder: which questions it asks, its database, and `verdicts.jsonl`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from lima_ray.config.errors import UserError
from lima_ray.judging.study.design import StudyDesign
from lima_ray.judging.study.store import StudyStore
from lima_ray.records.files import (
    acquire_lock,
    explain_write_errors,
    read_json,
    write_json,
    write_jsonl,
)
from lima_ray.records.journal import Journal
from lima_ray.web.database import DatabaseError, masked

VERDICTS = "verdicts.jsonl"
STUDY = "study.json"
DATABASE = "study.sqlite"


@contextmanager
def open_store(folder: Path, url: str) -> Iterator[StudyStore]:
    """Reach the database of a study; close it at the end.

    Args:
        url: of the database; empty takes a file in the folder.

    Raises:
        UserError: it cannot be reached.
    """
    own = URL.create("sqlite", database=str(folder / DATABASE)).render_as_string()
    store = StudyStore(url or own)
    try:
        try:
            store.settings("")
        except DatabaseError as error:
            shown = masked(url or own)
            raise UserError(
                f"the database {shown} cannot be reached ({error}); start it, or name another by "
                "--database"
            ) from error
        yield store
    finally:
        store.close()


def begin(folder: Path, design: StudyDesign, begun: dict[str, Any]) -> None:
    """Take up the study of a folder, or begin it there.

    Args:
        begun: what the command line says that a study cannot change.

    Raises:
        UserError: the folder holds a study of other questions.
    """
    before = read_json(folder / STUDY)
    if before and before.get("study") != design.id:
        told = before.get("begun", {})
        changed = [
            f"--{name} was {told.get(name)!r} and is {now!r}"
            for name, now in begun.items()
            if told.get(name) != now
        ]
        why = "; ".join(changed) or "the replies or the wording are others"
        raise UserError(
            f"{folder} holds a study of other questions ({why}); begin another one in another "
            "--out, or give what that one was begun with"
        )
    if not before:
        write_json(folder / STUDY, {"study": design.id, "begun": begun})


def study_of(folder: Path) -> str:
    """Return the id of the study that a folder holds; refuse one without."""
    found = read_json(folder / STUDY)
    if not found or not isinstance(found.get("study"), str):
        raise UserError(f"{folder} holds no study; name its systems and open it first")
    return found["study"]


def export_verdicts(folder: Path, store: StudyStore, study: str) -> int:
    """Write the answers that count to `verdicts.jsonl`, and return how many there are.

    Verdicts of others in the file stay; checks are no verdicts.

    Raises:
        UserError: another process writes to the file.
        DatabaseError: the answers cannot be read.
    """
    given = store.assignments(study, records=True)
    found = [one for one in given if one.record is not None]
    found.sort(key=lambda one: (str(one.at), one.annotator, one.number))
    file = folder / VERDICTS
    with explain_write_errors(file, "--out"):
        busy = f"another process is writing to {file}; wait for it"
        lock = acquire_lock(file.with_name(f".{file.name}.lock"), busy)
        try:
            others = [row for row in Journal(file).records() if row.get("study") != study]
            write_jsonl([*others, *(one.record for one in found if one.record)], file)
        finally:
            lock.release()
    return len(found)
