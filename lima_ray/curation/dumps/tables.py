"""Tables of text (CSV), a row at a time: cells may hold newlines, so a table is never split."""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps.ranges import DumpError, read_blocks, split

MAX_CELL_CHARS = 4 << 20
BOM = b"\xef\xbb\xbf"
UNEVEN = "table rows with another number of cells"


def read_header(path: Path) -> tuple[str, ...]:
    """Return the names of a table's columns, in lower case.

    Raises:
        UserError: it is empty, or no table.
    """
    for _, cells in read_cells(path):
        return tuple(cell.strip().lower() for cell in cells)
    raise UserError(f"{path} is empty; its first line names the columns")


def read_table(path: Path, notes: Counter[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line at which each row starts, and its cells by column.

    Args:
        path: plain or .zst.
        notes: counts rows that have more or fewer cells than the header, which are left out.

    Raises:
        DumpError: as `read_cells`, or it is cut off between cells, after the rows before that.
    """
    rows = read_cells(path)
    line, header = next(rows, (0, []))
    names, cells = [cell.strip().lower() for cell in header], header
    for line, cells in rows:
        if len(cells) == len(names):
            yield line, dict(zip(names, cells, strict=True))
        else:
            notes[UNEVEN] += 1
    if len(cells) < len(names) and not ends_with_newline(path):
        raise DumpError(f"{path}:{line}: the row is cut off, where the file ends")


def ends_with_newline(path: Path) -> bool:
    """Return whether the last byte of a file ends a line; zstd itself tells what is cut off."""
    if path.suffix.lower() in (".zst", ".zstd"):
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def read_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line at which each row starts, and its cells; empty lines are no rows.

    Raises:
        DumpError: it is cut off inside a quote, holds a cell of absurd length or NUL bytes, or is
            not UTF-8; what stands before is yielded first.
    """
    csv.field_size_limit(MAX_CELL_CHARS)
    rows = csv.reader(read_lines(path), strict=True)
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DumpError(f"{path}:{line}: {explain(str(error))}") from error
        if cells:
            yield line, cells


def explain(error: str) -> str:
    """Return in plain words what the csv module says."""
    if error.startswith("unexpected end"):
        return "the row is cut off inside a quoted cell, where the file ends"
    if error.startswith("field larger"):
        return f"a cell of more than {MAX_CELL_CHARS:,} characters; a quote is not closed"
    return f"no CSV: {error}"


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text with their ends.

    Raises:
        DumpError: NUL bytes, or bytes that are not UTF-8.
    """
    number = 0
    for piece in split(path, range_bytes=1 << 62):
        for _, block in read_blocks(piece):
            for line in block.removeprefix(b"" if number else BOM).splitlines(keepends=True):
                number += 1
                yield decode(line, f"{path}:{number}")


def decode(line: bytes, place: str) -> str:
    """Return a line as text.

    Raises:
        DumpError: NUL bytes, or bytes that are not UTF-8.
    """
    if b"\0" in line:
        raise DumpError(f"{place} holds a NUL byte: it is damaged or UTF-16; save it as UTF-8")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        bad = f"byte {error.start} is 0x{line[error.start]:02x}"
        raise DumpError(f"{place} is not UTF-8: {bad}; save it as UTF-8") from error


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
