"""Time to an aligned model: seconds from the command to an export that can be served, by phase.

`python -m lima_ray.train` whole, by Ray Train and DeepSpeed, on 1,000 rows with lengths as LIMA's:
a random 1.1B Llama with all weights for 15 epochs, and a random 6.7B by LoRA for as many epochs as
ten minutes hold (a step's seconds are told, so that 15 follow from it). A 7B's whole resume state
takes 94 GB on disk, which such a machine may lack.
"""

import json
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.gpu.record import Record
from benchmarks.sizes import SIZES
from benchmarks.train import drawn_examples
from lima_ray import base
from lima_ray.data.examples import write_examples
from lima_ray.records.run import Run


@dataclass(frozen=True)
class AlignedTraining:
    """One training."""

    size: str
    lora_rank: int
    epochs: int
    limit_s: int


CASES = (AlignedTraining("1b", 0, 15, 300), AlignedTraining("7b", 16, 4, 240))


def run(record: Record) -> None:
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        write_examples(drawn_examples()[:: 16 if record.smoke else 1], rows)
        for case in CASES:
            with record.attempt("aligned", **asdict(case)):
                align(record, case, rows, Path(folder))


def align(record: Record, case: AlignedTraining, rows: Path, folder: Path) -> None:
    """Train a random base to its export, and tell where the time went."""
    shape: dict[str, Any] = {"hidden": 64, "layers": 2} if record.smoke else SIZES[case.size]
    base.build(str(rows), folder / case.size, vocab=1024 if record.smoke else 32000, **shape)
    settings: dict[str, Any] = {
        "name": case.size,
        "runs_dir": folder / "runs",
        "data.train": rows,
        "data.invalid": "drop",
        "model.base": folder / case.size,
        "model.lora_rank": case.lora_rank,
        "optim.epochs": 2 if record.smoke else case.epochs,
        "optim.batch_examples": 32,
        "train.tokens_per_micro_batch": 8192,
        "checkpoint.weights_from_epoch": case.epochs,
        "checkpoint.keep_states": 1,
        "cluster.workers": 1,
        "cluster.device": "cpu" if record.smoke else "gpu",
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(nested(settings)))  # JSON is YAML
    log = folder / "log"
    started = time.time()
    with log.open("w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "lima_ray.train", str(recipe)],
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=case.limit_s,
            check=False,
        )
    total_s = time.time() - started
    print(log.read_text()[-3000:], flush=True)
    if done.returncode:
        raise RuntimeError(log.read_text()[-300:])
    run = Run(folder / "runs" / case.size)
    record.add("aligned", **asdict(case), total_s=total_s, **phases(run, started, total_s))


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = defaultdict(dict)
    for name, value in settings.items():
        value = str(value) if isinstance(value, Path) else value
        section, _, field = name.rpartition(".")
        if section:
            tree[section][field] = value
        else:
            tree[field] = value
    return dict(tree)


def phases(run: Run, started: float, total_s: float) -> dict[str, Any]:
    """Seconds before the first step, of steps, of saves by kind, and of what came after."""
    metrics = run.metrics()
    start = next(m for m in metrics if m["kind"] == "start")
    steps = [m for m in metrics if m["kind"] == "step"]
    saves: dict[str, float] = defaultdict(float)
    for m in metrics:
        if m["kind"] == "save":
            saves[f"saving_{m['what']}_s"] += m["seconds"]
    ended = max(m["time"] for m in metrics if "time" in m)
    return {
        "start": {k: v for k, v in start.items() if k not in ("pids", "kind", "step")},
        "before_first_step_s": start["time"] - started,
        "steps": len(steps),
        "steps_s": sum(m["seconds"] for m in steps),
        "step_s": float(np.median([m["seconds"] for m in steps])),
        "tokens_per_s": sum(m["tokens"] for m in steps) / sum(m["seconds"] for m in steps),
        **saves,
        "after_last_record_s": total_s - (ended - started),
        "peak_memory_gib": steps[-1]["peak_memory_gib"],
        "export": run.export_dir.is_dir(),
    }
