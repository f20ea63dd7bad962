"""What a sweep shows while it runs: a line for each training that ends, a bar on a terminal."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from lima_ray.config.display import ProgressDisplay
from lima_ray.records.run import Run
from lima_ray.results.metric_unit import JUDGED
from lima_ray.results.units import format_duration
from tune.cost import Cost
from tune.pace import measure_pace
from tune.workers.worker_pool import WorkerPool

POLL_S = 1.0
LOG_EVERY_S = 60.0


@dataclass
class SweepProgress(AbstractContextManager["SweepProgress"]):
    """Shows the queue's status, from a thread of its own, until the context ends."""

    pool: WorkerPool
    names: dict[tuple[int, int], str]
    """Of trainings, by point and seed."""
    total: int
    """Trainings of this start."""
    runs: Sequence[Run]
    """Those that are planned already, whose first steps tell how long all take."""
    cost: Cost
    """Of all trainings."""
    at_once: int
    forecast_s: float | None = None
    """From the start to the end; none while nothing is measured."""
    judging_known: bool = False
    ended: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.started_s, self.clock_s = time.time(), time.monotonic()
        self.display = ProgressDisplay(
            self.total, "trainings", "starting the workers", count=True, log_every_s=LOG_EVERY_S
        )

    @property
    def unfinished(self) -> int:
        """Trainings of this start that have not ended."""
        return self.total - len(self.ended)

    def __enter__(self) -> "SweepProgress":
        self.display.__enter__()
        self.display.follow(lambda _: self.update(), POLL_S)
        return self

    def __exit__(self, *raised: object) -> None:
        self.display.__exit__(*raised)

    def update(self) -> None:
        """Ask for the status once, and show what is new."""
        try:
            self.pool.check()
            status = ray.get(self.pool.queue.status.remote(), timeout=30)
        except RayError:
            return  # Ray is going down; what has ended stands in the sweep's files
        for training in status:
            key = training["point"], training["seed"]
            if training["state"] in ("done", "failed", "stopped") and key not in self.ended:
                self.ended.add(key)
                self.display.print(self.ended_line(training))
        if not self.judging_known:
            self.forecast()
        line = self.status_line(status)
        self.display.update(len(self.ended), numbers=line)
        self.display.log(f"{len(self.ended)}/{self.total} trainings, {line}")

    def ended_line(self, training: dict[str, Any]) -> str:
        default = f"point {training['point'] + 1}"
        name = self.names.get((training["point"], training["seed"]), default)
        dev = ""
        if training["dev_value"] is not None:
            unit = JUDGED[training["metric"]]
            value = unit.with_sign(training["dev_value"])
            which = "epoch" if training["state"] == "done" else "last epoch"
            dev = f", dev {unit.noun} {value} of {which} {training['of_epoch']}"
        error = f": {training['error'].strip().splitlines()[-1]}" if training["error"] else ""
        spent = format_duration(time.monotonic() - self.clock_s)
        count = f"{len(self.ended)}/{self.total}"
        return f"{count} after {spent}  {name}: {training['state']}{dev}{error}"

    def status_line(self, status: list[dict[str, Any]]) -> str:
        """Describe the trainings under way, and when all may be done."""
        under_way = ", ".join(
            f"{one['id'][:4]} epoch {one['epoch']}" if one["state"] == "training" else "measuring"
            for one in status
            if one["state"] in ("training", "trained")
        )
        done, spent_s = len(self.ended), time.monotonic() - self.clock_s
        if done:
            return f"{under_way}, {format_duration(spent_s / done * (self.total - done))} left"
        if self.forecast_s is None:
            return under_way
        return f"{under_way}, about {format_duration(max(0, self.forecast_s - spent_s))} left"

    def forecast(self) -> None:
        """Print how long the sweep takes once its first steps, and once a judged epoch, tell."""
        fresh = [run for run in self.runs if begun_since(run, self.started_s)]
        pace = measure_pace(fresh)
        if pace is None or (self.forecast_s is not None and pace.per_reply_s is None):
            return
        judges = self.cost.dev_replies + self.cost.replies > 0
        self.judging_known = pace.per_reply_s is not None or not judges
        starting_s = max(0.0, pace.first_step_s - self.started_s)
        self.forecast_s = starting_s + pace.seconds(self.cost, self.at_once)
        what = ", with judging" if self.judging_known else ", of training, judging not known yet"
        line = f"by the first steps it takes about {format_duration(self.forecast_s)}"
        self.display.print(f"{line}{what if judges else ''}")


def begun_since(run: Run, time_s: float) -> bool:
    """Return whether a training began after a time, so that all its steps are of this start."""
    return next((step["time"] >= time_s for step in run.steps()), False)
