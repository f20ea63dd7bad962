"""The dispatcher of a sweep: hands trainings to warm lanes, epochs to assessors, and news to Tune.

One Ray actor. Lanes (tune/lane.py) ask it for the next training, assessors for the next epoch to
judge or training to conclude, Tune's trials for news of their point. It writes every training that
ends into the sweep's `trainings.jsonl`.
"""

import asyncio
import json
import os
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray

from lima_ray import select
from lima_ray.config import validate
from tune.results import whole_lines
from tune.trial import Job

WAIT_S = 5.0
"""How long a question waits for something to answer; whoever asked then asks again."""
State = Literal["waiting", "training", "trained", "done", "failed", "stopped"]


def ask(question: Any) -> Any:
    """What the dispatcher answers; `ray.get` types an untyped actor's answers as lists."""
    return ray.get(question)


@dataclass
class Entry:
    """A training on its way."""

    job: Job
    askers: set[tuple[int, int]] = field(default_factory=set)
    """Points and seeds that it serves."""
    state: State = "waiting"
    begun_s: float = 0
    attempts: int = 0
    error: str = ""
    epoch: int = 0
    """Epochs trained."""
    grades: dict[int, float] = field(default_factory=dict)
    """Mean dev grade of each assessed epoch."""
    to_assess: set[int] = field(default_factory=set)
    """Epochs whose weights are saved and not judged yet."""
    cancelled: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("done", "failed", "stopped")


@dataclass(frozen=True)
class Task:
    """What an assessor is to do: judge an epoch, or (none) conclude a training."""

    job: Job
    epoch: int | None


class Dispatcher:
    """Who does what next; every method runs on one event loop."""

    def __init__(self) -> None:
        self.lanes: dict[int, Entry] = {}
        self.seats: dict[int, Task] = {}
        self.changed = asyncio.Condition()
        self.closing = False
        self.clear()

    async def begin(self, path: Path, retries: int) -> None:
        """Begin a sweep; an earlier one has ended.

        Args:
            path: the sweep's directory.
            retries: how often a training, or the judging of one, that failed is tried again.
        """
        self.path, self.retries = path, retries
        self.clear()
        lines = whole_lines(path / "trainings.jsonl")
        done = [line for line in lines if line["status"] == "done"]
        self.written = {(line["id"], line["point"], line["seed"]) for line in done}

    def clear(self) -> None:
        """Know of no training."""
        self.entries: dict[str, Entry] = {}
        self.queue: deque[Entry] = deque()
        self.tasks: deque[Task] = deque()
        self.failures: dict[tuple[str, int | None], int] = {}
        self.lane_errors: dict[int, str] = {}
        self.proposed = 0
        self.written: set[tuple[str, int, int]] = set()
        """Trainings that the sweep's file holds as done already."""

    # Tune's trials

    async def submit(self, jobs: list[Job]) -> None:
        """Take trainings in; what is trained or measured already is not done again."""
        for job in jobs:
            entry = self.entries.get(job.id)
            if entry is None:
                entry = self.entries[job.id] = Entry(job)
                known = select.assessed(job.run, validate(job.recipe).select)
                entry.grades = {epoch: quality.grade for epoch, quality in known.items()}
                if job.is_measured():
                    entry.state = "done"
                elif job.is_trained():
                    entry.state = "trained"
                    self.tasks.appendleft(Task(job, None))
                else:
                    self.queue.append(entry)
            entry.askers.add((job.point, job.seed))
            if entry.ended:
                self.write(entry, {(job.point, job.seed)})
        await self.tell()

    async def news(self, point: int, after: int) -> tuple[dict[int, float], bool]:
        """Mean dev grades of a point by epoch, over its seeds that did not fail, once all have it.

        Args:
            point: its number.
            after: epochs known already; the answer waits a while for another.

        Returns:
            grades by epoch, and whether every training of the point has ended.
        """
        until_s = time.monotonic() + WAIT_S
        while True:
            own = [e for e in self.entries.values() if any(p == point for p, _ in e.askers)]
            alive = [e.grades for e in own if e.state != "failed"]
            common = set.intersection(*map(set, alive)) if alive else set()
            grades = {n: float(np.mean([g[n] for g in alive])) for n in sorted(common)}
            ended = all(e.ended for e in own)
            if ended or len(grades) > after or not await self.wait(until_s):
                return grades, ended

    async def cancel(self, point: int) -> None:
        """Stop trainings that serve this point alone, at their next epoch."""
        for entry in self.entries.values():
            if not entry.ended and {p for p, _ in entry.askers} == {point}:
                entry.cancelled = True
                if entry in self.queue:
                    self.queue.remove(entry)
                    self.end(entry, "stopped")
        await self.tell()

    # Lanes

    async def take(self, lane: int, fresh: bool) -> Job | Literal["wait", "closed"]:
        """The next training of a lane.

        Args:
            lane: its number.
            fresh: its workers have just started; what they were at before goes on, or fails.
        """
        entry = self.lanes.get(lane)
        if fresh and entry and not entry.ended and entry.state == "training":
            entry.attempts += 1
            if entry.attempts <= self.retries:
                return entry.job
            entry.error = self.lane_errors.pop(lane, "") or "a worker died"
            self.end(entry, "failed")
            await self.tell()
        until_s = time.monotonic() + WAIT_S
        while not (self.queue or self.closing):
            if not await self.wait(until_s):
                return "wait"
        if self.closing:
            return "closed"
        entry = self.lanes[lane] = self.queue.popleft()
        entry.state, entry.begun_s = "training", time.time()
        return entry.job

    async def saved(self, id: str, epoch: int) -> bool:
        """Hear of an epoch's weights; say whether to go on."""
        entry = self.entries[id]
        entry.epoch = epoch
        if entry.cancelled or self.closing:
            return False
        self.assess(entry, epoch)
        await self.tell()
        return True

    async def trained(self, id: str) -> None:
        """Hear that a training's last step is done, or that it stopped as it was told to."""
        entry = self.entries[id]
        if entry.ended:
            return
        if entry.cancelled:
            self.end(entry, "stopped")
        else:
            entry.state = "trained"
            for epoch in entry.job.run.kept_epochs():  # saved before a kill, and not judged then
                self.assess(entry, epoch)
            self.conclude(entry)
        await self.tell()

    async def failed(self, id: str, error: str) -> None:
        """Hear of a training that no retry would mend."""
        self.entries[id].error = error
        self.end(self.entries[id], "failed")
        await self.tell()

    async def lane_error(self, lane: int, error: str) -> None:
        """Hear why a lane's workers are about to die."""
        self.lane_errors[lane] = error

    # Assessors

    async def task(self, seat: int, fresh: bool) -> Task | Literal["wait", "closed"]:
        """The next task of an assessor; a fresh one has lost what it held."""
        held = self.seats.pop(seat, None)
        if fresh and held:
            await self.task_failed(held, "the assessor died")
        until_s = time.monotonic() + WAIT_S
        while not (self.tasks or self.closing):
            if not await self.wait(until_s):
                return "wait"
        if self.closing:
            return "closed"
        self.seats[seat] = task = self.tasks.popleft()
        return task

    async def assessed(self, id: str, epoch: int, grade: float) -> None:
        """Hear what the dev prompts showed of an epoch."""
        entry = self.entries[id]
        entry.grades[epoch] = grade
        entry.to_assess.discard(epoch)
        self.conclude(entry)
        await self.tell()

    async def concluded(self, id: str) -> None:
        """Hear that a training is measured."""
        self.end(self.entries[id], "done")
        await self.tell()

    async def task_failed(self, task: Task, error: str) -> None:
        """Hear of a task that failed: it is tried again, or its training fails."""
        entry, key = self.entries[task.job.id], (task.job.id, task.epoch)
        if entry.ended:
            return
        self.failures[key] = self.failures.get(key, 0) + 1
        if self.failures[key] <= self.retries:
            self.tasks.append(task)
        else:
            entry.error, entry.cancelled = error, True
            self.end(entry, "failed")
        await self.tell()

    # The sweep's command

    async def status(self) -> list[dict[str, Any]]:
        """Every training: state, epochs, last dev grade, error."""
        return [
            {
                "id": e.job.id,
                "point": point,
                "seed": seed,
                "state": e.state,
                "epoch": e.epoch,
                "grade": e.grades[max(e.grades)] if e.grades else None,
                "error": e.error,
            }
            for e in self.entries.values()
            for point, seed in sorted(e.askers)
        ]

    async def close(self, error: str = "") -> None:
        """Let lanes and assessors end; with an error, what has not ended fails with it."""
        self.closing = True
        for entry in self.entries.values() if error else ():
            if not entry.ended:
                entry.error = error
                self.end(entry, "failed")
        await self.tell()

    # Its own

    def assess(self, entry: Entry, epoch: int) -> None:
        """Have an epoch judged, once."""
        if epoch not in entry.grades and epoch not in entry.to_assess:
            entry.to_assess.add(epoch)
            self.tasks.append(Task(entry.job, epoch))

    def conclude(self, entry: Entry) -> None:
        """Have a training concluded once it is trained and all its epochs are judged."""
        if entry.state == "trained" and not entry.to_assess:
            self.tasks.appendleft(Task(entry.job, None))

    def end(self, entry: Entry, state: State) -> None:
        """Note how a training ended."""
        entry.state = state
        self.tasks = deque(task for task in self.tasks if task.job.id != entry.job.id)
        self.write(entry, entry.askers)

    def write(self, entry: Entry, askers: set[tuple[int, int]]) -> None:
        """Append to the sweep's file, so that it survives a kill."""
        job = entry.job
        askers = {a for a in askers if (job.id, *a) not in self.written}
        record = {"id": job.id, "status": entry.state, "run": str(job.run.path)}
        record |= {"measured": str(job.measured) if entry.state == "done" else None}
        record |= {"error": entry.error}
        record |= {"seconds": round(time.time() - entry.begun_s, 1) if entry.begun_s else 0}
        with (self.path / "trainings.jsonl").open("a") as out:
            for point, seed in sorted(askers):
                out.write(f"{json.dumps(record | {'point': point, 'seed': seed})}\n")
            out.flush()
            os.fsync(out.fileno())

    async def number(self, first: int) -> int:
        """The next number for a point that a searcher proposes, counted from the first given."""
        self.proposed = max(self.proposed, first) + 1
        return self.proposed - 1

    async def ask(self, point: dict[str, Any]) -> None:
        """Note a point that a searcher asked for."""
        with (self.path / "asked.jsonl").open("a") as out:
            out.write(f"{json.dumps(point)}\n")

    async def tell(self) -> None:
        """Wake whoever waits."""
        async with self.changed:
            self.changed.notify_all()

    async def wait(self, until_s: float) -> bool:
        """Wait for a change; false when the time is over."""
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            return False
        async with self.changed:
            try:
                await asyncio.wait_for(self.changed.wait(), left_s)
            except TimeoutError:
                return False
        return True
