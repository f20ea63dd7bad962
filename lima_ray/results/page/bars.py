"""Panels of horizontal bars, each with its number beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lima_ray.results.page.pictures import (
    EDGE_IN,
    GAP_IN,
    TITLE_IN,
    TITLE_POINTS,
    WIDTH_IN,
    Colours,
    place,
    shorten,
    width_in,
)

BAR_IN = 0.24
LOG_START = 0.6
"""Where bars on a logarithmic axis begin: a bar of 1 is seen, one of 0 is not."""


@dataclass(frozen=True)
class Bars:
    """A panel of horizontal bars."""

    labels: Sequence[str]
    counts: Sequence[int]
    title: str = ""
    has_result: bool = False
    """The last bar is what the others lead to."""
    has_rest: bool = False
    """The last line counts what has no bar."""

    @property
    def height_in(self) -> float:
        """Height with title and gap."""
        return BAR_IN * len(self.counts) + GAP_IN + (TITLE_IN if self.title else 0)


def draw_bars(panels: Sequence[Bars], colours: Colours, logarithmic: bool = False) -> Figure:
    """Draw panels of horizontal bars below each other, with the number beside each bar."""
    figure = Figure(figsize=(WIDTH_IN, sum(panel.height_in for panel in panels)))
    widest = max(width_in(shorten(label)) for panel in panels for label in panel.labels)
    left, top = 2 * EDGE_IN + widest, GAP_IN / 2
    for panel in panels:
        top += TITLE_IN if panel.title else 0
        height = BAR_IN * len(panel.counts)
        axes = place(figure, left, top, WIDTH_IN - left - EDGE_IN, height)
        draw_panel(axes, panel, colours, logarithmic)
        if panel.title:
            title = shorten(panel.title, WIDTH_IN - 2 * EDGE_IN, TITLE_POINTS)
            at = EDGE_IN / WIDTH_IN, 1 - (top - 0.1) / figure.get_figheight()
            figure.text(*at, title, fontsize=TITLE_POINTS, fontweight="bold")
        top += height + GAP_IN
    return figure


def draw_panel(axes: Axes, panel: Bars, colours: Colours, logarithmic: bool) -> None:
    """Draw one panel of bars."""
    barred = panel.counts[:-1] if panel.has_rest else panel.counts
    places, start = range(len(panel.counts)), LOG_START if logarithmic else 0
    ends = [max(count, start) for count in barred] + [start] * panel.has_rest
    most = max(1, *barred)
    number_in = width_in(f"{most:,}") + EDGE_IN
    part = 1 - number_in / (axes.get_position().width * WIDTH_IN)  # of the axis, for the bars
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(start, start * (max(most, 2) / start) ** (1 / part))
    else:
        axes.set_xlim(0, most / part)
    bars = axes.barh(places, ends, 0.74, color=colours.bar)
    if panel.has_result:
        bars[-1].set_color(colours.result)
    for y, count, end in zip(places, panel.counts, ends, strict=True):
        at: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points"}
        axes.annotate(f"{count:,}", (end, y), va="center_baseline", **at)
    axes.xaxis.set(major_locator=NullLocator(), minor_locator=NullLocator())
    axes.set_yticks(places, [shorten(label) for label in panel.labels])
    axes.set_ylim(len(places) - 0.5, -0.5)  # the first bar is the highest
    axes.tick_params(left=False)
    axes.spines["bottom"].set_visible(False)
