"""Charts of a study's points along one axis: means with 95 % intervals, seeds as dots.

A hollow mark or a hatched bar is the paper's own figure. The colours are Okabe and Ito's, which
colour-blind readers tell apart.
"""

import math
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator
from matplotlib.transforms import offset_copy

from lima_ray.results.metric_unit import Unit
from tune.axis import short
from tune.reports.tables import reference
from tune.reports.wording import AUDIT, audit, paper, paper_level, unit_of
from tune.results import Study
from tune.space import Point

INK, GREY, PALE = "#333333", "#767676", "#e4e4e4"
BLUE, SKY, VERMILION = "#0072b2", "#56b4e9", "#d55e00"
SHARES = dict(zip(AUDIT, ((BLUE, "white"), (SKY, INK), (PALE, INK)), strict=True))
"""Fill and text of each part of a stacked bar."""
HOLLOW: dict[str, Any] = {"marker": "D", "markersize": 8, "linestyle": "none", "zorder": 4}
HOLLOW |= {"markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 1.4}
DOT: dict[str, Any] = {"marker": "o", "markersize": 5.5, "linestyle": "none", "zorder": 4}
DOT |= {"markerfacecolor": "#707070", "markeredgecolor": "white", "markeredgewidth": 0.6}
LOG_SPAN = 8
"""Numbers that span so many times or more stand on a logarithmic axis."""
LEAST_SPAN = 0.3
"""Part of a metric's range that an axis shows at least, so that small differences look small."""
LEAST_SHOWN = 6
"""Percent of a stacked bar that has room for its number."""


@dataclass(frozen=True)
class Mark:
    """What is drawn of a point that is done, in the metric's unit."""

    mean: float
    low: float
    high: float
    means_S: np.ndarray
    """Mean of each seed."""

    @property
    def reach(self) -> np.ndarray:
        """How far the interval reaches below and above the mean, as matplotlib takes it."""
        return np.maximum([[self.mean - self.low], [self.high - self.mean]], 0)


def mark(study: Study, point: Point) -> Mark:
    unit, found = unit_of(study), study.estimate(point)
    means_S = unit.factor * np.nanmean(study.values_SP(point), axis=1)
    return Mark(unit.factor * found.mean, *unit.ends(found), means_S)


def missing(study: Study, point: Point) -> str:
    ended = {outcome.status for outcome in study.of(point)}
    return "failed" if "failed" in ended else "stopped early" if ended else "not run"


def places(study: Study, axis: str) -> list[float] | None:
    """Return the points' values on an axis of numbers; none where it has others."""
    try:
        return [float(point.labels[axis]) for point in study.points]
    except ValueError:
        return None


def logarithmic(values: list[float]) -> bool:
    """Return whether numbers are seen better on a logarithmic axis."""
    return min(values) > 0 and max(values) >= LOG_SPAN * min(values)


def bars(study: Study, axes: Any) -> None:
    """Draw a bar for each point (LIMA's figure 5)."""
    unit = unit_of(study)
    names = [", ".join(point.labels.values()) or point.name for point in study.points]
    for x, point in enumerate(study.points):
        if study.done(point):
            shown = mark(study, point)
            height = shown.mean - unit.lowest
            axes.bar(x, height, 0.5, unit.lowest, color=SKY, linewidth=0)
            whiskers(axes, x, shown, INK)
            annotate(
                axes, unit.text(shown.mean), (x, shown.mean), (-5, 4), ha="right", fontweight="bold"
            )
        else:
            annotate(axes, missing(study, point), (x, unit.lowest), (0, 6), ha="center", color=GREY)
        if (level := paper_level(study, point)) is not None:
            axes.plot(x - 0.36, level, **HOLLOW)
            annotate(axes, f"{level:g}", (x - 0.36, level), (0, 8), ha="center", color=GREY)
    axes.set_xticks(range(len(names)), [fill(name, 18) for name in names])
    room = 1.0 if len(names) < 3 else 0.6
    axes.set(xlim=(-room, len(names) - 1 + room), ylim=(unit.lowest, top(axes, unit)))
    axes.set(xlabel=" and ".join(map(short, study.sweep.axes)), ylabel=unit.heading)
    axes.grid(axis="y", color=PALE)


def line(study: Study, axes: Any) -> None:
    """Draw the metric over a number (LIMA's figure 6)."""
    unit, (axis,) = unit_of(study), study.sweep.axes
    at = dict(zip((p.number for p in study.points), places(study, axis) or [], strict=True))
    done = sorted((p for p in study.points if study.done(p)), key=lambda p: at[p.number])
    shown = {point.number: mark(study, point) for point in done}
    if equal := margin(study):
        start, half = shown[equal[0].number].mean, equal[1]
        axes.axhspan(start - half, start + half, color=PALE, alpha=0.6, linewidth=0, zorder=0)
    means = [(at[number], one.mean) for number, one in shown.items()]
    style = "none" if study.sweep.random else "-"
    axes.plot(*zip(*means, strict=True), "o", linestyle=style, color=BLUE, markersize=7)
    for number, one in shown.items():
        whiskers(axes, at[number], one, BLUE)
    for point in study.points:
        if (level := paper_level(study, point)) is not None:
            axes.plot(at[point.number], level, **HOLLOW)
    axes.set(xlabel=short(axis), ylabel=unit.heading, ylim=span(axes, unit))
    if logarithmic(list(at.values())):
        axes.set(xscale="log", xlabel=f"{short(axis)} (logarithmic)")
        axes.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}")
    if not study.sweep.random:
        axes.set_xticks(list(at.values()), [f"{x:,g}" for x in at.values()])
    axes.minorticks_off()
    for point in study.points:
        if point.number not in shown:
            why = (at[point.number], axes.get_ylim()[0])
            annotate(axes, missing(study, point), why, (0, 6), ha="center", color=GREY)
    axes.grid(axis="y", color=PALE)


def stacked(study: Study, axes: Any) -> None:
    """Stack excellent, pass and fail of each point, the paper's beside them (LIMA's figure 7)."""
    names: list[str] = []
    for point in study.points:
        name = ", ".join(point.labels.values()) or point.name
        if study.done(point):
            parts(axes, -len(names), audit(study, point))
            shown = mark(study, point)
            above = -len(names) + 0.37
            style = {"color": INK, "capsize": 3, "linewidth": 1.2}
            axes.errorbar(shown.mean, above, xerr=shown.reach, fmt="|", **style)
            axes.plot(shown.means_S, [above] * len(shown.means_S), **DOT)
        else:
            axes.text(1, -len(names), missing(study, point), va="center", color=GREY)
        names.append(name)
        figures = paper(study, point)
        if isinstance(figures, dict) and set(figures) == set(AUDIT):
            parts(axes, -len(names), [figures[part] for part in AUDIT], hatch="////")
            names.append(f"{name}, paper")
    axes.set_yticks([-y for y in range(len(names))], names)
    for part, (colour, _) in SHARES.items():
        axes.bar(0, 0, color=colour, label=part)
    axes.figure.legend(loc="outside lower center", ncols=len(AUDIT), frameon=False)
    kind = " and ".join(map(short, study.sweep.axes))
    axes.set(xlim=(0, 100), xlabel="replies, %", ylabel=kind, ylim=(0.6 - len(names), 0.6))
    axes.tick_params(axis="y", length=0)


def parts(axes: Any, y: float, shares: list[float], hatch: str = "") -> None:
    """Draw one stacked bar, its numbers inside."""
    left = 0.0
    for (colour, ink), share in zip(SHARES.values(), shares, strict=True):
        axes.barh(y, share, 0.5, left, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
        if share >= LEAST_SHOWN:
            box = {"facecolor": colour, "edgecolor": "none", "pad": 1.5}
            place = (left + share / 2, y)
            axes.text(*place, f"{share:.1f}", ha="center", va="center", color=ink, bbox=box)
        left += share


def margin(study: Study) -> tuple[Point, float] | None:
    """Return the point and margin within which the claim calls others equal to it, if it does."""
    expect = study.sweep.expect
    if expect is None or expect.within is None:
        return None
    start = reference(study, study.points[-1])
    return (start, unit_of(study).factor * expect.within) if study.done(start) else None


def whiskers(axes: Any, x: float, shown: Mark, colour: str) -> None:
    """Draw a mean's interval, and its seeds beside it."""
    axes.errorbar(x, shown.mean, shown.reach, color=colour, capsize=5, clip_on=False, zorder=3)
    for number, mean in enumerate(shown.means_S):  # side by side, so that equal ones all show
        beside = 9 + 4.5 * number
        aside = offset_copy(axes.transData, axes.figure, x=beside, units="points")
        axes.plot(x, mean, transform=aside, **DOT)


def annotate(
    axes: Any, text: str, at: tuple[float, float], away: tuple[int, int], **how: Any
) -> None:
    """Draw text so many points away from a place."""
    axes.annotate(text, at, away, textcoords="offset points", **how)


def top(axes: Any, unit: Unit) -> float:
    """Return the highest value possible; of a unit without one, the highest that is drawn."""
    return axes.get_ylim()[1] if math.isinf(unit.highest) else unit.highest


def span(axes: Any, unit: Unit) -> tuple[float, float]:
    """Return the vertical axis' ends: what is drawn, but not much less than what is possible."""
    low, high = axes.get_ylim()
    least = LEAST_SPAN * (top(axes, unit) - unit.lowest)
    lacking = max(0.0, least - (high - low)) / 2
    return max(unit.lowest, low - lacking), min(unit.highest, high + lacking)
