"""What a sweep has found so far, read from its files: outcomes of trainings, values of points.

    study = Study.load(Path("runs/sweeps/quality"))
    study.values_SP(study.points[0])        # the metric, by seed and prompt

A sweep's directory holds `sweep.yaml` (sweep, points and recipe as they were read) and
`trainings.jsonl`, a line each time a training ends. The trainings themselves are runs, and may
serve several sweeps.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from lima_ray import config, select
from lima_ray.config import Recipe
from lima_ray.example import decode_json
from lima_ray.run import Run
from lima_ray.select import Quality, grade_of
from lima_ray.stats import Estimate, crossed, difference
from tune.space import Point, Sweep

Status = Literal["done", "failed", "stopped"]
Verdicts = list[dict[str, Any]]


def share(holds: Callable[[dict[str, Any]], bool]) -> Callable[[Verdicts], float]:
    """The share of a prompt's replies of which something holds."""
    return lambda verdicts: float(np.mean([holds(v) for v in verdicts]))


def mean_grade(verdicts: Verdicts) -> float:
    """Mean grade of a prompt's replies."""
    return float(np.mean([grade for v in verdicts if (grade := grade_of(v)) is not None]))


def whole_dialogue(verdicts: Verdicts) -> float:
    """Share of a script's samples in which every turn was accepted."""
    samples = {v["sample"] for v in verdicts}
    failed = {v["sample"] for v in verdicts if v["verdict"] == "fail"}
    return 1 - len(failed) / len(samples)


METRICS: dict[str, Callable[[Verdicts], float]] = {
    "grade": mean_grade,
    "excellent": share(lambda v: v["verdict"] == "excellent"),
    "accepted": share(lambda v: v["verdict"] != "fail"),
    "stopped": share(lambda v: v["stopped"]),
    "safe": share(lambda v: v.get("safe", float("nan"))),
    "dialogues": whole_dialogue,
}
"""Of the verdicts on one prompt's replies."""
GRADED = ("grade", "stopped")
"""What there is of a judge that grades only."""


@dataclass(frozen=True)
class Outcome:
    """How one training ended."""

    id: str
    """Name of its run."""
    point: int
    seed: int
    status: Status
    run: Run
    measured: Path | None
    """Directory of the replies that measure it, and the verdicts on them."""
    error: str = ""
    seconds: float = 0

    @cached_property
    def verdicts(self) -> Verdicts:
        """Verdicts on the measuring prompts; `stopped` stands in every one."""
        if self.measured is None:
            return []
        file = self.measured / "verdicts.jsonl"
        return [decode_json(line, str(file)) for line in file.read_bytes().splitlines()]

    @cached_property
    def qualities(self) -> list[Quality]:
        """What the dev prompts showed of each epoch, in order."""
        found = select.assessed(self.run, self.run.recipe().select)
        return [found[epoch] for epoch in sorted(found)]

    @property
    def chosen(self) -> Quality | None:
        """The epoch that was chosen and measured."""
        if self.status != "done":
            return None
        epoch = self.run.export_epoch()
        return next((q for q in self.qualities if q.epoch == epoch), None)


@dataclass(frozen=True)
class Study:
    """A sweep's points and how their trainings ended."""

    sweep: Sweep
    points: list[Point]
    outcomes: list[Outcome]
    path: Path
    recipe: Recipe
    """What all points share."""
    asked: list[dict[str, Any]]
    """Points that a searcher asked for while the sweep ran, with what it chose on each axis."""

    @classmethod
    def load(cls, path: Path) -> "Study":
        """Read a sweep's directory; of a training that ended more than once the last counts."""
        tree = yaml.safe_load((path / "sweep.yaml").read_text())
        recipe = config.validate(tree["recipe"], str(path / "sweep.yaml"))
        points: dict[int, Point] = {p["number"]: Point(**p) for p in tree["points"]}
        outcomes = {}
        for line in whole_lines(path / "trainings.jsonl"):
            measured = line.pop("measured")
            line["run"] = Run(Path(line["run"]))
            known = Outcome(**line, measured=Path(measured) if measured else None)
            outcomes[known.point, known.seed] = known
        asked = whole_lines(path / "asked.jsonl")
        for line in asked:
            known_fields = {k: line[k] for k in ("number", "labels", "values")}
            points.setdefault(line["number"], Point(**known_fields))
        sweep = Sweep.model_validate(tree["sweep"])
        ordered = [outcomes[key] for key in sorted(outcomes)]
        return cls(sweep, [points[n] for n in sorted(points)], ordered, path, recipe, asked)

    def of(self, point: Point) -> list[Outcome]:
        """A point's outcomes, by seed."""
        return [o for o in self.outcomes if o.point == point.number]

    def done(self, point: Point) -> list[Outcome]:
        """A point's measured outcomes, by seed."""
        return [o for o in self.of(point) if o.status == "done"]

    def values_SP(self, point: Point, metric: str = "", group: str = "") -> np.ndarray:
        """A metric of a point by seed (rows) and prompt (columns, in the order of their ids).

        Args:
            point: one with at least one training done.
            metric: one of `METRICS`; empty takes the sweep's.
            group: the prompts that count; empty takes the sweep's, or all.

        Returns:
            shape [seeds, prompts]; NaN where no verdict on a prompt could be read.
        """
        group = group or self.sweep.group
        measure = METRICS[metric or self.sweep.metric]
        rows = []
        for outcome in self.done(point):
            by_prompt: dict[str, Verdicts] = {}
            for v in outcome.verdicts:
                if not group or v.get("group") == group:
                    read = by_prompt.setdefault(v["id"], [])
                    read += [v] if grade_of(v) is not None else []
            rows.append(
                [measure(vs) if vs else float("nan") for _, vs in sorted(by_prompt.items())]
            )
        return np.array(rows)

    def estimate(self, point: Point, metric: str = "", group: str = "") -> Estimate:
        """Mean and 95 % interval of a metric over seeds and prompts."""
        return crossed(self.values_SP(point, metric, group))

    def compare(self, point: Point, reference: Point, metric: str = "") -> Estimate:
        """How much higher a metric is than a reference point's, paired over prompts and seeds."""
        both = {o.seed for o in self.done(point)} & {o.seed for o in self.done(reference)}
        pair = []
        for p in (point, reference):
            rows = [i for i, o in enumerate(self.done(p)) if o.seed in both]
            pair.append(self.values_SP(p, metric)[rows])
        return difference(*pair)

    def best(self) -> Point | None:
        """The point whose chosen epochs replied best to the dev prompts, on average over seeds.

        The measuring prompts take no part in it, so that they stay a test.
        """
        judged = [p for p in self.points if self.done(p)]
        return max(judged, key=self.dev_grade) if judged else None

    def dev_grade(self, point: Point) -> float:
        """Mean dev grade of a point's chosen epochs, over its seeds that are done."""
        return float(np.mean([o.chosen.grade for o in self.done(point) if o.chosen]))


def whole_lines(file: Path) -> list[dict[str, Any]]:
    """JSON lines of a file; one that a kill cut off does not count."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
