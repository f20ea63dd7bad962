"""The drill's table in `cluster/README.md`, between two comments, and what became worse since."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.drill.outcome import Outcome
from lima_ray.records.files import write_text

BEGIN, END = "<!-- drill -->", "<!-- /drill -->"
HEAD = ("fault", "lost", "s until it goes on", "as promised")
MUCH_LONGER = 2.0
NOISE_S = 5.0
"""How much later may be chance, however short it was."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    title: str
    lost: str
    seconds: int | None
    held: str

    @classmethod
    def of(cls, title: str, outcome: Outcome) -> "Row":
        seconds = None if outcome.seconds is None else max(0, round(outcome.seconds))
        return cls(title, outcome.lost, seconds, outcome.held)

    def line(self) -> str:
        seconds = "" if self.seconds is None else str(self.seconds)
        return f"| {self.title} | {self.lost} | {seconds} | {self.held} |"


def read_table(file: Path) -> dict[str, Row]:
    """Return the rows that stand in a file, by title, in their order."""
    lines = section(file.read_text(encoding="utf-8"))[1].strip().splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    return {
        title: Row(title, lost, int(seconds) if seconds else None, held)
        for title, lost, seconds, held in rows
    }


def write_table(file: Path, rows: Iterable[Row]) -> None:
    """Put rows into a file, in the place of those that stood there."""
    before, _, after = section(file.read_text(encoding="utf-8"))
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|---|---|", *(row.line() for row in rows)]
    write_text(file, before + "\n" + "\n".join(lines) + "\n" + after)


def section(text: str) -> tuple[str, str, str]:
    """Split a text into what ends with BEGIN, what stands between, and what begins with END."""
    found = re.fullmatch(f"(.*{BEGIN})(.*)({END}.*)", text, re.DOTALL)
    if not found:
        raise SystemExit(f"the file lacks {BEGIN} and {END}, between which the table stands")
    return found[1], found[2], found[3]


def is_worse(now: Row, last: Row) -> bool:
    """Return whether it took over twice as long to go on."""
    if now.seconds is None or last.seconds is None:
        return False
    return now.seconds > max(MUCH_LONGER * last.seconds, last.seconds + NOISE_S)
