"""What a sweep shows while it runs: a line for each training that ends, a bar on a terminal."""

import sys
import threading
import time
from contextlib import AbstractContextManager
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from tune.pool import Pool
from tune.units import duration

POLL_S = 1.0
LOG_EVERY_S = 60.0


class Watch(AbstractContextManager["Watch"]):
    """Follows the dispatcher in a thread of its own until the context ends."""

    def __init__(self, pool: Pool, names: dict[tuple[int, int], str], total: int) -> None:
        """Watch a sweep.

        Args:
            pool: its actors.
            names: how lines call a training, by point and seed.
            total: trainings of this start.
        """
        self.pool, self.names, self.total = pool, names, total
        self.console = Console(highlight=False)
        self.bar = Bar(
            TextColumn("trainings"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not sys.stdout.isatty(),
        )
        self.task = self.bar.add_task("starting the workers", total=total)
        self.told: set[tuple[int, int]] = set()
        self.unfinished = total
        self.began_s = self.logged_s = time.monotonic()
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def __enter__(self) -> "Watch":
        self.bar.start()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join()
        self.update()
        self.bar.stop()

    def follow(self) -> None:
        """Look again and again."""
        while not self.stopping.wait(POLL_S):
            self.update()

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
                self.say(self.ending(one))
        self.unfinished = self.total - len(self.told)
        line = self.line(status)
        self.bar.update(self.task, completed=len(self.told), description=line)
        now_s = time.monotonic()
        if not self.console.is_terminal and now_s - self.logged_s > LOG_EVERY_S:
            self.logged_s = now_s
            self.say(f"{len(self.told)}/{self.total} trainings, {line}")

    def ending(self, one: dict[str, Any]) -> str:
        """A line about a training that ended."""
        name = self.names.get((one["point"], one["seed"]), f"point {one['point'] + 1}")
        grade = "" if one["grade"] is None else f", dev grade {one['grade']:.2f}"
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
        done = len(self.told)
        if not done:
            return at
        left_s = (time.monotonic() - self.began_s) / done * (self.total - done)
        return f"{at}, {duration(left_s)} left"

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, soft_wrap=True)
