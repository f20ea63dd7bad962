"""Tables of text (CSV), a row at a time: cells may hold newlines, so a table is never split."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps.damage import DumpError
from lima_ray.curation.dumps.table_rows import TableRows

UNEVEN = "table rows with another number of cells"


def read_header(path: Path) -> tuple[str, ...]:
    """Return the names of a table's columns, in lower case.

    Raises:
        UserError: it is empty, or no table.
    """
    for _, cells in TableRows(path):
        return tuple(cell.strip().lower() for cell in cells)
    raise UserError(f"{path} is empty; its first line names the columns")


def read_table(path: Path, notes: Counter[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line at which each row starts, and its cells by column.

    Args:
        path: plain or .zst.
        notes: counts rows that have more or fewer cells than the header, which are left out.

    Raises:
        DumpError: it is damaged or cut off, after the rows that make sense.
    """
    table = TableRows(path)
    rows = iter(table)
    line, header = next(rows, (0, []))
    names, cells = [cell.strip().lower() for cell in header], header
    for line, cells in rows:
        if len(cells) == len(names):
            yield line, dict(zip(names, cells, strict=True))
        else:
            notes[UNEVEN] += 1
    if len(cells) < len(names) and not ends_with_newline(path):
        table.places.append(f"{path}:{line}: the row is cut off, where the file ends")
    if table.places:
        raise DumpError("; ".join(table.places))


def ends_with_newline(path: Path) -> bool:
    """Return whether the last byte of a file ends a line; zstd itself tells what is cut off."""
    if path.suffix.lower() in (".zst", ".zstd"):
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def find_form(path: Path, forms: Mapping[str, Sequence[str]]) -> str | None:
    """Return which form of table a file has, the first of which it has every column.

    Args:
        path: the table.
        forms: names of columns in lower case, by the form's name.

    Raises:
        UserError: it is empty, or no table.
    """
    header = set(read_header(path))
    return next((form for form, names in forms.items() if header.issuperset(names)), None)
