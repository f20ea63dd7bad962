"""Pictures of results, as SVG that is the same whenever the figures are."""

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.page.result import OURS, Figure

mpl.use("Agg")
from matplotlib import pyplot as plt

plt.rcParams |= {
    "svg.hashsalt": "benchmarks",
    "svg.fonttype": "path",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:gray")
STYLES = ("solid", "dashed", (0, (1, 2)), "dashdot")
"""By turns, so that equal lines show through each other."""
LINE: Any = {"marker": "o", "markersize": 4, "linewidth": 2}
WIDE = 10.0
"""An axis goes by logarithms where its values differ so many times."""


def draw(figures: list[Figure], file: Path) -> None:
    """Draw one quantity: lines over numbers, or bars by case; ends are the extreme samples."""
    size = (7.5, 4.0) if has_axis(figures) else (8.5, bars_height(figures))
    picture, axis = plt.subplots(figsize=size, layout="constrained")
    picture.patch.set_facecolor("white")
    (draw_lines if has_axis(figures) else draw_bars)(axis, figures)
    if len({one.who for one in figures}) > 1:
        axis.legend(frameon=False, fontsize=9)
    file.parent.mkdir(parents=True, exist_ok=True)
    undated: Any = {"Date": None, "Creator": None}
    picture.savefig(file, metadata=undated)
    plt.close(picture)


def has_axis(figures: list[Figure]) -> bool:
    return all(one.x is not None for one in figures)


def bars_height(figures: list[Figure]) -> float:
    cases = len({one.case for one in figures})
    return 1.0 + 0.22 * len(figures) + 0.12 * cases


def contenders(figures: list[Figure]) -> list[str]:
    """Return ours first, then the others as they come."""
    names = dict.fromkeys(one.who for one in figures)
    return [OURS] * (OURS in names) + [name for name in names if name != OURS]


def draw_bars(axis: plt.Axes, figures: list[Figure]) -> None:
    names = contenders(figures)
    cases = list(dict.fromkeys(one.case for one in figures))
    place, middle = 0.0, []
    for case in cases:
        found = [f for name in names for f in figures if (f.case, f.who) == (case, name)]
        for figure in found:
            colour = COLOURS[names.index(figure.who) % len(COLOURS)]
            first = not any(b.get_label() == figure.who for b in axis.containers)
            axis.barh(
                place,
                figure.median,
                height=0.8,
                color=colour,
                label=figure.who if first else f"_{figure.who}",
            )
            if len(figure.samples) > 1:
                axis.hlines(place, figure.low, figure.high, color="black", linewidth=1.2)
            axis.annotate(
                f"{figure.median:,.3g}" if figure.median < 1000 else f"{figure.median:,.0f}",
                (max(figure.median, figure.high), place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
            place += 1
        middle.append(place - (len(found) + 1) / 2)
        place += 0.6
    axis.set_yticks(middle, cases)
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.xaxis.set_major_formatter("{x:,g}")
    axis.set_xlabel(f"{figures[0].what}, {figures[0].unit}")


def draw_lines(axis: plt.Axes, figures: list[Figure]) -> None:
    for number, name in enumerate(contenders(figures)):
        own = sorted((f for f in figures if f.who == name), key=lambda f: f.x or 0)
        x = [f.x or 0.0 for f in own]
        colour = COLOURS[number % len(COLOURS)]
        axis.plot(
            x,
            [f.median for f in own],
            **LINE,
            linestyle=STYLES[number % len(STYLES)],
            color=colour,
            label=name,
        )
        if any(len(f.samples) > 1 for f in own):
            low, high = [f.low for f in own], [f.high for f in own]
            axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    xs = sorted({f.x for f in figures if f.x})
    if xs and xs[-1] / xs[0] >= 8:
        axis.set_xscale("log", base=2)
    axis.set_xticks(xs, [f"{x:,.3g}" if x < 1000 else f"{x:,.0f}" for x in xs])
    axis.minorticks_off()
    values = np.array([v for f in figures for v in f.samples])
    if values.min() > 0 and values.max() / values.min() > WIDE:
        axis.set_yscale("log", base=2)
    else:
        axis.set_ylim(bottom=0)
    axis.set_xlabel(figures[0].axis)
    axis.set_ylabel(figures[0].unit)
    axis.set_title(figures[0].what, fontsize=10)
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.grid(alpha=0.25)


def slug(text: str) -> str:
    """Return a text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
