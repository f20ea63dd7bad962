"""Charts of a study's points along two axes or more: a heat map, or parallel coordinates."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from tune.axis import short
from tune.reports.charts import GREY, INK, PALE, VERMILION, logarithmic, mark, missing, places
from tune.reports.wording import unit_of
from tune.results import Study

SHADES = ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.92, 256))).with_extremes(bad=PALE)
"""Without the last yellow, which a thin line on white loses."""
DARK = 0.6
"""Part of the scale below which text on it is white."""
TAIL = 0.5
"""Width of the intervals behind parallel coordinates, in distances between two axes."""
MOST_TICKS = 6
"""Different numbers on an axis that are all written there."""
HALO: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}


def heat_map(study: Study, axes: Any) -> None:
    """Draw the metric of a grid of two axes, with its intervals; the best on dev is framed."""
    unit = unit_of(study)
    across, up = sorted(study.sweep.axes, key=lambda axis: -len(kinds(study, axis)))
    columns, lines = kinds(study, across), kinds(study, up)
    shown = {point.number: mark(study, point) for point in study.points if study.done(point)}
    scale = scaling([one.mean for one in shown.values()])
    means = np.full((len(lines), len(columns)), np.nan)
    best = study.best()
    for point in study.points:
        x, y = columns.index(point.labels[across]), lines.index(point.labels[up])
        if point.number not in shown:
            axes.text(x, y, missing(study, point), ha="center", va="center", color=GREY)
            continue
        one = shown[point.number]
        means[y, x] = one.mean
        cell: dict[str, Any] = {"ha": "center", "color": "white" if scale(one.mean) < DARK else INK}
        axes.text(x, y, unit.text(one.mean), va="bottom", fontsize=12, weight="bold", **cell)
        ends = f"[{unit.text(one.low)}, {unit.text(one.high)}]"
        axes.text(x, y - 0.06, ends, va="top", fontsize=8.5, **cell)
        if point == best:
            frame: dict[str, Any] = {"fill": False, "edgecolor": VERMILION, "linewidth": 3}
            axes.add_patch(Rectangle((x - 0.48, y - 0.47), 0.96, 0.94, **frame))
    image = axes.imshow(means, SHADES, scale, origin="lower", aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(lines)), lines)
    axes.set(xlabel=short(across), ylabel=short(up))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(image, label=unit.heading, pad=0.02).outline.set_visible(False)


def parallel(study: Study, axes: Any) -> None:
    """Draw a line for each point across the axes to its metric and interval; best is thick."""
    unit, names = unit_of(study), list(study.sweep.axes)
    done = [point for point in study.points if study.done(point)]
    shown = {point.number: mark(study, point) for point in done}
    scale = scaling([one.mean for one in shown.values()])
    ends = [end for one in shown.values() for end in (one.low, one.mean, one.high)]
    level = scaling(ends)
    heights = [upright(study, axes, x, name) for x, name in enumerate(names)]
    axes.vlines(range(len(names) + 1), 0, 1, color=INK, linewidth=1, zorder=1)
    for value in MaxNLocator(5).tick_values(float(np.nanmin(ends)), float(np.nanmax(ends))):
        if 0 <= level(value) <= 1:
            tick(axes, len(names), float(level(value)), f"{value:g}")
    first = study.best()
    done.sort(key=lambda point: shown[point.number].mean)
    for rank, point in enumerate(done):
        one, best = shown[point.number], point == first
        path = [*(height[point.number] for height in heights), float(level(one.mean))]
        style: dict[str, Any] = {"color": SHADES(scale(one.mean)), "zorder": 3 if best else 2}
        outline = [withStroke(linewidth=5, foreground=INK)] if best else []
        axes.plot(path, linewidth=3 if best else 1.4, path_effects=outline, **style)
        aside = len(names) + TAIL * (0.2 + 0.8 * rank / max(len(done) - 1, 1))
        axes.vlines(aside, level(one.low), level(one.high), linewidth=1.4, **style)
        axes.plot(aside, level(one.mean), "o", markersize=9 if best else 5, **style)
    axes.set_xticks(range(len(names) + 1), [*map(short, names), unit.heading])
    axes.set(yticks=[], xlim=(-0.35, len(names) + TAIL + 0.05), ylim=(-0.06, 1.06))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def upright(study: Study, axes: Any, x: int, name: str) -> dict[int, float]:
    """Draw the ticks of an upright axis; return each point's crossing, 0 to 1, by its number."""
    at = places(study, name)
    if at is None:
        all_kinds = kinds(study, name)
        at = [float(all_kinds.index(point.labels[name])) for point in study.points]
        ticks = dict(enumerate(all_kinds))
    elif len(set(at)) <= MOST_TICKS:
        ticks = {value: f"{value:g}" for value in at}
    else:
        ticks = {value: f"{value:g}" for value in (min(at), max(at))}
    numeric = places(study, name) is not None
    curve = np.log if numeric and logarithmic(at) else np.asarray
    scale = scaling(curve(at).tolist())
    for value, text in ticks.items():
        tick(axes, x, float(scale(curve(value))), text)
    return {p.number: float(scale(curve(v))) for p, v in zip(study.points, at, strict=True)}


def tick(axes: Any, x: int, height: float, text: str) -> None:
    """Write a number or name beside an upright axis."""
    axes.text(x - 0.04, height, text, ha="right", va="center", fontsize=9, bbox=HALO, zorder=4)


def scaling(values: list[float]) -> Normalize:
    """Scale values from their least to their greatest to 0 to 1; a single value to the middle."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return Normalize(low, high) if low < high else Normalize(low - 1, high + 1)


def kinds(study: Study, axis: str) -> list[str]:
    """Return the labels on an axis, in the order of the sweep file."""
    return list(dict.fromkeys(point.labels[axis] for point in study.points))
