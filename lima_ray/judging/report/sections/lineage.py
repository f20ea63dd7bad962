"""What stands behind the replies: hashes of weights, rows, base and recipe, and of the files."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lima_ray.generation.reply_directory import read_settings
from lima_ray.judging.report.sections.section import Section
from lima_ray.judging.report.tables import Cell
from lima_ray.records.lineage import hash_base
from lima_ray.records.run import Run
from lima_ray.results.page.blocks import Block, Code, Details, Heading, Line, Table, text

HASH = 12
"""Hex digits of a file's hash that are shown."""
MOST_PARENTS = 4
"""Folders above a directory of replies that are looked through for its run."""


@dataclass(frozen=True)
class Origin:
    """Where replies of a system come from, as far as their directory tells."""

    system: str
    file: str
    """The folder's or the table's name."""
    replies: str
    """Hash of the file of replies."""
    weights: str = ""
    prompts: str = ""
    sampling: str = ""
    run: str = ""
    epoch: str = ""
    rows: str = ""
    """Hash of the training rows."""
    base: str = ""
    recipe: str = ""

    def cells(self) -> dict[str, Cell]:
        return dict(vars(self))


def find_origin(system: str, path: Path, runs: Sequence[Path]) -> Origin:
    """Return where a directory or table of replies comes from.

    Args:
        path: of the directory or the table.
        runs: that may have made it, beside those above the directory.
    """
    folder = path if path.is_dir() else path.parent
    file = path / "replies.jsonl" if path.is_dir() else path
    settings = read_settings(folder) or {}
    weights = str(settings.get("model_hash") or "")
    sampling = settings.get("sampling") or {}
    made = _find_weights(weights, [*_runs_above(folder), *map(Run, runs)]) if weights else {}
    return Origin(
        system=system,
        file=path.name,
        replies=hash_file(file),
        weights=weights,
        prompts=str(settings.get("prompts_hash") or ""),
        sampling=", ".join(f"{name} {value}" for name, value in sampling.items()),
        **made,
    )


def lineage_section(files: Sequence[Path], origins: Sequence[Origin], version: str) -> Section:
    """Return tables of the verdicts' files and of what made each system's replies."""
    lines: list[list[Line]] = [
        [f"{file.parent.name}/{file.name}", Code(hash_file(file))] for file in files
    ]
    blocks: list[Block] = [
        Heading("Where it comes from"),
        text(f"Made by lima_ray {version}; the same files give the same page."),
        Table(["verdicts", "hash"], lines, text_columns=2),
    ]
    if origins:
        shown = ("system", "file", "replies", "weights", "run", "epoch", "rows", "base", "recipe")
        made: list[list[Line]] = [
            [_hashed(name, str(one.cells()[name] or "")) for name in shown] for one in origins
        ]
        headings = ["system", "replies", "their hash", *shown[3:]]
        sampled: list[list[Line]] = [
            [one.system, one.file, Code(one.prompts) if one.prompts else "-", one.sampling or "-"]
            for one in origins
        ]
        columns = ["system", "replies", "prompts", "sampling"]
        blocks += [
            Table(headings, made, text_columns=len(headings)),
            Details("Prompts and sampling", [Table(columns, sampled, text_columns=4)]),
        ]
    return Section(blocks, {"lineage": [one.cells() for one in origins]} if origins else {})


def hash_file(file: Path) -> str:
    """Return the first hex digits of the SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:HASH]


def _runs_above(folder: Path) -> list[Run]:
    above = list(folder.absolute().parents)[:MOST_PARENTS]
    return [Run(path) for path in above if (path / "recipe.yaml").is_file()]


def _find_weights(weights: str, runs: Sequence[Run]) -> dict[str, str]:
    """Return which run and epoch weights are of, and what that was made from.

    Replies name weights by the hash of their files, a run by that of the values it trained.
    """
    for run in runs:
        card = run.data_card()
        if weights == _part(card, "base"):
            return {"run": "", "epoch": "the base", "base": weights}
        epochs = [run.epoch_dir(epoch) for epoch in run.kept_epochs()]
        for folder in [run.export_dir, *epochs]:
            made = run.lineage(folder)
            if made and weights in (made.get("weights"), _hash_weights(folder)):
                names = {"rows": "data", "base": "base", "recipe": "recipe"}
                parts = {name: str(made.get(key) or "") for name, key in names.items()}
                return {"run": run.path.name, "epoch": str(made.get("epoch", "")), **parts}
    return {}


def _hash_weights(folder: Path) -> str:
    return hash_base(str(folder)) if any(folder.glob("*.safetensors")) else ""


def _part(card: Mapping[str, Any], name: str) -> str:
    return str((card.get(name) or {}).get("hash", ""))


def _hashed(name: str, value: str) -> Line:
    is_hash = name in ("replies", "weights", "rows", "base", "recipe")
    return "-" if not value else Code(value) if is_hash else value
