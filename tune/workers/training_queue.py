"""The queue of a sweep's trainings, which hands them to warm workers and epochs to assessors.

One Ray actor. Worker groups (training_worker.py) ask it for the next training, assessors for the
next epoch to judge or training to conclude, Tune's trials for news of their point. How a training
ended goes into the sweep's journal.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray

from lima_ray.config.recipe import validate
from lima_ray.records.quality import assessed
from tune.sweep_journal import SweepJournal
from tune.training import Job

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
    chosen: int | None = None
    """The epoch that was chosen, once it is measured."""
    cancelled: bool = False

    @property
    def told_epoch(self) -> int | None:
        """The epoch whose grade tables and lines tell: the chosen one, or the last so far."""
        return self.chosen or max(self.grades, default=None)

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
        self.changed = asyncio.Condition()
        self.closing, self.error = False, ""
        self.clear()

    async def begin(self, path: Path, retries: int) -> None:
        """Begin a sweep; an earlier one has ended.

        Args:
            path: the sweep's directory.
            retries: how often a training, or the judging of one, that failed is tried again.
        """
        self.journal, self.retries = SweepJournal(path), retries
        self.clear()

    def clear(self) -> None:
        """Know of no training."""
        self.entries: dict[str, Entry] = {}
        self.queue: deque[Entry] = deque()
        self.tasks: deque[Task] = deque()
        self.failures: dict[tuple[str, int | None], int] = {}
        self.lanes: dict[int, Entry] = {}
        self.seats: dict[int, Task] = {}
        self.lane_errors: dict[int, str] = {}
        self.proposed: dict[str, int] = {}
        """Numbers of the points that a searcher has proposed, by what it chose."""

    # Tune's trials

    async def submit(self, jobs: list[Job]) -> None:
        """Take trainings in; what is trained or measured already is not done again."""
        for job in jobs:
            entry = self.entries.get(job.id)
            if entry and entry.cancelled:  # another point needs no more of it; this one does
                entry.cancelled = False
                entry = None if entry.state == "stopped" else entry
            if entry is None:
                entry = self.entries[job.id] = Entry(job)
                known = assessed(job.run, validate(job.recipe).select.judge_name)
                entry.grades = {epoch: quality.grade for epoch, quality in known.items()}
                if job.is_measured():
                    entry.state, entry.chosen = "done", job.run.export_epoch()
                elif job.is_trained():
                    entry.state = "trained"
                    self.tasks.appendleft(Task(job, None))
                else:
                    self.queue.append(entry)
            entry.askers.add((job.point, job.seed))
            if entry.ended:
                self.note(entry, {(job.point, job.seed)})
            elif self.closing:
                self.fail(entry, self.error or "the sweep was ending")
        await self.tell()

    async def news(self, point: int, after: int) -> tuple[dict[int, float], bool]:
        """Mean dev grades of a point by epoch, once all its seeds that are under way have it.

        Args:
            point: its number.
            after: epochs known already; the answer waits a while for another.

        Returns:
            grades by epoch, and whether every training of the point has ended.
        """
        until_s = time.monotonic() + WAIT_S
        while True:
            own = [e for e in self.entries.values() if any(p == point for p, _ in e.askers)]
            alive = [e.grades for e in own if e.state not in ("failed", "waiting")]
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
            self.fail(entry, self.lane_errors.pop(lane, "") or "a worker died")
            await self.tell()
        if nothing := await self.nothing(lambda: self.queue):
            return nothing
        self.lane_errors.pop(lane, None)
        entry = self.lanes[lane] = self.queue.popleft()
        entry.state, entry.begun_s = "training", time.time()
        return entry.job

    async def saved(self, id: str, epoch: int) -> Literal["go on", "stop", "leave"]:
        """Hear of an epoch's weights.

        Returns:
            whether to go on, to stop because nobody needs more epochs, or to leave the training as
            it is, for a later start to go on with.
        """
        entry = self.entries.get(id)
        if entry is None or self.closing or entry.ended:
            return "leave"
        entry.epoch = epoch
        if entry.cancelled:
            return "stop"
        entry.grades.pop(epoch, None)  # of weights that these have replaced
        self.assess(entry, epoch)
        await self.tell()
        return "go on"

    async def trained(self, id: str) -> None:
        """Hear that a training's last step is done, or that it stopped as it was told to."""
        entry = self.entries.get(id)
        if entry is None or entry.ended:
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
        if id in self.entries:
            self.fail(self.entries[id], error)
        await self.tell()

    async def lost(self, role: str, number: int, error: str) -> None:
        """Hear that a lane ("trainers") or an assessor ("judges") will not come back."""
        if role == "judges" and (held := self.seats.pop(number, None)):
            await self.task_failed(held, error)
        entry = self.lanes.pop(number, None) if role == "trainers" else None
        if entry and entry.state == "training":
            entry.attempts += 1
            if entry.attempts <= self.retries:
                entry.state = "waiting"
                self.queue.appendleft(entry)
            else:
                self.fail(entry, error)
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
        if nothing := await self.nothing(lambda: self.tasks):
            return nothing
        self.seats[seat] = task = self.tasks.popleft()
        return task

    async def assessed(self, id: str, epoch: int, grade: float) -> None:
        """Hear what the dev prompts showed of an epoch."""
        entry = self.entries.get(id)
        if entry:
            entry.grades[epoch] = grade
            entry.to_assess.discard(epoch)
            self.conclude(entry)
        await self.tell()

    async def concluded(self, id: str) -> None:
        """Hear that a training is measured."""
        if entry := self.entries.get(id):
            entry.chosen = entry.job.run.export_epoch()
            self.end(entry, "done")
        await self.tell()

    async def task_failed(self, task: Task, error: str) -> None:
        """Hear of a task that failed: it is tried again, or its training fails."""
        entry, key = self.entries.get(task.job.id), (task.job.id, task.epoch)
        if entry is None or entry.ended:
            return
        self.failures[key] = self.failures.get(key, 0) + 1
        if self.failures[key] <= self.retries:
            self.tasks.append(task)
        else:
            self.fail(entry, error)
        await self.tell()

    # The sweep's command

    async def status(self) -> list[dict[str, Any]]:
        """Every training: state, epochs, error, dev grade of the chosen or the last epoch."""
        return [
            {
                "id": e.job.id,
                "point": point,
                "seed": seed,
                "state": e.state,
                "epoch": e.epoch,
                "grade": e.grades.get(told) if (told := e.told_epoch) else None,
                "of_epoch": told,
                "error": e.error,
            }
            for e in self.entries.values()
            for point, seed in sorted(e.askers)
        ]

    async def close(self, error: str = "") -> None:
        """Let lanes and assessors end; with an error, what has not ended fails with it."""
        self.closing, self.error = True, error
        for entry in self.entries.values() if error else ():
            if not entry.ended:
                self.fail(entry, error)
        await self.tell()

    async def stopping(self) -> bool:
        """Wait a while for trainings that were told to stop; whether some still have not."""
        until_s = time.monotonic() + WAIT_S
        while any(e.cancelled and not e.ended for e in self.entries.values()):
            if not await self.wait(until_s):
                return True
        return False

    # Its own

    def assess(self, entry: Entry, epoch: int) -> None:
        """Have an epoch judged, once; without a judge, not at all."""
        if entry.job.recipe["select"]["judge"] == "none":
            return
        if epoch not in entry.grades and epoch not in entry.to_assess:
            entry.to_assess.add(epoch)
            self.tasks.append(Task(entry.job, epoch))

    def conclude(self, entry: Entry) -> None:
        """Have a training concluded once it is trained and all its epochs are judged."""
        if entry.state == "trained" and not entry.to_assess:
            self.tasks.appendleft(Task(entry.job, None))

    def fail(self, entry: Entry, error: str) -> None:
        """Note that a training failed."""
        entry.error = error
        self.end(entry, "failed")

    def end(self, entry: Entry, state: State) -> None:
        """Note how a training ended."""
        entry.state = state
        self.tasks = deque(task for task in self.tasks if task.job.id != entry.job.id)
        self.note(entry, entry.askers)

    def note(self, entry: Entry, askers: set[tuple[int, int]]) -> None:
        """Write down how a training ended."""
        spent_s = time.time() - entry.begun_s if entry.begun_s else 0
        self.journal.ended(entry.job, askers, entry.state, entry.error, spent_s)

    async def number(self, chosen: dict[str, Any], first: int) -> int:
        """The number of a point that a searcher proposes; a retried trial's stays what it was.

        Args:
            chosen: on each axis.
            first: the lowest number that is free.
        """
        key = json.dumps(chosen, sort_keys=True)
        return self.proposed.setdefault(key, first + len(self.proposed))

    async def ask(self, point: dict[str, Any]) -> None:
        """Note a point that a searcher proposed."""
        self.journal.asked(point)

    async def refuse(self, point: int, seeds: list[int], error: str) -> None:
        """Note a proposed point that no run could train."""
        self.journal.refused(point, seeds, error)

    async def nothing(self, work: Callable[[], object]) -> Literal["wait", "closed"] | None:
        """Wait a while for work; what to answer where there is none."""
        until_s = time.monotonic() + WAIT_S
        while not (work() or self.closing):
            if not await self.wait(until_s):
                return "wait"
        return "closed" if self.closing else None

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
