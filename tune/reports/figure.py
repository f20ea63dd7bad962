"""The picture of a study, in the form of the paper's: which chart it is, its title and its frame.

what varies                            picture
epochs, where the study compares them  value and perplexity over epochs (LIMA's figure 9)
one axis of names                      bars (figure 5)
one axis of numbers                    a line (figure 6)
one axis, a few points audited         stacked bars of excellent, pass and fail (figure 7)
two grids                              a heat map
more, or drawn at random               parallel coordinates
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lima_ray.results.intervals import Estimate
from lima_ray.results.metric_unit import Unit
from lima_ray.results.units import counted
from tune.reports.charts import BLUE, GREY, INK, VERMILION, bars, line, margin, places, stacked
from tune.reports.epochs import Epoch, epochs
from tune.reports.multi_axis_charts import heat_map, parallel
from tune.reports.wording import AUDIT, audited, dev_unit, paper, paper_level, unit_of
from tune.results import Study

mpl.use("Agg")

from matplotlib import pyplot as plt

SIZE, DPI = (8, 4.5), 150
MARGIN_IN = 0.1
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": 10.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "hatch.color": "white",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
FEW = 6
"""Points that stacked bars have room for."""
Chart = Callable[[Study, Any], None]
KEYS: dict[Chart, str] = {
    bars: "dots are seeds",
    line: "dots are seeds",
    stacked: "whiskers and dots (seeds): {metric}",
    heat_map: "framed: best on the dev prompts",
    parallel: "thick: best on the dev prompts",
}
"""What a chart's reader has to know."""


def draw(study: Study) -> list[Path]:
    """Draw a study to `figure.png`, or a picture for each point's epochs; return the pictures."""
    done = [point for point in study.points if study.done(point)]
    if not study.sweep.every_epoch:
        return [draw_points(study, study.path / "figure.png")] if done else []
    drawn = []
    for point in done:
        if found := epochs(study, point):
            name = "figure.png" if len(study.points) == 1 else f"figure-{point.number + 1}.png"
            drawn.append(draw_epochs(study, point.name, found, study.path / name))
    return drawn


def draw_points(study: Study, path: Path) -> Path:
    """Draw the points of a study by the chart that fits its axes."""
    chart, unit = chart_of(study), unit_of(study)
    what = "verdicts on replies" if chart is stacked else unit.name
    estimates = [study.estimate(point) for point in study.points if study.done(point)]
    words = [basis(estimates), KEYS[chart].format(metric=study.sweep.metric)]
    if chart in (bars, line) and any(paper_level(study, p) is not None for p in study.points):
        words.append("hollow: the paper")
    if chart is stacked and any(isinstance(paper(study, p), dict) for p in study.points):
        words.append("hatched: the paper")
    if chart is line and (equal := margin(study)):
        words.append(f"grey: within {equal[1]:g} of {equal[0].name}")
    if chart is parallel and len(estimates) < len(study.points):
        words.append(f"{counted(len(study.points) - len(estimates), 'point')} without results")
    return framed(chart, study, what, words, path)


def draw_epochs(study: Study, name: str, found: list[Epoch], path: Path) -> Path:
    unit = dev_unit(study)
    what = f"dev {unit.noun} and held-out perplexity"
    what += f", {name}" if len(study.points) > 1 else ""
    words = [basis([epoch.value for epoch in found], "dev prompt"), "thin lines are seeds"]
    return framed(lambda _, axes: curves(found, unit, axes), study, what, words, path)


def framed(chart: Chart, study: Study, what: str, words: list[str], path: Path) -> Path:
    """Draw a chart under its title and the words that explain it."""
    with mpl.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(h_pad=MARGIN_IN, w_pad=MARGIN_IN)
        figure, axes = plt.subplots(figsize=SIZE, layout=layout)
        axes.set_title(f"{study.sweep.name}: {what}", pad=26)
        place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        axes.annotate("; ".join(words), (0, 1), (0, 10), color=GREY, fontsize=9, **place)
        chart(study, axes)
        figure.savefig(path, dpi=DPI)
        plt.close(figure)
    return path


def chart_of(study: Study) -> Chart:
    axes = list(study.sweep.axes)
    if len(axes) > 2 or (len(axes) == 2 and study.sweep.random):
        return parallel
    if len(axes) == 2:
        return heat_map
    parts = study.sweep.metric in AUDIT or study.sweep.metric == "accepted"
    if parts and len(study.points) <= FEW and audited(study):
        return stacked
    return line if axes and places(study, axes[0]) else bars


def curves(found: list[Epoch], unit: Unit, axes: Any) -> None:
    """Draw dev values and held-out perplexity over epochs (LIMA's figure 9), seeds thin."""
    x = [epoch.number for epoch in found]
    seeds: dict[str, Any] = {"linewidth": 0.9, "alpha": 0.4}
    ends = [unit.ends(epoch.value) for epoch in found]
    axes.fill_between(x, *zip(*ends, strict=True), color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(x, [unit.factor * epoch.values_S for epoch in found], color=BLUE, **seeds)
    axes.plot(x, [unit.factor * epoch.value.mean for epoch in found], "o-", color=BLUE, linewidth=2)
    axes.set_ylabel(f"dev {unit.heading}", color=BLUE)
    axes.set(xlabel="epoch", xticks=x, ylim=(unit.lowest, unit.highest))
    perplexity_ES = np.array([epoch.perplexity_S for epoch in found])
    if np.isnan(perplexity_ES).any():
        return
    right = axes.twinx()
    right.plot(x, perplexity_ES, color=VERMILION, **seeds)
    right.plot(x, perplexity_ES.mean(axis=1), "s--", color=VERMILION, linewidth=2)
    right.set_ylabel("perplexity of held-out replies", color=VERMILION)
    right.spines["right"].set_visible(True)


def basis(estimates: list[Estimate], prompt: str = "prompt") -> str:
    """Describe what intervals are over, of points that may have different seeds done."""
    fewest = min(found.n_seeds for found in estimates)
    most = max(found.n_seeds for found in estimates)
    seeds = counted(most, "seed") if fewest == most else f"{fewest} to {most} seeds"
    prompts = counted(max(found.n_prompts for found in estimates), prompt)
    return f"95 % intervals over {seeds} and {prompts}"
