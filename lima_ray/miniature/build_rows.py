"""Build the miniature's rows: curate its dump by the recipes that ship.

    python -m lima_ray.miniature.build_rows --out lima_ray/miniature/rows

    train.jsonl       what the demo trains on: curated rows and those that people wrote
    curated.jsonl     questions of several sites by the paper's rule
    unfiltered.jsonl  the same sites, whatever answer is on top
    narrow.jsonl      rows by the paper's rule, of one site
    pool.jsonl        every row that the rule keeps, to draw larger or smaller sets from

and beside them the files of `dialogues`. It is always the same, for any number of workers.
"""

import shutil
import tempfile
from pathlib import Path

import tyro

from lima_ray import curate
from lima_ray.config.errors import exit_on_user_error
from lima_ray.curation.arguments import CurateCommand
from lima_ray.curation.recipe import load_curation
from lima_ray.data.examples import write_examples
from lima_ray.miniature import dialogues, dump

OUT = Path(__file__).parent / "rows"
RECIPES = {
    "train": "miniature",
    "curated": "miniature-filtered",
    "unfiltered": "miniature-unfiltered",
    "narrow": "miniature-one-source",
    "pool": "miniature-pool",
}
"""Curation recipe of each file."""


def build(out: Path = OUT) -> None:
    """Write every file.

    Args:
        out: directory to write.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in dialogues.files().items():
        write_examples(rows, out / f"{name}.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs"
        dump.build(inputs)
        for name, recipe in RECIPES.items():
            made = Path(folder) / name
            curation = load_curation(recipe, {"inputs": str(inputs), "out": str(made)})
            curate.main(CurateCommand(curation=curation, workers=0))
            shutil.copyfile(made / "train.jsonl", out / f"{name}.jsonl")


if __name__ == "__main__":
    with exit_on_user_error():
        tyro.cli(build, prog="python -m lima_ray.miniature.build_rows", description=__doc__)
