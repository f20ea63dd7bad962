"""Tables as CSV, safe to open in a spreadsheet."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from lima_ray.records.files import write_text

Cell = str | int | float | None
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_csv(rows: Sequence[Mapping[str, Cell]], file: Path) -> None:
    """Write rows under the keys of the first; an OSError leaves the old file.

    A text that a spreadsheet would take for a formula begins with an apostrophe (OWASP, "CSV
    injection"). NaN and none are empty.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if rows:
        writer.writerow(map(neutralise, rows[0]))
    for row in rows:
        writer.writerow([neutralise(row[name]) for name in rows[0]])
    write_text(file, out.getvalue())


def neutralise(cell: Cell) -> str | int | float:
    """Return a cell that no spreadsheet takes for a formula."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, str) and cell.lstrip(" ").startswith(FORMULA_STARTS):
        return f"'{cell}"
    return cell
