"""Raw rows from where people keep them: files, folders of splits or shards, datasets of the hub."""

import re
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.config.paths import resolve
from lima_ray.data.file_formats import (
    OPENERS,
    READERS,
    PlacedRows,
    file_stem,
    file_suffixes,
    number_rows,
    read_file_rows,
)

SHARD = re.compile(r"(?P<name>.*?)[-_.]?((?P<number>\d+)-of-(?P<of>\d+)(-[0-9a-f]{8,})?|\d{3,})")
"""A file's stem such as `train-00000-of-00003` or `part-00000`; `rows2` is none."""


def read_rows(reference: str, split: str) -> PlacedRows:
    """Yield `(place, row)` for every raw row that a reference names; refuse what cannot be read."""
    path = resolve(reference)
    if path is None and re.fullmatch(r"[\w.-]+/[\w.-]+", reference) and not is_file_name(reference):
        yield from read_hub_rows(reference, split)
    elif path is None:
        raise UserError(
            f"no data at {reference}: it is no file, no directory, and not the form owner/name "
            "of a dataset on the hub"
        )
    elif path.is_dir() and is_saved_to_disk(path):
        yield from read_saved_rows(path, split)
    else:
        for file in find_split_files(path, split) if path.is_dir() else [path]:
            yield from read_file_rows(file)


def find_split_files(folder: Path, split: str) -> list[Path]:
    """Return the files of a directory that hold a split, in order; refuse several or a part.

    They are one file named so, or its shards, here or in `data`, or all in a folder named so.
    """
    files = list_data_files(folder) + list_data_files(folder / "data")
    named = [p for p in files if file_stem(p) == split]
    shards = list_data_files(folder / split) + list_data_files(folder / "data" / split)
    shards += [p for p in files if file_stem(p) != split and shard_name(p) == split]
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


def list_data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and file_suffixes(p)[0] in READERS)


def shard_name(path: Path) -> str | None:
    """Return what a shard is part of, `train` for `train-00000-of-00003.parquet`; else none."""
    found = SHARD.fullmatch(file_stem(path))
    return found["name"] if found else None


def check_shards(folder: Path, files: list[Path]) -> None:
    shards = [found for p in files if (found := SHARD.fullmatch(file_stem(p))) and found["of"]]
    for of in {int(found["of"]) for found in shards}:
        there = {int(found["number"]) for found in shards if int(found["of"]) == of}
        if missing := sorted(set(range(of)) - there):
            raise UserError(
                f"{folder} has {len(there)} of {of} shards; it lacks number {missing[0]:05d}"
            )


def is_file_name(reference: str) -> bool:
    """Return whether a missing path was surely meant as a file."""
    return Path(reference).suffix.lower() in {*READERS, *OPENERS, ".txt", ".zip"}


def is_saved_to_disk(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_saved_rows(folder: Path, split: str) -> PlacedRows:
    from datasets import DatasetDict, load_from_disk

    try:
        table = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} cannot be read as a saved dataset: {error}") from error
    if isinstance(table, DatasetDict):
        if split not in table:
            raise UserError(f"{folder} has no split {split!r}; it has {', '.join(map(str, table))}")
        table = table[split]
    yield from number_rows(table, f"{folder}/{split}")


def read_hub_rows(dataset: str, split: str) -> PlacedRows:
    """Yield rows of a hub's dataset: its `<split>.jsonl` if there is one, else by `datasets`."""
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
        # As GAIR/lima has it, whose loading script `datasets` 4 and later refuse.
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
        yield from number_rows(table, f"{dataset}/{split}")
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
    yield from read_file_rows(Path(path))
