"""Raw rows of one file, by what its name ends in; text files may be compressed.

JSON lines and JSON arrays are told apart by what stands in the file, whatever its name. Every row
comes with the place where it stands, for messages.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from lima_ray.config.errors import UserError
from lima_ray.records.files import parse_json

BOM = b"\xef\xbb\xbf"
PlacedRows = Iterator[tuple[str, Any]]
"""Pairs of place and row."""


def read_file_rows(path: Path) -> PlacedRows:
    kind, packed = check_format(path)
    try:
        if kind in TABLES:
            yield from READERS[kind](path, path)
        else:
            with OPENERS.get(packed, Path.open)(path, "rb") as content:
                yield from READERS[kind](path, content)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(
            f"{path} cannot be read: {getattr(error, 'strerror', 0) or error}"
        ) from error


def check_format(path: Path) -> tuple[str, str]:
    """Return what `file_suffixes` does of a file that can be read.

    Raises:
        UserError: its name says that it cannot.
    """
    kind, packed = file_suffixes(path)
    if kind not in READERS or (packed and kind in TABLES):
        raise UserError(
            f"{path} ends in {''.join(path.suffixes[-2:]) or path.name!r}; data files end in "
            f"{', '.join(READERS)}, those of text also in {', '.join(OPENERS)} after that. pandas "
            "and `datasets` write most others as .jsonl"
        )
    return kind, packed


def file_suffixes(path: Path) -> tuple[str, str]:
    """Return what a file's name ends in, before and in the suffix of a compression."""
    packed = path.suffix.lower() if path.suffix.lower() in OPENERS else ""
    return (path.with_suffix("") if packed else path).suffix.lower(), packed


def file_stem(path: Path) -> str:
    kind, packed = file_suffixes(path)
    return path.name[: len(path.name) - len(kind) - len(packed)]


def number_rows(rows: Iterable[Any], name: Path | str) -> PlacedRows:
    """Yield rows, each with its number in a file or a dataset as its place."""
    for number, row in enumerate(rows):
        yield f"{name}[{number}]", row


def read_json_rows(path: Path, content: BinaryIO) -> PlacedRows:
    """Yield JSON objects, one a line, or one array of them."""
    # A mark stands at the start of a file, so also inside one that was made of several.
    lines = enumerate(content, start=1)
    bare = (
        (n, line, line.strip().removeprefix(BOM).removesuffix(BOM).strip()) for n, line in lines
    )
    first_number, whole, first = next((one for one in bare if one[2]), (1, b"", b""))
    array = first[:1] == b"[" or (not first and path.suffix == ".json")
    if array or first == b"{":
        # As it stands, for the places in messages.
        text = b"\n" * (first_number - 1) + b"".join(
            [whole.removeprefix(BOM), *(line for _, line, _ in bare)]
        )
        parsed = parse_json(text.rstrip().removesuffix(BOM), str(path))
        if not array:
            raise UserError(
                f"{path} holds one JSON object; it needs an array of rows, or a row a line"
            )
        yield from number_rows(parsed, path)
        return
    if first:
        yield f"{path}:{first_number}", parse_json(first, f"{path}:{first_number}")
    for number, _, line in bare:
        if line:
            yield f"{path}:{number}", parse_json(line, f"{path}:{number}")


def read_csv_rows(path: Path, content: BinaryIO) -> PlacedRows:
    """Yield rows of a table of text, whose first line names the keys; an empty cell is no value."""
    csv.field_size_limit(sys.maxsize)
    text = io.TextIOWrapper(content, "utf-8-sig", newline="")
    try:
        delimiter = "\t" if file_suffixes(path)[0] == ".tsv" else ","
        names = text.readline()
        # Spreadsheets write semicolons where the comma parts decimals.
        if delimiter == "," and "," not in names and ";" in names:
            delimiter = ";"
        table = csv.DictReader(chain([names], text), delimiter=delimiter)
        for row in table:
            place = f"{path}:{table.line_num}"
            if None in row:
                raise UserError(f"{place} has more cells than the first line has names")
            yield place, {key: parse_cell(key, cell) for key, cell in row.items()}
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x}") from error
    except csv.Error as error:
        raise UserError(f"{path} is no table of text: {error}") from error


def parse_cell(key: str, cell: str | None) -> Any:
    """Return a cell's text, or the list of messages that stands in it as JSON."""
    if cell and key in ("messages", "conversations") and cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except json.JSONDecodeError:
            return cell
    return cell or None


def read_parquet_rows(path: Path, _: Any) -> PlacedRows:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
        rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
        yield from number_rows(rows, path)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from error


def read_arrow_rows(path: Path, _: Any) -> PlacedRows:
    """Yield rows of an Arrow file, as `datasets` writes them."""
    import pyarrow
    from datasets import Dataset

    try:
        table = Dataset.from_file(str(path))
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} cannot be read as Arrow: {error}") from error
    yield from number_rows(table, path)


def open_zstd(path: Path, _: str) -> BinaryIO:
    """Open a file that zstd compressed; pyarrow has the library along."""
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"))


OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": open_zstd,
}
TABLES = {".parquet": read_parquet_rows, ".arrow": read_arrow_rows}
READERS: dict[str, Callable[[Path, Any], PlacedRows]] = {
    ".jsonl": read_json_rows,
    ".json": read_json_rows,
    ".ndjson": read_json_rows,
    ".csv": read_csv_rows,
    ".tsv": read_csv_rows,
    **TABLES,
}
