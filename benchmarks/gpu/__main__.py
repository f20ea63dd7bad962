"""Run one batch of GPU measurements; each fits ten minutes on one H100 or H200.

    python -m benchmarks.gpu BATCH --out DIR

Nothing is downloaded: models are random and rows are drawn with the lengths of LIMA's. What the
machine lacks of Python packages is brought along by `benchmarks/gpu/bundle.py`. The figures go to
DIR/BATCH.json as they are measured; those that were obtained are kept in docs/benchmarks.
"""

import importlib
import os
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.gpu.record import Record


def main(
    batch: tyro.conf.Positional[Literal["correct", "training", "serving", "aligned"]],
    out: Path = Path("runs/gpu"),
    smoke: bool = False,
) -> None:
    """Measure.

    Args:
        batch: correct (steps, resume and replies against plain references; the miniature aligned),
            training (tokens a second and memory of 7B and 8B models by setting), serving (7B behind
            HTTP, 1 to 128 requests at once), or aligned (seconds from command to export).
        out: folder of the figures.
        smoke: tiny sizes on the CPU, to see that the batch runs.
    """
    if smoke:
        os.environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    out.mkdir(parents=True, exist_ok=True)
    record = Record(out.absolute() / f"{batch}.json", batch, smoke)
    importlib.import_module(f"benchmarks.gpu.{batch}").run(record)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.gpu", description=__doc__, use_underscores=True)
