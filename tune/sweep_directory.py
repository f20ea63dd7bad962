"""A sweep's directory: one sweep, one process at a time, and the journal of what it has done.

sweep.yaml       the sweep, its points and the recipe that they share
trainings.jsonl  a line each time a training ends, for each point and seed that needs it; that a
                 training is done is written once
asked.jsonl      the points that a searcher proposed
"""

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from lima_ray.config.differences import differences as changed_settings
from lima_ray.config.differences import flatten, with_current_names
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.storage.changing_files import Uploads, check_writable, pull
from lima_ray.config.storage.working_copy import reference
from lima_ray.records.files import HeldLock, acquire_lock, write_text
from lima_ray.records.journal import Journal
from tune.space import Point, Sweep
from tune.training import WAIT, Training

SWEEP_FILE, ENDED, PROPOSED = "sweep.yaml", "trainings.jsonl", "asked.jsonl"
FREE_TO_CHANGE = (
    *("sweep.concurrent", "sweep.retries", "sweep.keep", "sweep.claim"),
    *("sweep.setting", "sweep.recipe"),  # the recipe that they lead to may not change
    *("sweep.paper", "sweep.expect", "sweep.set", "sweep.files"),
    *("recipe.cluster", "recipe.log"),
    "points",  # the axes say it better
)
"""Fields, and sections of fields, that may differ when a sweep goes on."""


class SweepDirectory(AbstractContextManager["SweepDirectory"]):
    """Keeps other sweeps and other processes out of a directory while its sweep runs."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path / SWEEP_FILE
        self.tree: dict[str, Any] = {}
        self.locks: list[HeldLock] = []
        """Of the directory, and of the trainings that the sweep is at."""
        self.uploads = Uploads(path)

    def __enter__(self) -> "SweepDirectory":
        """Take over what a bucket holds of the sweep; refuse one that cannot be written."""
        check_writable(self.path)
        pull(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        if self.uploads.thread.is_alive():
            self.uploads.__exit__()
        for held in self.locks:
            held.release()

    def check(
        self, sweep: Sweep, base: Recipe, points: list[Point], ids: list[str], resume: bool
    ) -> None:
        """Check that the directory is this sweep's, or free.

        Args:
            base: the recipe that its points share.
            points: those made before the start.
            ids: of their trainings, in order; they change with the data's content.
            resume: the sweep may have been begun.

        Raises:
            UserError: another process runs it, it was begun and `resume` is off, or it is another
                sweep (what differs is named).
        """
        self.tree = {
            "sweep": sweep.model_dump(mode="json"),
            "points": [asdict(point) for point in points],
            "trainings": ids,
            "recipe": base.model_dump(mode="json"),
        }
        if not self.file.exists():
            return
        changed = differences(read_sweep_file(self.path), self.tree)
        if changed:
            shown = "\n  ".join(changed)
            raise UserError(
                f"{self.path} holds another sweep of the name {sweep.name}; their results do not "
                f"mix:\n  {shown}\nGive this one a --name of its own, or remove that directory"
            )
        self._lock()
        if not resume:
            raise UserError(
                f"{self.path} holds this sweep already; --resume goes on with what is left, "
                "--name NAME begins another"
            )

    def write(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock()
        write_text(self.file, yaml.safe_dump(self.tree, sort_keys=False, allow_unicode=True))
        self.uploads.__enter__()

    def _lock(self) -> None:
        if not self.locks:
            busy = f"another process runs the sweep in {self.path}; {WAIT}"
            self.locks.append(acquire_lock(self.path / "lock", busy, everywhere=True))


def read_sweep_file(path: Path) -> dict[str, Any]:
    """Return what a sweep's directory says of the sweep: itself, its points, their recipe."""
    return with_current_names(yaml.safe_load((path / SWEEP_FILE).read_text()))


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """List what decides the results and differs, a line each."""
    changed = {
        name: values
        for name, values in changed_settings(flatten(theirs), flatten(ours)).items()
        if not any(name == free or name.startswith(f"{free}.") for free in FREE_TO_CHANGE)
    }
    if changed.keys() == {"trainings"}:
        return ["the rows, prompts or base of some trainings have another content"]
    # Other settings make other trainings, so those are no news beside them.
    return [f"{name} {values}" for name, values in changed.items() if name != "trainings"]


class SweepJournal:
    """Appends what a sweep has done; every line survives a kill and a power cut."""

    def __init__(self, path: Path) -> None:
        """Open the journal of the sweep in a directory; a line that a kill cut off is dropped."""
        self.trainings = Journal(path / ENDED, durable=True)
        self.proposals = Journal(path / PROPOSED, durable=True)
        for journal in (self.trainings, self.proposals):
            journal.repair()
        done = [line for line in self.trainings.records() if line["status"] == "done"]
        self.done = {(line["id"], line["point"], line["seed"]) for line in done}

    def add_ended(
        self,
        training: Training,
        served: set[tuple[int, int]],
        status: str,
        error: str,
        spent_s: float,
    ) -> None:
        """Write how a training ended, in so many seconds, for all points and seeds that need it."""
        record = {"id": training.id, "status": status, "run": reference(training.run.path)}
        record |= {"measured": reference(training.measured) if status == "done" else None}
        record |= {"error": error, "seconds": round(spent_s, 1)}
        for point, seed in sorted(served):
            if (training.id, point, seed) not in self.done:
                self.trainings.append(record | {"point": point, "seed": seed})
            if status == "done":
                self.done.add((training.id, point, seed))

    def add_refused(self, point: int, seeds: list[int], error: str) -> None:
        record = {"id": f"refused-{point}", "status": "failed", "run": "", "measured": None}
        for seed in seeds:
            self.trainings.append(
                record | {"error": error, "seconds": 0, "point": point, "seed": seed}
            )

    def add_proposed(self, point: dict[str, Any]) -> None:
        self.proposals.append(point)
