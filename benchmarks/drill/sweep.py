"""A fault of a sweep: one of its training workers is killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.drill.nodes import local_cluster
from benchmarks.drill.outcome import Fault, Outcome, expect, wait_until
from benchmarks.drill.trainings import LOCAL
from benchmarks.servers import ROOT
from lima_ray.config.paths import PACKAGE
from lima_ray.records.run import Run

ROWS = PACKAGE / "miniature" / "rows"
PROMPTS = 4
STEPS = 24
FAULT_AFTER = 6
"""Steps of a training when its worker is killed; the last state is of step 4."""
FIRST_S = 300.0
END_S = 600.0


@dataclass
class SmallSweep:
    """Two trainings of the miniature that differ in their dropout."""

    folder: Path
    environment: dict[str, str]

    def write(self) -> Path:
        """Write the sweep's file, and the few prompts that choose and measure."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for split in ("dev", "test"):
            lines = (ROWS / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
            (self.folder / f"{split}.jsonl").write_text("".join(lines[:PROMPTS]))
        fields: dict[str, Any] = {
            "runs_dir": str(self.folder / "runs"),
            "data.train": str(ROWS / "curated.jsonl"),
            "data.rows": 64,
            "data.dev": str(self.folder / "dev.jsonl"),
            "data.test": str(self.folder / "test.jsonl"),
            "data.heldout": None,
            "optim.epochs": 3,
            "optim.batch_examples": 8,
            "checkpoint.state_every_steps": 4,
            "select.first_epoch": 1,
            "cluster.workers": 1,
            "sampling.context": 60,
        }
        axes = {"model.residual_dropout": {"grid": [0.0, 0.1]}}
        path = self.folder / "drill.yaml"
        path.write_text(yaml.safe_dump({"axes": axes, "seeds": [0], "keep": "all", "set": fields}))
        return path

    @property
    def log(self) -> Path:
        return self.folder / "sweep.log"

    def begin(self) -> None:
        command = [sys.executable, "-m", "tune.sweep", str(self.write())]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self) -> None:
        try:
            status = self.process.wait(END_S)
        finally:
            self.kill()
        said = self.log.read_text(errors="replace")[-1500:]
        expect(status == 0, f"the sweep ended with status {status}; {self.log} ends:\n{said}")

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def runs(self) -> dict[str, Run]:
        """Return the trainings by their ids, which follow from what they are."""
        folders = (self.folder / "runs" / "trials").glob("*/metrics.jsonl")
        return {file.parent.name: Run(file.parent) for file in folders}


def reference(folder: Path) -> SmallSweep:
    """Return a sweep that nothing interrupts, run once for the drill on a Ray of its own."""
    whole = SmallSweep(folder / "uninterrupted-sweep", LOCAL)
    if not (whole.folder / "done").exists():
        whole.begin()
        whole.finish()
        (whole.folder / "done").touch()
    return whole


def expect_same(one: SmallSweep, whole: SmallSweep) -> str:
    found, wanted = by_dropout(one), by_dropout(whole)
    expect(len(wanted) == 2 and all(len(losses) == STEPS for losses in wanted.values()), "steps")
    expect(found == wanted, "the trainings' losses differ from the uninterrupted sweep's")
    return f"losses of {len(found)} trainings of {STEPS} steps equal to the digit"


def by_dropout(sweep: SmallSweep) -> dict[float, list[float]]:
    """Return losses by the dropout; ids differ, as each sweep has prompt files of its own."""
    return {
        run.recipe().model.residual_dropout: [step["loss"] for step in run.steps()]
        for run in sweep.runs().values()
    }


def kill_trial(folder: Path) -> Outcome:
    whole = reference(folder.parents[1])
    with local_cluster(head_cpus=2) as cluster:
        sweep = SmallSweep(folder, cluster.environment)
        sweep.begin()
        try:
            run = wait_until(lambda: first_under_way(sweep), FIRST_S, f"a training in {folder}")
            starts = [m for m in run.metrics() if m["kind"] == "start"]
            done, fault_s = run.steps()[-1]["step"], time.time()
            os.kill(starts[-1]["pids"][0], signal.SIGKILL)
            start, first = wait_until(lambda: restart(run, fault_s), FIRST_S, "it goes on")
            sweep.finish()
        finally:
            sweep.kill()
        lost = max(0, done - start["step"])
        held = expect_same(sweep, whole)
    return Outcome(f"{lost} steps, computed again", first["time"] - fault_s, held)


def first_under_way(sweep: SmallSweep) -> Run | None:
    """Return a training that has come to the step of the fault."""
    for run in sweep.runs().values():
        steps = run.steps()
        if steps and FAULT_AFTER <= steps[-1]["step"] < STEPS - 4:
            return run
    return None


def restart(run: Run, fault_s: float) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the first start after a fault and the first step after that, once they are there."""
    later = [m for m in run.metrics() if m.get("time", 0) > fault_s]
    starts = [m for m in later if m["kind"] == "start"]
    steps = [m for m in later if m["kind"] == "step" and starts and m["time"] > starts[0]["time"]]
    return (starts[0], steps[0]) if steps else None


FAULTS = [Fault("sweep", "SIGKILL of a sweep's training worker", kill_trial)]
