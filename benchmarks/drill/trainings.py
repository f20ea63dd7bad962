"""Small trainings for the drill: `lima_ray.train` in its own process, and what became of it."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.drill.outcome import expect, wait_until
from benchmarks.servers import ROOT
from lima_ray.records.run import Run

EPOCH_STEPS = 6
FLAGS = {
    "data.rows": 192,
    "optim.epochs": 6,
    "optim.batch_examples": 32,
    "select.judge": "none",
    "checkpoint.weights_from_epoch": 6,
    "checkpoint.state_every_steps": 4,
    "cluster.workers": 2,
    "cluster.cpus_per_worker": 1,
}
"""The miniature, shortened to 36 optimizer steps on two workers."""
LOCAL = {
    "RAY_ADDRESS": "local",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "CUDA_VISIBLE_DEVICES": "",
}
"""A Ray of its own, of this machine."""
FIRST_STEP_S = 240.0
"""How long a start may take, on a machine with other work."""
END_S = 600.0


@dataclass(frozen=True)
class Resumption:
    """How a run went on after a fault."""

    seconds: float
    """From the fault to the first step done after it."""
    step: int
    """Of the state that it went on from."""
    lost: int
    """Steps that had been done and were computed again."""


@dataclass
class Training:
    """One run, and the process that drives it."""

    folder: Path
    name: str
    environment: dict[str, str]
    flags: dict[str, Any] = field(default_factory=dict)
    log: Path = field(default=Path())
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        if self.log == Path():
            self.log = self.folder / f"{self.name}.log"

    @property
    def run(self) -> Run:
        return Run(self.folder / self.name)

    def command(self) -> list[str]:
        """Return the command, which is the same when it goes on."""
        made = FLAGS | {"name": self.name, "runs_dir": str(self.folder)} | self.flags
        flags = [part for name, value in made.items() for part in (f"--{name}", str(value))]
        return [sys.executable, "-m", "lima_ray.train", "miniature", *flags]

    def begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command(),
                cwd=ROOT,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, timeout_s: float = END_S) -> None:
        """Wait until the process has ended well."""
        status = self.wait(timeout_s)
        expect(
            status == 0, f"{self.name} ended with status {status}; {self.log} ends:\n{self.said}"
        )

    def wait(self, timeout_s: float = END_S) -> int:
        """Wait until the process has ended, and return its status."""
        assert self.process
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            expect(False, f"{self.name} had not ended after {timeout_s:.0f} s:\n{self.said}")
            raise

    def kill(self) -> None:
        """Kill the driver, as a machine does that ends it for its memory."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def said(self) -> str:
        """The end of what the command printed."""
        if not self.log.exists():
            return "(no output)"
        return self.log.read_text(errors="replace")[-1500:]

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [m for m in self.run.metrics() if m["kind"] == kind]

    def wait_for_step(self, step: int, timeout_s: float = FIRST_STEP_S) -> None:
        """Wait until so many steps are done; NotHeldError where the command ended before."""

        def holds() -> bool:
            ended = self.process is not None and self.process.poll() is not None
            expect(not ended, f"{self.name} ended before step {step}; {self.log}:\n{self.said}")
            return self.done() >= step

        wait_until(holds, timeout_s, f"step {step} of {self.name}:\n{self.said}")

    def done(self) -> int:
        """Return the number of steps done."""
        steps = self.records("step")
        return steps[-1]["step"] if steps else 0

    def last_start(self) -> dict[str, Any]:
        return self.records("start")[-1]

    def wait_until_it_goes_on(self, fault_s: float, timeout_s: float = END_S) -> "Resumption":
        """Wait until the first step is done of a start after a fault.

        Args:
            fault_s: when it came, by time.time().
        """
        reached = 0  # by the steps that a new start takes out of the metrics

        def first() -> Resumption | None:
            nonlocal reached
            starts = [m for m in self.records("start") if m["time"] > fault_s]
            if not starts:
                reached = max(reached, self.done())
                return None
            step, steps = starts[0]["step"], self.records("step")
            later = [m for m in steps if m["step"] > step]
            if not later:
                return None
            before = [m["step"] for m in steps if m["time"] < starts[0]["time"]]
            lost = max(reached, *before, step) - step
            return Resumption(later[0]["time"] - fault_s, step, lost)

        return wait_until(first, timeout_s, f"{self.name} goes on:\n{self.said}")

    def losses(self) -> list[float]:
        steps = self.records("step")
        numbers, epochs = [m["step"] for m in steps], (FLAGS | self.flags)["optim.epochs"]
        expect(numbers == list(range(1, EPOCH_STEPS * epochs + 1)), f"{self.name}: {numbers}")
        return [m["loss"] for m in steps]

    def weights(self) -> bytes:
        return (self.run.export_dir / "model.safetensors").read_bytes()


def reference(folder: Path, flags: dict[str, Any] | None = None) -> Training:
    """Return a run that nothing interrupts, trained once for the drill on a Ray of its own."""
    name = "-".join(
        ["uninterrupted", *(f"{k.split('.')[-1]}-{v}" for k, v in (flags or {}).items())]
    )
    whole = Training(folder / "uninterrupted", name, LOCAL, flags or {})
    if not whole.run.export_dir.exists():
        whole.begin()
        whole.finish()
    return whole


def expect_same(one: Training, whole: Training) -> str:
    """Refuse any difference of losses and exported weights; say what is the same."""
    pairs = list(zip(one.losses(), whole.losses(), strict=True))
    other = [n for n, (a, b) in enumerate(pairs, start=1) if a != b]
    expect(not other, f"losses differ from the uninterrupted run's at steps {other}")
    expect(one.weights() == whole.weights(), "the exported weights differ")
    return f"losses of {len(pairs)} steps and the export equal to the digit"
