"""Rows of one's own, and the released LIMA: dialogues in any form that `lima_ray.example` reads."""

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.curation import filters
from lima_ray.curation.candidate import Candidate, PartWriter
from lima_ray.curation.dumps.ranges import DumpError
from lima_ray.curation.recipe import Examples
from lima_ray.curation.stages import Task, stamp
from lima_ray.data.examples import parse_example
from lima_ray.data.file_formats import check_format
from lima_ray.data.reading import find_split_files, read_rows
from lima_ray.records.example import Example

ALSO_CALLED = {
    "created": ("created_at", "created_utc", "date"),
    "licence": ("license",),
    "authors": ("author",),
    "url": ("link",),
}
"""Other names of what a row says of its origin."""
NUMBER = re.compile(r"\d{9,13}(?:\.\d+)?")
"""Of seconds or milliseconds since 1970; those of 1973 have 9 digits."""
MILLISECONDS_FROM = 1e11
SPLIT = "train"
"""Of a folder that holds several."""


class ExamplesReader:
    """Rows of a file, or of a folder's train split."""

    def __init__(self, section: Examples, inputs: Path, seed: int) -> None:
        self.section = section
        self.path = inputs / section.path
        self.filters: tuple[str, ...] = ("unusable", "other_source", "not_held", "too_recent")

    def tasks(self, stage: int, parts: Sequence[Any]) -> list[Task]:
        if stage:
            return []
        if not self.path.exists():
            raise UserError(
                f"{self.path}: no such file or folder; give its place by `inputs` and `path`"
            )
        files = find_split_files(self.path, SPLIT) if self.path.is_dir() else [self.path]
        for file in files:
            check_format(file)
        return [
            Task(f"{file.stem}-{n:03}", {"file": str(file), "stamp": stamp(file)})
            for n, file in enumerate(files)
        ]

    def run(self, task: Task, out: PartWriter) -> None:
        try:
            for place, row in read_rows(task.arguments["file"], SPLIT):
                self.read(row, place, out)
        except UserError as error:
            raise DumpError(str(error)) from error

    def read(self, row: Any, place: str, out: PartWriter) -> None:
        """Make a candidate of a row, or say why it is none."""
        out.seen += 1
        try:
            example = parse_example(row, place, dialogues=False)
        except UserError as error:
            out.drop(place.rsplit("/", 1)[-1], "unusable", str(error))
            return
        created = read_day(said(example.extra, "created"))
        recent = filters.written_before(created, self.section.written_before)
        if self.section.only and example.source not in self.section.only:
            out.drop(example.id, "other_source", example.source)
        elif example.system or example.learned:
            what = "a system message" if example.system else "turns that are not learned"
            out.drop(example.id, "not_held", f"{what}, which a curated row does not hold")
        elif recent is not True:
            out.drop(example.id, "too_recent", recent[1])
        else:
            out.keep(self.candidate(example, created))

    def candidate(self, example: Example, created: str) -> Candidate:
        """Return a row as a candidate, with what it says of its origin."""
        extra = example.extra
        return Candidate(
            id=example.id,
            turns=example.turns,
            source=example.source if self.section.only else self.section.source,
            group=str(extra.get("group") or example.source),
            score=score(extra),
            created=created[:10] if filters.ISO_DAY.match(created) else "",
            url=str(said(extra, "url") or ""),
            authors=authors(extra),
            licence=str(said(extra, "licence") or ""),
            why="a row of one's own",
        )


def said(extra: Mapping[str, Any], name: str) -> Any:
    """Return what a row says under a name, or under one that others give the same."""
    return next((extra[key] for key in (name, *ALSO_CALLED[name]) if extra.get(key)), None)


def read_day(created: Any) -> str:
    """Return a day as 2014-01-21, which may stand as Unix time; what is neither stays as it is."""
    text = str(created or "").strip()
    if not NUMBER.fullmatch(text):
        return text
    seconds = float(text) if float(text) < MILLISECONDS_FROM else float(text) / 1000
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def authors(extra: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row's authors, which may stand as one or as a list."""
    those = said(extra, "authors")
    return tuple(str(a) for a in (those if isinstance(those, list) else [those]) if a)


def score(extra: Mapping[str, Any]) -> float:
    """Return a row's score, 0 where it has none that is a finite number."""
    value = extra.get("score")
    try:
        found = float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0
    return found if math.isfinite(found) else 0.0
