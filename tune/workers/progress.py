"""What a sweep shows while it runs: a line for each training that ends, a bar on a terminal."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import ray
from ray.exceptions import RayError

from lima_ray.config.display import ProgressDisplay
from lima_ray.records.run import Run
from lima_ray.results.units import duration
from tune import pace
from tune.cost import Cost
from tune.workers.worker_pool import Pool

POLL_S = 1.0
LOG_EVERY_S = 60.0


class Watch(AbstractContextManager["Watch"]):
    """Follows the dispatcher in a thread of its own until the context ends."""

    def __init__(
        self,
        pool: Pool,
        names: dict[tuple[int, int], str],
        total: int,
        runs: Sequence[Run],
        needs: Cost,
        at_once: int,
    ) -> None:
        """Watch a sweep.

        Args:
            pool: its actors.
            names: how lines call a training, by point and seed.
            total: trainings of this start.
            runs: those that are made already, whose first steps tell how long all take.
            needs: what they take in all.
            at_once: trainings at a time.
        """
        self.pool, self.names, self.total = pool, names, total
        self.runs, self.needs, self.at_once = runs, needs, at_once
        self.began = time.time()
        self.in_all_s: float | None = None
        """Forecast from the start to the end; none while nothing is measured."""
        self.judging_known = False
        self.display = ProgressDisplay(
            total, "trainings", "starting the workers", count=True, log_every_s=LOG_EVERY_S
        )
        self.told: set[tuple[int, int]] = set()
        self.unfinished = total
        self.began_s = time.monotonic()

    def __enter__(self) -> "Watch":
        self.display.__enter__()
        self.display.follow(lambda _: self.update(), POLL_S)
        return self

    def __exit__(self, *raised: object) -> None:
        self.display.__exit__(*raised)

    def update(self) -> None:
        """Look once, and say what is new."""
        try:
            self.pool.watch()
            status = ray.get(self.pool.dispatcher.status.remote(), timeout=30)
        except RayError:
            return  # Ray is going down; what has ended stands in the sweep's files
        for one in status:
            key = one["point"], one["seed"]
            if one["state"] in ("done", "failed", "stopped") and key not in self.told:
                self.told.add(key)
                self.display.say(self.ending(one))
        self.unfinished = self.total - len(self.told)
        if not self.judging_known:
            self.forecast()
        line = self.line(status)
        self.display.update(len(self.told), numbers=line)
        self.display.log(f"{len(self.told)}/{self.total} trainings, {line}")

    def ending(self, one: dict[str, Any]) -> str:
        """A line about a training that ended."""
        name = self.names.get((one["point"], one["seed"]), f"point {one['point'] + 1}")
        grade = ""
        if one["grade"] is not None:
            which = "epoch" if one["state"] == "done" else "last epoch"
            grade = f", dev grade {one['grade']:.2f} of {which} {one['of_epoch']}"
        error = f": {one['error'].strip().splitlines()[-1]}" if one["error"] else ""
        spent = duration(time.monotonic() - self.began_s)
        return f"{len(self.told)}/{self.total} after {spent}  {name}: {one['state']}{grade}{error}"

    def line(self, status: list[dict[str, Any]]) -> str:
        """What is going on, and when it may end."""
        running = [one for one in status if one["state"] in ("training", "trained")]
        at = ", ".join(
            f"{one['id'][:4]} epoch {one['epoch']}" if one["state"] == "training" else "measuring"
            for one in running
        )
        done, spent_s = len(self.told), time.monotonic() - self.began_s
        if done:
            return f"{at}, {duration(spent_s / done * (self.total - done))} left"
        if self.in_all_s is None:
            return at
        return f"{at}, about {duration(max(0, self.in_all_s - spent_s))} left"

    def forecast(self) -> None:
        """Say how long the sweep takes once its first steps tell, and once an epoch is judged."""
        fresh = [run for run in self.runs if begun_since(run, self.began)]
        found = pace.of(fresh)
        if found is None or (self.in_all_s is not None and found.per_reply_s is None):
            return
        judges = self.needs.dev_replies + self.needs.replies > 0
        self.judging_known = found.per_reply_s is not None or not judges
        starting_s = max(0.0, found.first_step_s - self.began)
        self.in_all_s = starting_s + found.seconds(self.needs, self.at_once)
        what = ", with judging" if self.judging_known else ", of training, judging not known yet"
        said = f"by the first steps it takes about {duration(self.in_all_s)}"
        self.display.say(f"{said}{what if judges else ''}")


def begun_since(run: Run, time_s: float) -> bool:
    """Whether a training has first begun since a time, so that all its steps are of this start."""
    return next((step["time"] >= time_s for step in run.steps()), False)
