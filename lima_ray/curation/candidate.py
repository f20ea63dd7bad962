"""Candidates: what a source makes of a dump, on its way to be chosen; and the parts they stand in.

A task reads one piece of a dump and writes one part: candidates, a reason for every row dropped,
and counts. A part stands whole or not at all, so a killed run goes on with the parts that stand.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from lima_ray.config.errors import UserError
from lima_ray.config.terminal import printable
from lima_ray.records.example import Example
from lima_ray.records.files import read_json, write_json

# Arrow's own pool keeps what was freed for the next table, a sixth more at the peak.
pa.set_memory_pool(pa.system_memory_pool())

ROWS_PER_GROUP = 1000
"""Rows held in memory before they are written."""
SHORT_ROWS_PER_GROUP = 16_000
"""The same of rows of about 100 bytes: each write costs as much as a hundred of them."""
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "turns": pa.list_(pa.string()),
        "source": pa.string(),
        "group": pa.string(),
        "score": pa.float64(),
        "created": pa.string(),
        "url": pa.string(),
        "authors": pa.list_(pa.string()),
        "licence": pa.string(),
        "why": pa.string(),
    }
)
DROPPED = pa.schema({"id": pa.string(), "reason": pa.string(), "detail": pa.string()})


@dataclass(frozen=True)
class Candidate:
    """One row that passed a source's filters."""

    id: str
    """`dump/number`, such as cooking/4242."""
    turns: tuple[str, ...]
    source: str
    """What the row's `source` says."""
    group: str = ""
    """What rows are shared over: a site, a category."""
    score: float = 0.0
    created: str = ""
    """Day on which it was written, as 2014-01-21; empty where that is not known."""
    url: str = ""
    authors: tuple[str, ...] = ()
    """Names or profile addresses, the asker's first."""
    licence: str = ""
    """Such as CC BY-SA 3.0."""
    why: str = ""
    """Why it was picked, for people to read."""

    @property
    def text(self) -> str:
        """All turns, for what compares texts."""
        return "\n".join(self.turns)

    @property
    def reply_chars(self) -> int:
        """Characters of the first reply; of a prompt alone 0."""
        return len(self.turns[1]) if len(self.turns) > 1 else 0

    def to_example(self) -> Example:
        """Return it as a row of a dataset."""
        extra = {"url": self.url, "authors": list(self.authors), "licence": self.licence}
        extra |= {"created": self.created, "group": self.group, "score": self.score}
        kept = {k: v for k, v in extra.items() if v not in ("", [])}
        return Example(self.turns, id=self.id, source=self.source, extra=kept)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Self:
        """Return what a row of a Parquet file holds."""
        lists: dict[str, Any] = {name: tuple(row[name]) for name in ("turns", "authors")}
        return cls(**row | lists)


@dataclass
class PartWriter:
    """Writes one part: a folder with candidates.parquet, dropped.parquet and counts.json."""

    folder: Path
    seen: int = 0
    """Rows of the dump that could have become one: questions, articles, submissions."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Rows by the filter that dropped them."""
    notes: Counter[str] = field(default_factory=Counter)
    """What else was found, such as fabricated rows."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What a later stage needs, as JSON."""
    damage: str = ""
    """Where the dump is damaged; what stands before it is in the part."""

    def __enter__(self) -> Self:
        self.partial = self.folder.with_name(f".{self.folder.name}.partial")
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self.tables: dict[str, Table] = {}
        self.candidates = self.table("candidates", SCHEMA)
        self.reasons = self.table("dropped", DROPPED, SHORT_ROWS_PER_GROUP)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:  # on a full disk no file can be ended
            for table in self.tables.values():
                table.abandon()
            shutil.rmtree(self.partial, ignore_errors=True)

    def finish(self) -> None:
        """Write the rest and put the part in its place."""
        for table in self.tables.values():
            table.close()
        for file in self.partial.iterdir():  # counts.json tells that all others stand
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        counts = {"seen": self.seen, "dropped": dict(self.dropped), "notes": dict(self.notes)}
        write_json(
            self.partial / "counts.json", counts | {"extra": self.extra, "damage": self.damage}
        )
        shutil.rmtree(self.folder, ignore_errors=True)
        self.partial.replace(self.folder)

    def table(self, name: str, schema: pa.Schema, rows_per_group: int = ROWS_PER_GROUP) -> "Table":
        """Return a table of the part, of which the rows go to the disk as they come."""
        self.tables[name] = Table(self.partial / f"{name}.parquet", schema, rows_per_group)
        return self.tables[name]

    def keep(self, candidate: Candidate) -> None:
        """Write a candidate."""
        self.candidates.add(vars(candidate))

    def drop(self, id: str, reason: str, detail: str = "") -> None:
        """Write why a row is no candidate.

        Args:
            id: of the row.
            reason: the filter's name.
            detail: what it found.
        """
        self.dropped[reason] += 1
        self.reasons.add_values(id, reason, detail)


class Table:
    """A Parquet file written group by group."""

    def __init__(self, path: Path, schema: pa.Schema, rows_per_group: int = ROWS_PER_GROUP) -> None:
        self.schema, self.rows_per_group = schema, rows_per_group
        self.rows: list[tuple[Any, ...]] = []
        # Few values repeat as they stand, and nobody looks rows up by a column's least and most.
        self.writer = parquet.ParquetWriter(
            path, schema, compression="zstd", use_dictionary=False, write_statistics=False
        )

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self.add_values(*(row[name] for name in self.schema.names))

    def add_values(self, *row: Any) -> None:
        """Add a row by its values in the schema's order, for tables of millions of rows."""
        self.rows.append(row)
        if len(self.rows) >= self.rows_per_group:
            self.flush()

    def extend(self, rows: pa.Table) -> None:
        """Add rows that stand as a table already."""
        self.flush()
        self.writer.write_table(rows)

    def flush(self) -> None:
        """Write what waits."""
        if self.rows:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*self.rows, strict=True), self.schema, strict=True)
            ]
            self.writer.write_table(pa.Table.from_arrays(columns, schema=self.schema))
            self.rows = []

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        self.writer.close()

    def abandon(self) -> None:
        """Let go of the file, whole or not."""
        with suppress(OSError, pa.ArrowInvalid):
            self.writer.close()
        self.writer.is_open = False  # else it is closed again, and fails, where it is collected


@dataclass(frozen=True)
class Part:
    """A part that stands."""

    folder: Path

    @property
    def stands(self) -> bool:
        """Whether it was written whole."""
        return bool(self.counts)

    def serves(self, damaged: bool) -> bool:
        """Return whether it need not be made again.

        Args:
            damaged: one of a damaged dump serves too.
        """
        return self.stands and (damaged or not self.counts["damage"])

    @property
    def counts(self) -> dict[str, Any]:
        """`seen`, `dropped` by reason, `notes`, `extra` and `damage`."""
        return read_json(self.folder / "counts.json") or {}

    def read(self, table: str = "candidates", columns: Sequence[str] | None = None) -> pa.Table:
        """Return a table of the part, or some of its columns."""
        with self.open(table) as file:
            return file.read(columns)

    def take(self, rows: Sequence[int], table: str = "candidates") -> pa.Table:
        """Return rows of a table by number, in the order asked for; only their groups are read."""
        with self.open(table) as file:
            sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
            starts_G = np.cumsum([0, *sizes])
            rows_N = np.asarray(rows, dtype=np.int64)
            group_N = np.searchsorted(starts_G, rows_N, side="right") - 1
            groups = np.unique(group_N)
            # Where each group that is read starts among those.
            read_from = dict(
                zip(groups.tolist(), np.cumsum([0, *(sizes[g] for g in groups)]), strict=False)
            )
            at = [
                read_from[g] + row - starts_G[g]
                for g, row in zip(group_N.tolist(), rows_N, strict=True)
            ]
            return file.read_row_groups(groups.tolist()).take(pa.array(at, pa.int64()))

    def candidates(self) -> Iterator[Candidate]:
        """Yield its candidates in order, some in memory at a time."""
        for batch in self.batches("candidates"):
            yield from map(Candidate.from_row, batch.to_pylist())

    def batches(self, table: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a table in order, some in memory at a time."""
        with self.open(table) as file:
            yield from file.iter_batches(ROWS_PER_GROUP)

    @contextmanager
    def open(self, table: str) -> Iterator[parquet.ParquetFile]:
        """Open a table of the part.

        Raises:
            UserError: it is missing, or not as it was written.
        """
        path = self.folder / f"{table}.parquet"
        try:
            with parquet.ParquetFile(path) as file:
                yield file
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{path} cannot be read: {printable(str(error))}. Remove {self.folder}, and the "
                "same command makes it again"
            ) from error
