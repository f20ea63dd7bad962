"""Convert dialogues from the forms in use to LIMA's JSONL, and check them.

    python -m lima_ray.example rows.json [more.parquet ...] --out data/train.jsonl

Reads LIMA's form, OpenAI `messages`, ShareGPT, Alpaca (with `history`), prompt and completion, from
files (JSON, CSV, Parquet ...), directories or datasets of the hub, checks every row, and writes
`{"conversations": [...], "source", "id"}`; `weights` beside these is 0 for a turn without loss.
"""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from lima_ray.config import flags
from lima_ray.data.examples import read_examples, write_examples


def convert(
    inputs: tyro.conf.Positional[list[str]],
    out: Path,
    split: str = "train",
    prompts: bool = False,
    invalid: Literal["stop", "drop"] = "stop",
) -> None:
    """Read rows in any known form and write them as LIMA JSONL.

    Args:
        inputs: files, directories or datasets of the hub.
        out: file to write.
        split: which split of a directory or dataset.
        prompts: rows may end with the user (prompts without a reply).
        invalid: stop at rows that are not usable, or drop them.
    """
    rows_of_input = partial(
        read_examples,
        split=split,
        dialogues=not prompts,
        invalid=invalid,
        drop_flag="--invalid drop",
    )
    examples = [e for reference in inputs for e in rows_of_input(reference)]
    write_examples(examples, out)
    turns = Counter(len(e.turns) for e in examples)
    counts = ", ".join(f"{count} of {n} turns" for n, count in sorted(turns.items()))
    print(f"{out}: {len(examples)} rows ({counts})")


def main(argv: list[str] | None = None) -> None:
    flags.parse(convert, "python -m lima_ray.example", __doc__, argv)


if __name__ == "__main__":
    from lima_ray.config.command_line import run_command

    run_command("example")
