"""A sweep's directory: one sweep, one process at a time."""

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from filelock import BaseFileLock

from lima_ray.config.differences import differences as changed_settings
from lima_ray.config.differences import flatten
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.records.files import lock, write_text
from tune.space import Point, Sweep

WAY_OUT = "wait for it, then go on with --resume"
FREE_TO_CHANGE = (
    *("sweep.concurrent", "sweep.retries", "sweep.keep", "sweep.claim"),
    *("sweep.setting", "sweep.recipe"),
)
"""Fields of a sweep that may differ when it goes on; the recipe they lead to may not."""
FREE_SECTIONS = (
    *("sweep.paper", "sweep.expect", "sweep.set", "sweep.files"),
    *("recipe.cluster", "recipe.log"),
)


class Claim(AbstractContextManager["Claim"]):
    """Holds a sweep's directory while it runs."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path / "sweep.yaml"
        self.tree: dict[str, Any] = {}
        self.locks: list[BaseFileLock] = []
        """Of the directory, and of the trainings that the sweep is at."""

    @property
    def begun(self) -> bool:
        """Whether a sweep stands here."""
        return self.file.exists()

    def __exit__(self, *_: object) -> None:
        for held in self.locks:
            held.release()

    def check(
        self, sweep: Sweep, base: Recipe, points: list[Point], ids: list[str], resume: bool
    ) -> None:
        """See that the directory is this sweep's, or free.

        Args:
            sweep: the study.
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
        if not self.begun:
            return
        theirs = yaml.safe_load(self.file.read_text())
        changed = differences(theirs, self.tree)
        if changed:
            shown = "\n  ".join(changed)
            raise UserError(
                f"{self.path} holds another sweep of the name {sweep.name}; their results do not "
                f"mix:\n  {shown}\nGive this one a --name of its own, or remove that directory"
            )
        self.take()
        if not resume:
            raise UserError(
                f"{self.path} holds this sweep already; --resume goes on with what is left, "
                "--name NAME begins another"
            )

    def write(self) -> None:
        """Make the directory this sweep's."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.take()
        write_text(self.file, yaml.safe_dump(self.tree, sort_keys=False, allow_unicode=True))

    def take(self) -> None:
        """Keep other processes away until this one ends."""
        if not self.locks:
            busy = f"another process runs the sweep in {self.path}; {WAY_OUT}"
            self.locks.append(lock(self.path / "lock", busy))


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """What decides the results and is not the same, a line each."""
    lines = []
    for name, values in changed_settings(flatten(theirs), flatten(ours)).items():
        free = name in FREE_TO_CHANGE or name.startswith(tuple(f"{s}." for s in FREE_SECTIONS))
        if free or name in FREE_SECTIONS:
            continue
        if name == "points":
            continue  # the axes say it better
        if name == "trainings":
            lines.append("the rows, prompts or base of some trainings have another content")
        else:
            lines.append(f"{name} {values}")
    real = [line for line in lines if not line.startswith("the rows")]
    return real or lines
