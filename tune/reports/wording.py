"""How reports and pictures write what a study measured: units, intervals, points, the paper."""

import math
from dataclasses import dataclass
from typing import Any

from lima_ray.results.intervals import Estimate
from tune.axis import label, short
from tune.results import Study
from tune.space import Point

AUDIT = ("excellent", "pass", "fail")
"""Verdicts of an audit, best first."""


@dataclass(frozen=True)
class Unit:
    """The unit and scale in which a metric is written."""

    name: str
    """In titles and sentences."""
    noun: str
    scale: str
    factor: float
    """Times the metric."""
    decimals: int
    lowest: float
    """Ends of what is possible, in this unit; an interval is cut there."""
    highest: float
    lower_is_better: bool = False

    def rank(self, level: float) -> float:
        """Return a number that is highest for the best level."""
        return -level if self.lower_is_better else level

    @property
    def heading(self) -> str:
        """Name in tables and on axes."""
        return f"{self.noun}, {self.scale}"

    def number(self, value: float) -> str:
        """Write a level of the metric in this unit."""
        return self.text(self.factor * value)

    def with_sign(self, value: float) -> str:
        """Write a level with its sign, where it has one: `83.0 %`."""
        return self.number(value) + (" %" if self.scale == "%" else "")

    def text(self, value: float) -> str:
        """Write a number that is in this unit already."""
        return f"{value:.{self.decimals}f}"

    def ends(self, estimate: Estimate) -> tuple[float, float]:
        """Return a level's interval in this unit."""
        low, high = self.factor * estimate.low, self.factor * estimate.high
        return max(low, self.lowest), min(high, self.highest)

    def level(self, estimate: Estimate) -> str:
        """Write a level with its interval, such as `4.32 [4.10, 4.54]`."""
        low, high = map(self.text, self.ends(estimate))
        mean = self.number(estimate.mean)
        return mean if math.isnan(estimate.low) else f"{mean} [{low}, {high}]"

    def change(self, estimate: Estimate) -> str:
        """Write a difference with its interval, such as `+0.52 [+0.31, +0.73]`."""
        mean, low, high = (
            f"{self.factor * value:+.{self.decimals}f}"
            for value in (estimate.mean, estimate.low, estimate.high)
        )
        return mean if math.isnan(estimate.low) else f"{mean} [{low}, {high}]"


def percent(noun: str) -> Unit:
    return Unit(f"share of {noun}", noun, "%", 100, 1, 0, 100)


LOSS = Unit("loss on held-out dialogues", "loss", "nats a token", 1, 3, 0, math.inf, True)
"""The logarithm of perplexity, whose differences and intervals are those of a mean."""
GRADE = Unit("mean grade", "grade", "1 to 6", 1, 2, 1, 6)
UNITS = {
    "grade": GRADE,
    "excellent": percent("excellent replies"),
    "accepted": percent("accepted replies"),
    "stopped": percent("replies that stop"),
    "safe": percent("safe replies"),
    "dialogues": percent("dialogues accepted throughout"),
    "perplexity": LOSS,
}
"""Of each metric."""


def unit_of(study: Study) -> Unit:
    return UNITS[study.sweep.metric]


def probability(p: float) -> str:
    """Write a p-value; nothing where there is none."""
    if math.isnan(p):
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def counted(count: int, noun: str) -> str:
    """Write a count: `1 seed`, `3 seeds`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def group(labels: dict[str, Any]) -> str:
    """Name some points by what they have in common, such as `residual dropout 0.2`."""
    return ", ".join(f"{short(axis)} {label(value)}" for axis, value in labels.items())


def matches(point: Point, labels: dict[str, Any]) -> bool:
    """Return whether a point has these values, given as sweep files write them."""
    return all(
        point.labels.get(axis) in (str(value), label(value)) for axis, value in labels.items()
    )


def seeds(study: Study, point: Point) -> str:
    """Write how many of a point's seeds are done, and how others ended: `2 of 3, 1 failed`."""
    ended = [outcome.status for outcome in study.of(point)]
    parts = [f"{ended.count('done')} of {len(study.sweep.seeds)}"]
    for status, word in (("failed", "failed"), ("stopped", "stopped early")):
        parts += [f"{ended.count(status)} {word}"] if status in ended else []
    return ", ".join(parts)


def audited(study: Study) -> bool:
    """Return whether the verdicts are excellent, pass or fail."""
    kinds = (v.kind for outcome in study.outcomes for v in outcome.verdicts)
    return next(kinds, None) == "audit"


def audit(study: Study, point: Point) -> list[float]:
    """Return the shares of `AUDIT` among a point's replies, in percent."""
    excellent, accepted = (study.estimate(point, m).mean for m in ("excellent", "accepted"))
    return [100 * share for share in (excellent, accepted - excellent, 1 - accepted)]


def paper(study: Study, point: Point) -> Any:
    """Return the paper's figures of a point: a number, several by name, or none."""
    figures = {str(name): figure for name, figure in study.sweep.paper.items()}
    known = (figures[label] for label in (point.name, *point.labels.values()) if label in figures)
    return next(known, None)


def paper_level(study: Study, point: Point) -> float | None:
    """Return the paper's figure that is on the scale of the study's metric."""
    figure = paper(study, point)
    if isinstance(figure, dict):
        figure = figure.get(study.sweep.metric)
    elif study.sweep.metric != "grade":
        return None
    return None if figure is None else float(figure)
