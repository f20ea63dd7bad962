"""What a source is: tasks in stages, each of which writes one part."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lima_ray.config.errors import UserError
from lima_ray.curation.candidate import Part, PartWriter


@dataclass(frozen=True)
class Task:
    """One piece of work of a source."""

    name: str
    """Such as cooking-0003, for people and for the part's folder."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """JSON, which says all that the part depends on besides the recipe's section."""

    def folder(self, work: Path) -> Path:
        """Return the part's folder, which other arguments would not share."""
        said = json.dumps(dict(self.arguments), sort_keys=True).encode()
        return work / f"{self.name}-{hashlib.sha256(said).hexdigest()[:8]}"


class SourceReader(Protocol):
    """A source of candidates.

    It is made from its section of the recipe in each process. Its first stage reads the dump; a
    stage may follow that joins what the first one found.
    """

    filters: tuple[str, ...]
    """Reasons in the order in which they are tried, for the funnel."""

    def tasks(self, stage: int, parts: Sequence[Part]) -> list[Task]:
        """Return a stage's tasks, the same for any number of workers; none ends the source.

        Args:
            stage: from 0.
            parts: what the stage before has written, in the order of its tasks.

        Raises:
            UserError: a file that is not there, or no dump of this source.
        """
        ...

    def run(self, task: Task, out: PartWriter) -> None:
        """Do a task.

        Raises:
            DumpError: the dump is damaged, after what stands before was written.
        """
        ...


def files_below(path: Path, patterns: Sequence[str]) -> list[Path]:
    """Return a file itself, or a folder's files whose names fit, in order, case aside.

    Args:
        path: file or folder.
        patterns: of names in lower case, such as `*posts.xml`.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file() and any(Path(file.name.lower()).match(p) for p in patterns)
    ]
    if not found:
        what = (
            "no such file or folder" if not path.exists() else f"no {' or '.join(patterns)} in it"
        )
        raise UserError(f"{path}: {what}; give the dump's place by `inputs` and `path`")
    return found


def stamp(path: Path) -> list[int]:
    """Return what tells a file from another one in its place: size and time."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
