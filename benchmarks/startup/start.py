"""One start of a training: its phases, and what each of its processes takes of the processors."""

import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import psutil

from lima_ray.records.run import Run

POLL_S = 0.1


@dataclass(frozen=True)
class Start:
    """One start, in seconds."""

    phases: dict[str, float]
    """Of the clock, one after the other; they add up to the time of the first step's end."""
    cpu: dict[str, float]
    """Of the processors, by the name of the processes that took it."""


def start(checkout: Path, recipe: Path) -> Start:
    """Train once, from no run to a finished one."""
    run = Run(recipe.parent / "runs" / "start")
    shutil.rmtree(run.path, ignore_errors=True)
    command = subprocess.Popen(
        [sys.executable, "-m", "lima_ray.train", str(recipe)],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.DEVNULL,
    )
    process, began = psutil.Process(command.pid), time.time()
    while not run.steps() and command.poll() is None:
        time.sleep(POLL_S)
    cpu = processor_seconds(process)
    if command.wait():
        raise SystemExit(f"the training in {checkout} ended with status {command.returncode}")
    begun = next(m for m in run.metrics() if m["kind"] == "start")
    phases = {
        name.removesuffix("_s").replace("_", " "): seconds
        for name, seconds in begun.items()
        if name.endswith("_s")
    }
    first = run.steps()[0]
    return Start(phases | {"first step": first["time"] - began - sum(phases.values())}, cpu)


def processor_seconds(command: psutil.Process) -> dict[str, float]:
    """Return what the processes below a command have taken so far, user and system, by name."""
    taken: defaultdict[str, float] = defaultdict(float)
    for process in [command, *command.children(recursive=True)]:
        try:
            times, line = process.cpu_times(), process.cmdline()
        except psutil.Error:
            continue  # it ended meanwhile
        name = "driver" if process == command else describe(line)
        taken[name] += times.user + times.system + times.children_user + times.children_system
    return dict(sorted(taken.items(), key=lambda one: -one[1]))


def describe(line: list[str]) -> str:
    """Return what Ray calls a process, or its program's name."""
    if line and line[0].startswith("ray::"):
        return line[0].removeprefix("ray::").partition(".")[0]
    words = [Path(word).name for word in line if not word.startswith("-")]
    return words[1] if len(words) > 1 and words[0].startswith("python") else "".join(words[:1])
