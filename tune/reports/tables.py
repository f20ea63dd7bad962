"""The tables of a study as plain text: a row for each point, or for each epoch.

A row is a mapping of headings to cells; a terminal and a page show the same rows.
"""

import math
from typing import Any

import numpy as np

from lima_ray.results.intervals import Estimate, holm_adjustment
from lima_ray.results.metric_unit import format_p
from lima_ray.results.units import counted
from tune.axis import short
from tune.reports.epochs import epochs
from tune.reports.wording import (
    AUDIT,
    UNITS,
    audit,
    audited,
    dev_unit,
    group,
    matches,
    paper,
    seeds,
    unit_of,
)
from tune.results import Study
from tune.space import Point

Row = dict[str, str]
INTERVAL = "[95 %]"
AUDITS = f"{' / '.join(AUDIT)}, %"
STOP, DIFFERENCE, P, CHOSEN = "stop, %", f"difference {INTERVAL}", "p", "epochs chosen"
PERPLEXITY = (
    "perplexity is the exponential of the loss, lower is likelier text; it does not track the "
    "quality of replies (LIMA appendix B)"
)


def point_rows(study: Study) -> list[Row]:
    """Make a row for each point, done or not; columns that no row fills are left out."""
    unit, dev, audits = unit_of(study), dev_unit(study), audited(study)
    differences = [compared(study, point) for point in study.points]
    adjusted = holm_adjustment([found.p if found else float("nan") for found in differences])
    rows = []
    for point, found, p in zip(study.points, differences, adjusted, strict=True):
        row = {short(axis): text for axis, text in point.labels.items()} or {"point": point.name}
        row["seeds"] = seeds(study, point)
        done = study.done(point)
        if done:
            row[f"{unit.heading} {INTERVAL}"] = unit.level(study.estimate(point))
            row[AUDITS] = shares(audit(study, point)) if audits else ""
            if study.sweep.metric == "perplexity":
                row["perplexity"] = f"{math.exp(study.estimate(point).mean):.3f}"
            else:
                row[STOP] = UNITS["stopped"].number(study.estimate(point, "stopped").mean)
            row[DIFFERENCE] = unit.change(found) if found else ""
            row[P] = format_p(p)
            judged = [o.chosen for o in done if o.chosen]
            row[dev_heading(study)] = dev.with_sign(study.dev_value(point)) if judged else ""
            row[CHOSEN] = ", ".join(str(quality.epoch) for quality in judged)
        row["paper"] = published(paper(study, point))
        rows.append(row)
    return filled(rows)


def epoch_rows(study: Study) -> list[Row]:
    """Make a row for each epoch of each point: what its dev replies are worth over seeds."""
    rows, unit = [], dev_unit(study)
    for point in study.points:
        for epoch in epochs(study, point):
            row = {short(axis): text for axis, text in point.labels.items()}
            row["epoch"] = str(epoch.number)
            row[f"dev {unit.heading} {INTERVAL}"] = unit.level(epoch.value)
            row[STOP] = UNITS["stopped"].number(epoch.stopped)
            known = ~np.isnan(epoch.perplexity_S)
            row["held-out perplexity"] = (
                f"{epoch.perplexity_S[known].mean():.3f}" if known.any() else ""
            )
            rows.append(row)
    return filled(rows)


def dev_heading(study: Study) -> str:
    return f"dev {dev_unit(study).noun}"


def filled(rows: list[Row]) -> list[Row]:
    """Give all rows the columns that at least one of them fills."""
    columns = dict.fromkeys(name for row in rows for name in row)
    used = [name for name in columns if any(row.get(name) for row in rows)]
    return [{name: row.get(name, "") for name in used} for row in rows]


def reference(study: Study, point: Point) -> Point:
    """Return the point to compare with: unlike it only in `expect.than`, or else the first."""
    expect = study.sweep.expect
    wanted: dict[str, Any] = point.labels | expect.than if expect and expect.than else {}
    return next((p for p in study.points if matches(p, wanted)), study.points[0])


def compared(study: Study, point: Point) -> Estimate | None:
    """Compare a point with its reference; none where there is nothing to compare.

    Where axes are drawn at random the first point is no baseline, so only a rule names one.
    """
    if study.sweep.random and study.sweep.expect is None:
        return None
    other = reference(study, point)
    both = {o.seed for o in study.done(point)} & {o.seed for o in study.done(other)}
    return study.compare(point, other) if both and other != point else None


def notes(study: Study) -> str:
    """Explain the rows of points: intervals, differences, p-values, the paper's figures."""
    expect = study.sweep.expect
    sentences = ["Intervals are 95 %, over seeds and prompts together"]
    if len(study.sweep.seeds) == 1:
        sentences = ["Intervals are 95 %, over prompts alone: one seed says nothing of others"]
    found = [compared(study, point) for point in study.points]
    if any(found):
        other = group(expect.than) if expect and expect.than else study.points[0].name
        rest = ", all else equal" if expect and len(study.sweep.axes) > 1 else ""
        sentences.append(f"differences are from {other}{rest}, over the same prompts and seeds")
    count = sum(one is not None and not math.isnan(one.p) for one in found)
    if count > 1:
        sentences.append(f"p is adjusted for {counted(count, 'comparison')} (Holm)")
    if study.sweep.metric == "perplexity":
        sentences.append(PERPLEXITY)
    if study.sweep.paper:
        sentences.append("the paper's are LIMA's own figures")
    return "; ".join(sentences) + "."


def best(study: Study, file: str) -> list[str]:
    """Say which point to train, what decided it, and where the measuring prompts favour another."""
    point = study.best()
    if point is None:
        return []
    dev = dev_unit(study)
    level = f"{dev.noun} {dev.with_sign(study.dev_value(point))}"
    sentences = [f"Best on the dev prompts: {point.name}, {level}; {file} is its recipe."]
    sentences += tie(study, point)
    unit = unit_of(study)
    first = max(study.judged(), key=lambda p: unit.rank(study.estimate(p).mean))
    levels = [study.estimate(p).mean for p in (first, point)]
    if unit.rank(levels[0]) > unit.rank(levels[1]):
        higher, lower = map(unit.with_sign, levels)
        sentences.append(
            f"On the measuring prompts {first.name} is best: {unit.name} {higher} against {lower}. "
            f"{file} follows the dev prompts."
        )
    return sentences


def tie(study: Study, point: Point) -> list[str]:
    """Say what decided between the best point and others whose dev replies are worth as much."""
    ranks = {p.name: study.dev_rank(p) for p in study.judged()}
    value, stopped = ranks.pop(point.name)
    equal = {name: rank[1] for name, rank in ranks.items() if rank[0] == value}
    if not equal:
        return []
    share = UNITS["stopped"].number
    why = f"more of its dev replies stop ({share(stopped)} %)"
    if stopped in equal.values():
        why = f"as many of its dev replies stop ({share(stopped)} %), and it comes first"
    others = "; ".join(f"{name} ({share(other)} % stop)" for name, other in equal.items())
    return [f"The dev {dev_unit(study).noun} is the same of {others}. Of {point.name} {why}."]


def shares(values: list[float]) -> str:
    return "/".join(f"{value:.1f}" for value in values)


def published(figure: Any) -> str:
    """Write the paper's figures as a cell."""
    if isinstance(figure, dict):
        if set(figure) == set(AUDIT):
            return shares([figure[name] for name in AUDIT])
        return ", ".join(f"{name} {value}" for name, value in figure.items())
    return "" if figure is None else str(figure)
