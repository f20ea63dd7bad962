"""Rows of a table of text (CSV), which go on after a row that is damaged.

A quote that is not closed would take all that follows into one cell. Such a row ends where rows
after its first line make sense again: as many cells as there are columns, in quotes or not as the
rows before are.
"""

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lima_ray.curation.dumps.damage import DumpError
from lima_ray.curation.dumps.ranges import read_blocks, split

MAX_CELL_CHARS = 4 << 20
BOM = b"\xef\xbb\xbf"
SANE_ROWS = 3
"""In a row, by which a place is known to be no part of a cell."""
SANE_CHARS = 256 << 10
"""Of those rows together, at most."""
MOST_TRIED_LINES = 1000
"""After a damaged row's start, beyond which the rest is given up."""
UNCLOSED = "a quote is not closed"
AT_END = "unexpected end"
"""How the csv module's message begins where a table ends inside a quote."""
MOST_PLACES = 100
"""That are told and gone past."""


class BadLineError(Exception):
    """A line that is no text."""


@dataclass
class Lines:
    """Lines of a text, of which some can be taken again."""

    source: Iterator[tuple[int, str | BadLineError]]
    again: deque[tuple[int, str | BadLineError]] = field(default_factory=deque)
    taken: list[tuple[int, str | BadLineError]] = field(default_factory=list)
    """Since it was last cleared, with their numbers."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.again.popleft() if self.again else next(self.source)
        self.taken.append(line)
        if isinstance(line[1], BadLineError):
            raise line[1]
        return line[1]

    def give_back(self, lines: Sequence[tuple[int, str | BadLineError]]) -> None:
        """Put lines before those that follow."""
        self.again.extendleft(reversed(lines))

    def skip(self) -> bool:
        """Leave a line out; return whether there was one."""
        line = self.again.popleft() if self.again else next(self.source, None)
        return line is not None


@dataclass
class TableRows:
    """Reads the rows of a table."""

    path: Path
    columns: int = 0
    """Cells of its first row."""
    places: list[str] = field(default_factory=list)
    """Where it is damaged, as messages."""
    quoted: int = 0
    """Rows that begin with a quote."""
    rows: int = 0

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line at which each row starts, and its cells; empty lines are no rows.

        Raises:
            DumpError: it is damaged and nothing after that makes sense, or at too many places,
                after the rows that do.
        """
        csv.field_size_limit(MAX_CELL_CHARS)
        lines = Lines(read_lines(self.path))
        rows = csv.reader(lines, strict=True)
        while True:
            lines.taken.clear()
            try:
                cells = next(rows)
            except StopIteration:
                return
            except (csv.Error, BadLineError) as error:
                first = lines.taken[0][0] if isinstance(error, csv.Error) else lines.taken[-1][0]
                self.go_on(lines, f"{self.path}:{first}: ", str(error))
                rows = csv.reader(lines, strict=True)
                continue
            if not cells:
                continue
            if not self.columns:  # the header, which may be without quotes where rows have them
                self.columns = len(cells)
            else:
                self.rows += 1
                self.quoted += str(lines.taken[0][1]).startswith('"')
            if len(cells) != self.columns and len(lines.taken) > 1:
                row = list(lines.taken)
                if self.resume(lines, len(row) - 1):
                    self.note(f"{self.path}:{row[0][0]}: {UNCLOSED}")
                    continue
                lines.taken[:] = row
            yield lines.taken[0][0], cells

    def go_on(self, lines: Lines, place: str, error: str) -> None:
        """Skip to where rows make sense again.

        Raises:
            DumpError: they do not.
        """
        if not self.resume(lines, MOST_TRIED_LINES):
            last = f"{place}{explain(error)}, and no row after it is read"
            raise DumpError("; ".join([*self.places, last]))
        self.note(place + (UNCLOSED if error.startswith(AT_END) else explain(error)))

    def note(self, said: str) -> None:
        """Note a damaged place.

        Raises:
            DumpError: there are too many.
        """
        self.places.append(said)
        if len(self.places) > MOST_PLACES:
            raise DumpError("; ".join([*self.places[:5], f"and {MOST_PLACES - 4} more places"]))

    def resume(self, lines: Lines, most: int) -> bool:
        """Give lines of a damaged row back but for the first, and skip to a place that makes sense.

        Args:
            lines: of which the row has taken some.
            most: lines to skip at most, all of which are gone where no place makes sense.
        """
        lines.give_back(lines.taken[1:])
        for _ in range(most):
            lines.taken.clear()
            sane = self.is_sane(lines)
            lines.give_back(lines.taken)
            if sane:
                return True
            if not lines.skip():
                return False
        return False

    def is_sane(self, lines: Lines) -> bool:
        """Return whether some rows that follow are as those before."""
        rows = csv.reader(limited(lines), strict=True)
        for _ in range(SANE_ROWS):
            start = len(lines.taken)
            try:
                cells = next(rows, [])
            except (csv.Error, BadLineError):
                return False
            if len(cells) != self.columns or start == len(lines.taken):
                return False
            is_quoted = str(lines.taken[start][1]).startswith('"')
            if self.quoted in (0, self.rows) and self.rows and is_quoted != bool(self.quoted):
                return False
        return True


def limited(lines: Lines) -> Iterator[str]:
    """Yield lines until there are many characters of them."""
    chars = 0
    for line in lines:
        yield line
        chars += len(line)
        if chars > SANE_CHARS:
            return


def explain(error: str) -> str:
    """Return in plain words what the csv module says."""
    if error.startswith(AT_END):
        return "the row is cut off inside a quoted cell, where the file ends"
    if error.startswith("field larger"):
        return f"a cell of more than {MAX_CELL_CHARS:,} characters; {UNCLOSED}"
    return error if "save it" in error else f"no CSV: {error}"


def read_lines(path: Path) -> Iterator[tuple[int, str | BadLineError]]:
    """Yield the lines of a text with their numbers and ends; what is no text as an error.

    Raises:
        DumpError: it is cut off or damaged.
    """
    number = 0
    for piece in split(path, range_bytes=1 << 62):
        for _, block in read_blocks(piece):
            for line in block.removeprefix(b"" if number else BOM).splitlines(keepends=True):
                number += 1
                yield number, decode(line)


def decode(line: bytes) -> str | BadLineError:
    """Return a line as text."""
    if b"\0" in line:
        return BadLineError("it holds a NUL byte: it is damaged or UTF-16; save it as UTF-8")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        bad = f"byte {error.start} is 0x{line[error.start]:02x}"
        return BadLineError(f"it is not UTF-8: {bad}; save it as UTF-8")
