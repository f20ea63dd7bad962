"""Raw rows from where people keep them: files, folders of splits or shards, datasets of the hub.

JSON lines and JSON arrays are told apart by what stands in the file, whatever its name; text files
may be compressed. Every row comes with the place where it stands, for messages.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lima_ray.config import resolve
from lima_ray.errors import UserError

BOM = b"\xef\xbb\xbf"
SHARD = re.compile(r"(?P<name>.*?)[-_.]?((?P<number>\d+)-of-(?P<of>\d+)(-[0-9a-f]{8,})?|\d{3,})")
"""A file's stem such as `train-00000-of-00003` or `part-00000`; `rows2` is none."""
Placed = Iterator[tuple[str, Any]]
"""Pairs of place and row."""


def rows_of(reference: str, split: str) -> Placed:
    """Yield `(place, row)` for every raw row that a reference names.

    Args:
        reference: path, or the hub's `owner/name`.
        split: which file of a directory or split of a hub's dataset.

    Raises:
        UserError: nothing there, or it cannot be read; the line is named where there is one.
    """
    path = resolve(reference)
    if path is None and re.fullmatch(r"[\w.-]+/[\w.-]+", reference) and not is_file_name(reference):
        yield from hub_rows(reference, split)
    elif path is None:
        raise UserError(
            f"no data at {reference}: it is no file, no directory, and not the form owner/name "
            "of a dataset on the hub"
        )
    elif path.is_dir() and is_saved_to_disk(path):
        yield from saved_rows(path, split)
    else:
        for file in split_files(path, split) if path.is_dir() else [path]:
            yield from file_rows(file)


def file_rows(path: Path) -> Placed:
    """Rows of one file, by what its name ends in."""
    kind, packed = kind_of(path)
    if kind not in READERS or (packed and kind in TABLES):
        raise UserError(
            f"{path} ends in {''.join(path.suffixes[-2:]) or path.name!r}; data files end in "
            f"{', '.join(READERS)}, those of text also in {', '.join(OPENERS)} after that. pandas "
            "and `datasets` write most others as .jsonl"
        )
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


def kind_of(path: Path) -> tuple[str, str]:
    """What a file's name ends in, before and in the suffix of a compression."""
    packed = path.suffix.lower() if path.suffix.lower() in OPENERS else ""
    return (path.with_suffix("") if packed else path).suffix.lower(), packed


def stem_of(path: Path) -> str:
    """A data file's name without its suffixes."""
    kind, packed = kind_of(path)
    return path.name[: len(path.name) - len(kind) - len(packed)]


def json_rows(path: Path, content: BinaryIO) -> Placed:
    """JSON objects, one a line, or one array of them."""
    # A mark stands at the start of a file, so also inside one that was made of several.
    bare = (line.strip().removeprefix(BOM).removesuffix(BOM).strip() for line in content)
    lines = enumerate(bare, start=1)
    first_number, first = next(((n, line) for n, line in lines if line), (1, b""))
    if first[:1] == b"[" or (not first and path.suffix == ".json"):
        text = b"\n" * (first_number - 1) + b"\n".join([first, *(line for _, line in lines)])
        array = decode_json(text, str(path))
        for number, row in enumerate(array):
            yield f"{path}[{number}]", row
        return
    if first == b"{":
        decode_json(b"\n".join([first, *(line for _, line in lines)]), str(path))
        raise UserError(f"{path} holds one JSON object; it needs an array of rows, or a row a line")
    if first:
        yield f"{path}:{first_number}", decode_json(first, f"{path}:{first_number}")
    for number, line in lines:
        if line:
            yield f"{path}:{number}", decode_json(line, f"{path}:{number}")


def csv_rows(path: Path, content: BinaryIO) -> Placed:
    """Rows of a table of text, whose first line names the keys; an empty cell is no value."""
    csv.field_size_limit(sys.maxsize)
    text = io.TextIOWrapper(content, "utf-8-sig", newline="")
    try:
        table = csv.DictReader(text, delimiter="\t" if kind_of(path)[0] == ".tsv" else ",")
        for row in table:
            place = f"{path}:{table.line_num}"
            if None in row:
                raise UserError(f"{place} has more cells than the first line has names")
            yield place, {key: cell_value(key, cell) for key, cell in row.items()}
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x}") from error
    except csv.Error as error:
        raise UserError(f"{path} is no table of text: {error}") from error


def cell_value(key: str, cell: str | None) -> Any:
    """A cell's text, or the list of messages that stands in it as JSON."""
    if cell and key in ("messages", "conversations") and cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except json.JSONDecodeError:
            return cell
    return cell or None


def parquet_rows(path: Path, _: Any) -> Placed:
    """Rows of a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
        rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
        for number, row in enumerate(rows):
            yield f"{path}[{number}]", row
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from error


def arrow_rows(path: Path, _: Any) -> Placed:
    """Rows of an Arrow file, as `datasets` writes them."""
    import pyarrow
    from datasets import Dataset

    try:
        table = Dataset.from_file(str(path))
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} cannot be read as Arrow: {error}") from error
    for number, row in enumerate(table):
        yield f"{path}[{number}]", row


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
TABLES = {".parquet": parquet_rows, ".arrow": arrow_rows}
READERS: dict[str, Callable[[Path, Any], Placed]] = {
    ".jsonl": json_rows,
    ".json": json_rows,
    ".ndjson": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    **TABLES,
}


def decode_json(text: bytes, where: str) -> Any:
    """Parse JSON, naming the place of what is wrong in it.

    Args:
        text: in UTF-8.
        where: it comes from; a file, or a file and `:` and the line.
    """
    line_known = where.rsplit(":", 1)[-1].isdigit()
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        at = where if line_known else f"{where}:{line}"
        raise UserError(
            f"{at} is not UTF-8: byte {error.start} is 0x{text[error.start]:02x}"
        ) from error
    except json.JSONDecodeError as error:
        said, place = error.msg, error.pos
        if place >= len(error.doc.rstrip()) or said.startswith("Unterminated string"):
            # The parser names where it began to read, which is not where a cut file ends.
            said, place = "it is cut off", len(error.doc.rstrip())
        line, column = error.doc.count("\n", 0, place) + 1, place - error.doc.rfind("\n", 0, place)
        at = where if line_known else f"{where}:{line}"
        raise UserError(f"{at} is not JSON: {said} at column {column}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} cannot be read as JSON: {error}") from error


def split_files(folder: Path, split: str) -> list[Path]:
    """The files of a directory that hold a split, in order: one named so, or its shards, here or in
    `data`, or all in a folder named so.

    Raises:
        UserError: there is none, several might be meant, or a shard is missing.
    """
    files = data_files(folder) + data_files(folder / "data")
    named = [p for p in files if stem_of(p) == split]
    shards = data_files(folder / split) + data_files(folder / "data" / split)
    shards += [p for p in files if stem_of(p) != split and shard_name(p) == split]
    if len(named) + bool(shards) > 1:
        several = ", ".join(p.name for p in named + shards)
        raise UserError(f"{folder} has {several} for {split}; name the one that is meant")
    kinds = {shard_name(p) or p for p in files}
    found = named or shards or (files if split == "train" and len(kinds) == 1 else [])
    if not found:
        names = ", ".join(p.name for p in files) or f"no file that ends in {', '.join(READERS)}"
        raise UserError(
            f"{folder} has no {split}.jsonl, nor {split} in another form; it has {names}"
        )
    check_shards(folder, found)
    return found


def data_files(folder: Path) -> list[Path]:
    """A folder's data files, in order of name."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and kind_of(p)[0] in READERS)


def shard_name(path: Path) -> str | None:
    """What a shard is a part of, `train` for `train-00000-of-00003.parquet`; none for others."""
    found = SHARD.fullmatch(stem_of(path))
    return found["name"] if found else None


def check_shards(folder: Path, files: list[Path]) -> None:
    """Refuse a set of shards that is not whole."""
    shards = [found for p in files if (found := SHARD.fullmatch(stem_of(p))) and found["of"]]
    for of in {int(found["of"]) for found in shards}:
        there = {int(found["number"]) for found in shards if int(found["of"]) == of}
        if missing := sorted(set(range(of)) - there):
            raise UserError(
                f"{folder} has {len(there)} of {of} shards; it lacks number {missing[0]:05d}"
            )


def is_file_name(reference: str) -> bool:
    """Whether a missing path was surely meant as a file."""
    return Path(reference).suffix.lower() in {*READERS, *OPENERS, ".txt", ".zip"}


def is_saved_to_disk(folder: Path) -> bool:
    """Whether `datasets` wrote the folder by `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def saved_rows(folder: Path, split: str) -> Placed:
    """Rows of what `save_to_disk` wrote."""
    from datasets import DatasetDict, load_from_disk

    try:
        table = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} cannot be read as a saved dataset: {error}") from error
    if isinstance(table, DatasetDict):
        if split not in table:
            raise UserError(f"{folder} has no split {split!r}; it has {', '.join(map(str, table))}")
        table = table[split]
    yield from placed(table, f"{folder}/{split}")


def placed(rows: Iterable[Any], name: str) -> Placed:
    """Rows with their numbers."""
    for number, row in enumerate(rows):
        yield f"{name}[{number}]", row


def hub_rows(dataset: str, split: str) -> Placed:
    """Rows of a hub's dataset: its `<split>.jsonl` where it has one, else through `datasets`.

    GAIR/lima is read the first way: `datasets` 4 and later refuse its loading script.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # httpx's, or httpx2's
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    page = f"https://huggingface.co/datasets/{dataset}"
    try:
        path = hf_hub_download(dataset, f"{split}.jsonl", repo_type="dataset")
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"the hub cannot be reached for {dataset}, and no copy is cached"
        ) from error
    except EntryNotFoundError:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        try:
            table = load_dataset(dataset, split=split)
        except (DatasetsError, ValueError, RuntimeError, OSError) as error:
            raise UserError(f"{page} has no split {split!r} that can be read: {error}") from error
        yield from placed(table, f"{dataset}/{split}")
        return
    except GatedRepoError as error:
        raise UserError(
            f"{dataset} is gated. Accept its licence at {page} with your account, then give a read "
            "token: HF_TOKEN (from https://huggingface.co/settings/tokens) or use `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{page} does not exist or is private; a private dataset needs HF_TOKEN"
        ) from error
    except HFValidationError as error:
        raise UserError(
            f"no data at {dataset}: it is no file, no directory, and {error}"
        ) from error
    except (HTTPError, OSError) as error:
        raise UserError(f"{page} cannot be fetched: {error}") from error
    yield from file_rows(Path(path))
