"""How long `python -m lima_ray.train` takes from the command to its first optimizer step.

    python -m benchmarks.startup [--rounds 3] [--workers 2] [--against CHECKOUT]

Trains a small random base (4 layers, 256 wide) on drawn rows, each round a whole process on a Ray
of its own, and tells the phases that a run writes into its metrics, the first step, and the CPU
time that every process of the run has taken until then. With `--against`, another checkout's
command runs in turn. Then what the imports of driver and worker take, package by package.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

import tyro
import yaml

from benchmarks.page.result import OURS, Figure, Recording
from benchmarks.startup.start import Start, start
from benchmarks.train import drawn_examples
from lima_ray import base
from lima_ray.data.examples import write_examples

ROOT = Path(__file__).parents[2]
IMPORTED = {"driver": "lima_ray.train", "worker": "lima_ray.training.loop"}
MOST_PACKAGES = 12


def main(
    against: str = "",
    out: Path = Path("runs/benchmark_startup"),
    rounds: int = 3,
    workers: int = 2,
    rows: int = 8,
    json: Path | None = None,
) -> None:
    """Run, print.

    Args:
        against: folder of another checkout, whose command runs in turn with this one's.
        out: where base, rows and runs go.
        rounds: starts of each checkout.
        workers: of the training, one thread each.
        rows: rows to train on.
        json: file for this checkout's figures, such as docs/benchmarks/startup.json.
    """
    recording = Recording("startup")
    out = out.absolute()
    recipe = prepare(out, rows, workers)
    checkouts = [ROOT] + ([Path(against).absolute()] if against else [])
    starts: dict[Path, list[Start]] = {checkout: [] for checkout in checkouts}
    for number in range(rounds):
        for checkout in checkouts:
            starts[checkout].append(start(checkout, recipe))
            last = starts[checkout][-1]
            print(
                f"round {number + 1}: {checkout}: {sum(last.phases.values()):.1f} s, of the "
                f"processors {sum(last.cpu.values()):.1f} s",
                flush=True,
            )
    names = ["this checkout", *(str(c) for c in checkouts[1:])]
    print(table("s of the clock", names, [[s.phases for s in starts[c]] for c in checkouts]))
    print(table("s of the processors", names, [[s.cpu for s in starts[c]] for c in checkouts]))
    for process, modules in IMPORTED.items():
        taken = [packages(checkout, modules) for checkout in checkouts]
        print(table(f"s of the {process}'s imports", names, [[found] for found in taken]))
    record(recording, starts[ROOT])
    recording.save(json)


def record(recording: Recording, starts: list[Start]) -> None:
    """Add the seconds of each phase, of the clock, and those of the processors by process."""
    for what, axis, rounds in (
        ("time", "phase, one after the other", [one.phases for one in starts]),
        ("processors' time until the first step", "process", [one.cpu for one in starts]),
    ):
        for key in dict.fromkeys(key for found in rounds for key in found):
            samples = tuple(found.get(key, 0.0) for found in rounds)
            recording.figures.append(Figure(what, key, OURS, "s", samples, axis=axis))
        sums = tuple(sum(found.values()) for found in rounds)
        recording.figures.append(Figure(what, "all", OURS, "s", sums, axis=axis))


def prepare(out: Path, rows: int, workers: int) -> Path:
    """Write the base, the rows and the recipe's file, and return the last."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    examples = [e for e in drawn_examples() if len(e.turns) == 2]
    write_examples(examples[:: len(examples) // rows][:rows], out / "train.jsonl")
    base.build(str(out / "train.jsonl"), out / "base", hidden=256, layers=4)
    recipe = {
        "name": "start",
        "runs_dir": str(out / "runs"),
        "data": {"train": str(out / "train.jsonl")},
        "model": {"base": str(out / "base")},
        "optim": {"epochs": 1, "batch_examples": 4},
        "train": {"zero_stage": 0, "tokens_per_micro_batch": 2048, "precision": "fp32"},
        "select": {"judge": "none"},
        "cluster": {"workers": workers, "cpus_per_worker": 1, "device": "cpu"},
    }
    file = out / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return file


def packages(checkout: Path, modules: str) -> dict[str, float]:
    """Return the seconds that importing some modules takes in each package, itself alone."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {modules}"],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    taken: defaultdict[str, float] = defaultdict(float)
    for micros, module in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", told):
        taken[module.partition(".")[0]] += int(micros) / 1e6
    named = dict(sorted(taken.items(), key=lambda one: -one[1])[:MOST_PACKAGES])
    return named | {"all others": sum(taken.values()) - sum(named.values())}


def table(title: str, names: list[str], columns: list[list[dict[str, float]]]) -> str:
    """Return a Markdown table of medians over rounds, and of their sums."""
    keys = dict.fromkeys(key for rounds in columns for found in rounds for key in found)
    lines = ["", f"| {title} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for key in keys:
        cells = [median(found.get(key, 0.0) for found in rounds) for rounds in columns]
        lines.append(f"| {key} | {' | '.join(f'{c:.2f}' for c in cells)} |")
    sums = [median(sum(found.values()) for found in rounds) for rounds in columns]
    return "\n".join([*lines, f"| all | {' | '.join(f'{s:.1f}' for s in sums)} |"])


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.startup", description=__doc__, use_underscores=True)
