"""Figures as CSV, safe to open in a spreadsheet."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lima_ray.judging.forms.table import neutralise
from lima_ray.records.files import write_text

Cell = str | int | float | None


def write_csv(rows: Sequence[Mapping[str, Cell]], file: Path) -> None:
    """Write rows under the keys of the first; NaN and none are empty, no cell is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(neutralise, rows[0] if rows else ()))
    for row in rows:
        writer.writerow([neutralise(_filled(row[name])) for name in rows[0]])
    write_text(file, out.getvalue())


def _filled(cell: Cell) -> str | int | float:
    nothing = cell is None or (isinstance(cell, float) and math.isnan(cell))
    return "" if nothing or cell is None else cell
