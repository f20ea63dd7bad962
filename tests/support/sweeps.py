"""Small real sweeps for tests: the miniature's base, a few rows and prompts, two short epochs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "lima_ray" / "miniature" / "rows"
PROMPTS = 4


def quick_sweep(folder: Path, name: str = "quick", **tree: Any) -> Path:
    """Write a sweep file whose trainings take seconds; `set` and `axes` may be given."""
    for split in ("dev", "test"):
        lines = (ROWS / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"{split}.jsonl").write_text("".join(lines[:PROMPTS]))
    fields = {
        "runs_dir": str(folder / "runs"),
        "data.train": str(ROWS / "curated.jsonl"),
        "data.rows": 64,
        "data.dev": str(folder / "dev.jsonl"),
        "data.test": str(folder / "test.jsonl"),
        "data.heldout": None,
        "optim.epochs": 2,
        "optim.batch_examples": 32,
        "select.first_epoch": 1,
        "cluster.workers": 1,
        "sampling.context": 60,
    }
    axes = {"model.residual_dropout": {"grid": [0.0, 0.1]}}
    whole = {"axes": axes, "seeds": [0, 1]} | tree | {"set": fields | tree.get("set", {})}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


def command(path: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "tune.sweep", str(path), *flags]


def environment() -> dict[str, str]:
    """Return the environment of a sweep in a process of its own, with a Ray of its own."""
    ours = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": ""}
    return os.environ | ours | {"RAY_ADDRESS": "local"}


def run(path: Path, *flags: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(path, *flags),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def trainings(folder: Path, name: str = "quick") -> list[dict[str, Any]]:
    """Read the lines of a sweep's trainings that ended."""
    file = folder / "runs" / "sweeps" / name / "trainings.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def starts(folder: Path) -> dict[str, int]:
    """Count the starts of each training of all sweeps, by the name of its run."""
    count = {}
    for run in (folder / "runs" / "trials").iterdir():
        metrics = run / "metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        if run.is_dir():
            count[run.name] = sum(json.loads(line)["kind"] == "start" for line in lines)
    return count
