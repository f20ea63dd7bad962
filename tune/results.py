"""The results of a sweep so far, read from its files: outcomes of trainings, values of points.

    study = Study.load(Path("runs/sweeps/quality"))
    study.values_SP(study.points[0])        # the metric, by seed and prompt

A sweep's directory holds `sweep.yaml` (sweep, points and recipe as they were read) and
`trainings.jsonl`, a line each time a training ends. The trainings themselves are runs, and may
serve several sweeps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lima_ray.config.differences import with_current_names
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.config.storage.working_copy import from_reference, reading_copy
from lima_ray.records.journal import Journal
from lima_ray.records.quality import Quality, read_qualities
from lima_ray.records.run import Run
from lima_ray.records.verdict import Verdict, read_verdicts
from lima_ray.results.intervals import Estimate, crossed_mean, paired_difference
from lima_ray.results.statistics.verdict_table import points_in_both_orders
from tune.space import Point, Sweep
from tune.sweep_directory import ENDED, PROPOSED, SWEEP_FILE, read_sweep_file

Status = Literal["done", "failed", "stopped"]


def mean(of: Callable[[Verdict], Any]) -> Callable[[list[Verdict]], float]:
    """Make a metric of something that each verdict has: a number, or whether something holds."""
    return lambda verdicts: float(np.mean([of(v) for v in verdicts]))


def win_rate(verdicts: list[Verdict]) -> float:
    """Return the mean over replies of 1 where both orders prefer it, 0.5 and 0; NaN of none."""
    return float(np.mean(list(points_in_both_orders(verdicts).values()) or np.nan))


def own_reply_stopped(verdict: Verdict) -> Any:
    """Return whether a verdict's reply stopped; of a pair, the first."""
    return verdict.stopped[0] if isinstance(verdict.stopped, tuple) else verdict.stopped


def whole_dialogue(verdicts: list[Verdict]) -> float:
    """Return the share of a script's samples in which every turn was accepted."""
    samples = {v.sample for v in verdicts}
    failed = {v.sample for v in verdicts if v.verdict == "fail"}
    return 1 - len(failed) / len(samples)


METRICS: dict[str, Callable[[list[Verdict]], float]] = {
    "grade": mean(lambda v: v.grade),
    "excellent": mean(lambda v: v.verdict == "excellent"),
    "accepted": mean(lambda v: v.verdict != "fail"),
    "stopped": mean(own_reply_stopped),
    "safe": mean(lambda v: v.extra.get("safe", float("nan"))),
    "dialogues": whole_dialogue,
    "win_rate": win_rate,
    "perplexity": mean(lambda v: v.verdict),  # losses
}
"""Of the verdicts that were read on one prompt's replies."""


def by_prompt(
    verdicts: list[Verdict], measure: Callable[[list[Verdict]], float], group: str = ""
) -> np.ndarray:
    """Compute a metric of each prompt's verdicts.

    Args:
        measure: of one prompt's readable verdicts.
        group: the prompts that count; empty counts all.

    Returns:
        shape [prompts], in the order of their ids; NaN where no verdict could be read.
    """
    read: dict[str, list[Verdict]] = {}
    for v in verdicts:
        if group in ("", v.group):
            own = read.setdefault(v.id, [])
            own += [v] if v.was_read else []
    return np.array([measure(vs) if vs else np.nan for _, vs in sorted(read.items())])


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
    def verdicts(self) -> list[Verdict]:
        """Verdicts on the measuring prompts; `stopped` stands in every one."""
        return read_verdicts(self.measured / "verdicts.jsonl") if self.measured else []

    @cached_property
    def qualities(self) -> list[Quality]:
        """What the dev replies of each epoch are worth, in order."""
        found = read_qualities(self.run, self.run.recipe().select.judge_name)
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
    proposed: list[dict[str, Any]]
    """Points that a searcher proposed while the sweep ran, with what it chose on each axis."""

    @classmethod
    def load(cls, path: Path) -> "Study":
        """Read a sweep's directory; of a training that ended more than once the last counts."""
        tree = read_sweep_file(path)
        recipe = validate_recipe(tree["recipe"], str(path / SWEEP_FILE))
        points: dict[int, Point] = {p["number"]: Point(**p) for p in tree["points"]}
        outcomes = {}
        for line in Journal(path / ENDED).records():
            measured = line.pop("measured")
            line["run"] = Run(reading_copy(from_reference(line["run"])))
            measured = reading_copy(from_reference(measured)) if measured else None
            known = Outcome(**line, measured=measured)
            outcomes[known.point, known.seed] = known
        for run in {outcome.run for outcome in outcomes.values()}:
            run.refresh()
        proposed = with_current_names(Journal(path / PROPOSED).records())
        ended = {number for number, _ in outcomes}
        for line in proposed:
            if line["number"] in ended:  # one that a kill cut off is not proposed again
                points[line["number"]] = Point(line["number"], line["labels"], line["values"])
        sweep = Sweep.model_validate(tree["sweep"])
        ordered = [outcomes[key] for key in sorted(outcomes)]
        return cls(sweep, [points[n] for n in sorted(points)], ordered, path, recipe, proposed)

    @property
    def next_number(self) -> int:
        """Number of the next point that a searcher proposes."""
        numbers = [p.number for p in self.points] + [p["number"] for p in self.proposed]
        return max(numbers, default=-1) + 1

    @property
    def ended(self) -> list[Point]:
        """Points of which every seed has ended."""
        return [p for p in self.points if len(self.of(p)) == len(self.sweep.seeds)]

    def point_of(self, outcome: Outcome) -> Point:
        return next(point for point in self.points if point.number == outcome.point)

    def of(self, point: Point) -> list[Outcome]:
        """Return a point's outcomes, by seed."""
        return [o for o in self.outcomes if o.point == point.number]

    def done(self, point: Point) -> list[Outcome]:
        """Return a point's measured outcomes, by seed."""
        return [o for o in self.of(point) if o.status == "done"]

    def values_SP(self, point: Point, metric: str = "", group: str = "") -> np.ndarray:
        """Compute a metric of a point by seed and prompt, in the order of prompts' ids.

        Args:
            point: one with at least one training done.
            metric: one of `METRICS`; empty takes the sweep's.
            group: the prompts that count; empty takes the sweep's, or all.

        Returns:
            shape [seeds, prompts]; NaN where no verdict on a prompt could be read.
        """
        group = group or self.sweep.group
        measure = METRICS[metric or self.sweep.metric]
        return np.array([by_prompt(o.verdicts, measure, group) for o in self.done(point)])

    def estimate(self, point: Point, metric: str = "", group: str = "") -> Estimate:
        """Return the mean and 95 % interval of a metric over seeds and prompts."""
        return crossed_mean(self.values_SP(point, metric, group))

    def compare(self, point: Point, reference: Point, metric: str = "") -> Estimate:
        """Estimate how much higher a metric is than a reference's, paired by prompt and seed."""
        both = {o.seed for o in self.done(point)} & {o.seed for o in self.done(reference)}
        pair = []
        for p in (point, reference):
            rows = [i for i, o in enumerate(self.done(p)) if o.seed in both]
            pair.append(self.values_SP(p, metric)[rows])
        return paired_difference(*pair)

    def best(self) -> Point | None:
        """Return the point whose chosen epochs' dev replies are worth most, on average over seeds.

        Of equals the one more of whose replies stopped, then the first. The measuring prompts
        take no part in it, so that they stay a test. Points with fewer seeds done than others do
        not count.
        """
        return max(self.judged(), key=self.dev_rank, default=None)

    def judged(self) -> list[Point]:
        """Return the points with as many seeds done as any, and judged dev replies."""
        most = max((len(self.done(p)) for p in self.points), default=0)
        return [
            p
            for p in self.points
            if len(self.done(p)) == most and any(o.chosen for o in self.done(p))
        ]

    def dev_rank(self, point: Point) -> tuple[float, float]:
        """Return what ranks a point: its dev value, then the share that stopped, both rounded."""
        return round(self.dev_value(point), 9), round(self.dev_stopped(point), 9)

    def dev_value(self, point: Point) -> float:
        """Return the mean grade, or win rate, of the dev replies of a point's chosen epochs."""
        return float(np.mean([o.chosen.value for o in self.done(point) if o.chosen]))

    def dev_stopped(self, point: Point) -> float:
        """Return the share of dev replies of a point's chosen epochs that EOT ended."""
        return float(np.mean([o.chosen.stopped for o in self.done(point) if o.chosen]))
