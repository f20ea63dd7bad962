"""How reports and pictures write what a study measured: units, intervals, points, the paper."""

import math
from typing import Any

from lima_ray.results.metric_unit import JUDGED, Unit, percent
from tune.axis import label, short
from tune.results import Study
from tune.space import Point

AUDIT = ("excellent", "pass", "fail")
"""Verdicts of an audit, best first."""
LOSS = Unit("loss on held-out dialogues", "loss", "nats a token", 1, 3, 0, math.inf, True)
"""The logarithm of perplexity, whose differences and intervals are those of a mean."""
UNITS = {
    **JUDGED,
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


def dev_unit(study: Study) -> Unit:
    """Return the unit of what chooses epochs and points: the verdicts on dev replies."""
    return JUDGED[study.recipe.select.metric]


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
