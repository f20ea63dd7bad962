"""The queue of a sweep: trainings for warm workers, assessments for assessors, values for Tune.

One Ray actor. Worker groups (training_worker.py) take the next training from it, assessors
(assessor.py) the next epoch to judge or training to measure, Tune's trials the values of their
point. It writes how each training ended to the sweep's journal.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import ray

from tune.sweep_directory import SweepJournal
from tune.training import Training
from tune.workers.queued_training import Assessment, QueuedTraining, State, mean_dev_values

WAIT_S = 5.0
"""How long a call waits for an answer; the caller then calls again."""


def get(answer: Any) -> Any:
    """Return the queue's answer; `ray.get` types the answers of an untyped actor as lists."""
    return ray.get(answer)


class TrainingQueue:
    """Decides who does what next; every method runs on one event loop."""

    def __init__(self) -> None:
        self.changed = asyncio.Condition()
        self.closing, self.error = False, ""
        self._clear()

    async def begin_sweep(self, path: Path, retries: int) -> None:
        """Begin the sweep of a directory; what fails is tried again `retries` times."""
        self.journal, self.retries = SweepJournal(path), retries
        self._clear()

    def _clear(self) -> None:
        self.trainings: dict[str, QueuedTraining] = {}
        self.waiting: deque[QueuedTraining] = deque()
        self.assessments: deque[Assessment] = deque()
        self.failures: dict[tuple[str, int | None], int] = {}
        """How often each assessment failed."""
        self.in_groups: dict[int, QueuedTraining] = {}
        self.group_errors: dict[int, str] = {}
        self.in_assessors: dict[int, Assessment] = {}
        self.proposed: dict[str, int] = {}
        """Numbers of the points that a searcher has proposed, by what it chose."""

    # Called by Tune's trials

    async def submit(self, trainings: list[Training]) -> None:
        """Add trainings; what is trained or measured already is not done again."""
        for training in trainings:
            queued = self.trainings.get(training.id)
            if queued and queued.cancelled:  # another point needs no more of it; this one does
                queued.cancelled = False
                queued = None if queued.state == "stopped" else queued
            queued = queued or self._add(training)
            served = {(training.point, training.seed)}
            queued.served |= served
            if queued.ended:
                self._write(queued, served)
            elif self.closing:
                self._end(queued, "failed", self.error or "the sweep was ending")
        await self._notify()

    def _add(self, training: Training) -> QueuedTraining:
        """Queue a training for what its files say is left to do."""
        queued = self.trainings[training.id] = QueuedTraining.read(training)
        self._measure(queued)
        if queued.state == "waiting":
            self.waiting.append(queued)
        return queued

    async def wait_for_dev_values(self, point: int, known: int) -> tuple[dict[int, float], bool]:
        """Return a point's mean dev values by epoch, and whether all its trainings have ended.

        An epoch counts once all seeds under way have it. The answer waits a while for more epochs
        than the caller knows.
        """

        def values() -> tuple[dict[int, float], bool]:
            own = [queued for queued in self.trainings.values() if queued.serves(point)]
            return mean_dev_values(own), all(queued.ended for queued in own)

        await self._wait_for(lambda: (now := values())[1] or len(now[0]) > known)
        return values()

    async def cancel(self, point: int) -> None:
        """Stop trainings that only this point needs, at their next epoch."""
        for queued in self.trainings.values():
            if not queued.ended and {number for number, _ in queued.served} == {point}:
                queued.cancelled = True
                if queued in self.waiting:
                    self.waiting.remove(queued)
                    self._end(queued, "stopped")
        await self._notify()

    async def point_number(self, chosen: dict[str, Any], first: int) -> int:
        """Return a proposed point's number, `first` or higher; a retried trial keeps its own."""
        key = json.dumps(chosen, sort_keys=True)
        return self.proposed.setdefault(key, first + len(self.proposed))

    async def write_proposed(self, point: dict[str, Any]) -> None:
        self.journal.add_proposed(point)

    async def write_refused(self, point: int, seeds: list[int], error: str) -> None:
        self.journal.add_refused(point, seeds, error)

    # Called by worker groups

    async def next_training(self, group: int, fresh: bool) -> Training | Literal["wait", "closed"]:
        """Return a group's next training; of fresh workers the one they had goes on, or fails."""
        queued = self.in_groups.get(group)
        if fresh and queued and queued.state == "training":
            if self._try_again(queued):
                return queued.training
            self._end(queued, "failed", self.group_errors.pop(group, "") or "a worker died")
            await self._notify()
        if nothing := await self._no_work(lambda: self.waiting):
            return nothing
        self.group_errors.pop(group, None)
        queued = self.in_groups[group] = self.waiting.popleft()
        queued.state, queued.started_s = "training", time.time()
        return queued.training

    async def weights_saved(self, id: str, epoch: int) -> Literal["go on", "stop", "leave"]:
        """Queue an epoch's assessment; "stop" where no point needs more, "leave" to go on later."""
        queued = self.trainings.get(id)
        if queued is None or self.closing or queued.ended:
            return "leave"
        queued.epoch = epoch
        if queued.cancelled:
            return "stop"
        queued.dev_values.pop(epoch, None)  # of weights that these have replaced
        self._assess(queued, epoch)
        await self._notify()
        return "go on"

    async def training_ended(self, id: str, error: str = "") -> None:
        """Queue what is left to assess of a trained training; end one that stopped or failed."""
        queued = self.trainings.get(id)
        if queued is None or queued.ended:
            return
        if error:
            self._end(queued, "failed", error)
        elif queued.cancelled:
            self._end(queued, "stopped")
        else:
            queued.state = "trained"
            for epoch in queued.training.look().kept_epochs():  # of before a kill, not judged then
                self._assess(queued, epoch)
            self._measure(queued)
        await self._notify()

    async def group_failed(self, group: int, error: str) -> None:
        """Keep why a group's workers are about to die."""
        self.group_errors[group] = error

    async def group_lost(self, group: int, error: str) -> None:
        """Give the training of a worker group that will not come back to another."""
        queued = self.in_groups.pop(group, None)
        if queued and queued.state == "training":
            if self._try_again(queued):
                queued.state = "waiting"
                self.waiting.appendleft(queued)
            else:
                self._end(queued, "failed", error)
        await self._notify()

    # Called by assessors

    async def next_assessment(
        self, assessor: int, fresh: bool
    ) -> Assessment | Literal["wait", "closed"]:
        """Return the next assessment; a fresh assessor has lost the one that it had."""
        lost = self.in_assessors.pop(assessor, None)
        if fresh and lost:
            await self.assessment_failed(lost, "the assessor died")
        if nothing := await self._no_work(lambda: self.assessments):
            return nothing
        self.in_assessors[assessor] = assessment = self.assessments.popleft()
        return assessment

    async def epoch_assessed(self, id: str, epoch: int, value: float) -> None:
        """Take the mean value of an epoch's dev replies."""
        if queued := self.trainings.get(id):
            queued.dev_values[epoch] = value
            queued.to_assess.discard(epoch)
            self._measure(queued)
        await self._notify()

    async def training_measured(self, id: str) -> None:
        if queued := self.trainings.get(id):
            queued.chosen = queued.training.look().export_epoch()
            self._end(queued, "done")
        await self._notify()

    async def assessment_failed(self, assessment: Assessment, error: str) -> None:
        """Try an assessment again, or end its training with the error."""
        key = assessment.training.id, assessment.epoch
        queued = self.trainings.get(assessment.training.id)
        if queued is None or queued.ended:
            return
        self.failures[key] = self.failures.get(key, 0) + 1
        if self.failures[key] <= self.retries:
            self.assessments.append(assessment)
        else:
            self._end(queued, "failed", error)
        await self._notify()

    async def assessor_lost(self, assessor: int, error: str) -> None:
        """Give the assessment of an assessor that will not come back to another."""
        if lost := self.in_assessors.pop(assessor, None):
            await self.assessment_failed(lost, error)

    # Called by the sweep's command

    async def status(self) -> list[dict[str, Any]]:
        """Return the state of every training, once for each point and seed that needs it."""
        return [line for queued in self.trainings.values() for line in queued.status()]

    async def close(self, error: str = "") -> None:
        """Let worker groups and assessors end; with an error, what has not ended fails with it."""
        self.closing, self.error = True, error
        for queued in self.trainings.values():
            if error and not queued.ended:
                self._end(queued, "failed", error)
        await self._notify()

    async def is_stopping(self) -> bool:
        """Wait a while for cancelled trainings to end; return whether some still have not."""
        return not await self._wait_for(
            lambda: all(q.ended or not q.cancelled for q in self.trainings.values())
        )

    # Its own

    def _try_again(self, queued: QueuedTraining) -> bool:
        """Count an attempt that failed; return whether another is allowed."""
        queued.attempts += 1
        return queued.attempts <= self.retries

    def _assess(self, queued: QueuedTraining, epoch: int) -> None:
        """Queue the assessment of an epoch, once; without a judge, not at all."""
        if queued.training.recipe["select"]["judge"] == "none":
            return
        if epoch not in queued.dev_values and epoch not in queued.to_assess:
            queued.to_assess.add(epoch)
            self.assessments.append(Assessment(queued.training, epoch))

    def _measure(self, queued: QueuedTraining) -> None:
        """Queue the measuring of a training once it is trained and all its epochs are judged."""
        if queued.state == "trained" and not queued.to_assess:
            self.assessments.appendleft(Assessment(queued.training, None))

    def _end(self, queued: QueuedTraining, state: State, error: str = "") -> None:
        queued.state, queued.error = state, error
        self.assessments = deque(a for a in self.assessments if a.training.id != queued.training.id)
        self._write(queued, queued.served)

    def _write(self, queued: QueuedTraining, served: set[tuple[int, int]]) -> None:
        spent_s = time.time() - queued.started_s if queued.started_s else 0
        self.journal.add_ended(queued.training, served, queued.state, queued.error, spent_s)

    async def _no_work(self, work: Callable[[], object]) -> Literal["wait", "closed"] | None:
        """Wait a while for work; return the answer where there is none."""
        found = await self._wait_for(lambda: work() or self.closing)
        return "closed" if self.closing else None if found else "wait"

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _wait_for(self, holds: Callable[[], object]) -> bool:
        """Wait a while until a condition holds; return whether it does."""
        try:
            # In the caller's own task: nothing else runs between the condition and the answer.
            async with asyncio.timeout(WAIT_S), self.changed:
                await self.changed.wait_for(holds)
        except TimeoutError:
            return False
        return True
