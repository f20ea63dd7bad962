"""Figures of a card: funnels, lengths, and where rows are from, drawn from the facts alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from lima_ray.results.page.bars import Bars, draw_bars
from lima_ray.results.page.blocks import Picture
from lima_ray.results.page.pictures import (
    EDGE_IN,
    GAP_IN,
    TITLE_IN,
    TITLE_POINTS,
    WIDTH_IN,
    Colours,
    draw_picture,
    place,
    shorten,
)

HISTOGRAM_IN, AXIS_IN = 0.85, 0.42
"""Height of a histogram, and of the numbers and the name of its axis below it."""
COUNTS_IN = 0.38
"""Width of the numbers beside a histogram."""
MOST_GROUPS = 12
"""Bars of a source's groups; the others are counted in one line."""


@dataclass(frozen=True)
class Figures:
    """The pictures of a card."""

    funnels: Mapping[str, Picture]
    """By source, of those of which something was read."""
    lengths: Picture | None
    groups: Picture | None


def draw_figures(facts: Mapping[str, Any], folder: Path) -> Figures:
    """Draw all figures, each to NAME.png and NAME-dark.png.

    Args:
        facts: as `collect_facts` returns them.
        folder: of the files; it is made.
    """
    folder.mkdir(exist_ok=True)
    sources, unit = facts["sources"], facts["table_1_unit"]
    funnels = {
        name: draw_picture(
            lambda colours, source=source: draw_bars([funnel_panel(source)], colours, True),
            f"Rows of {name} left after each filter",
            folder,
            f"funnel-{number}",
        )
        for number, (name, source) in enumerate(sources.items(), start=1)
        if source["funnel"]["seen"]
    }
    if not facts["rows"]["count"]:
        return Figures(funnels, None, None)
    lengths = draw_picture(
        lambda colours: draw_lengths(sources, unit, colours),
        f"Histograms of the {unit} of prompts and replies, by source",
        folder,
        "lengths",
    )
    groups = draw_picture(
        lambda colours: draw_bars(group_panels(sources), colours),
        "Rows of each source, and of its sites or categories",
        folder,
        "groups",
    )
    return Figures(funnels, lengths, groups)


def funnel_panel(source: Mapping[str, Any]) -> Bars:
    """Return a source's rows seen, left after each filter that dropped some, and chosen."""
    funnel = source["funnel"]
    steps = [step for step in funnel["steps"] if step["dropped"]]
    labels = ["seen", *(f"− {filter_name(step['filter'])}" for step in steps), "chosen"]
    counts = [funnel["seen"], *(step["left"] for step in steps), funnel["chosen"]]
    return Bars(labels, counts, has_result=True)


def filter_name(filter: str) -> str:
    """Return a filter's name as people read it."""
    return filter.replace("_", " ")


def group_panels(sources: Mapping[str, Any]) -> list[Bars]:
    """Return a panel of the sources, and one for each that has several groups."""
    panels = [Bars(list(sources), [s["chosen"] for s in sources.values()], "Sources")]
    for name, source in sources.items():
        groups = source["groups"]
        if len(groups) < 2:
            continue
        has_rest = len(groups) > MOST_GROUPS + 1
        shown = list(groups)[: MOST_GROUPS if has_rest else None]
        labels, counts = [group or "(none)" for group in shown], [groups[g] for g in shown]
        if has_rest:
            labels.append(f"{len(groups) - len(shown)} others, in all")
            counts.append(source["chosen"] - sum(counts))
        panels.append(Bars(labels, counts, name, has_rest=has_rest))
    return panels


def draw_lengths(sources: Mapping[str, Any], unit: str, colours: Colours) -> Figure:
    """Draw histograms of prompts and replies beside each other, a source below the other."""
    shown = {name: source["lengths"] for name, source in sources.items() if source["chosen"]}
    row_in = TITLE_IN + HISTOGRAM_IN + AXIS_IN + GAP_IN
    figure = Figure(figsize=(WIDTH_IN, row_in * len(shown)))
    half = (WIDTH_IN - EDGE_IN) / 2
    for column, (side, what) in enumerate((("prompts", "a prompt"), ("replies", "a reply"))):
        limits = limits_of([lengths[side][unit] for lengths in shown.values()])
        left = column * half + COUNTS_IN
        for row, (name, lengths) in enumerate(shown.items()):
            top = row * row_in + TITLE_IN
            axes = place(figure, left, top, half - COUNTS_IN - EDGE_IN, HISTOGRAM_IN)
            if column == 0:
                most_in = WIDTH_IN - COUNTS_IN - EDGE_IN
                axes.set_title(shorten(name, most_in, TITLE_POINTS), pad=5)
            draw_histogram(axes, lengths[side][unit], limits, colours)
            axes.set_xlabel(f"{unit} {what}", color=colours.soft, fontsize=8, labelpad=1)
    return figure


def limits_of(lengths: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the ends of an axis for several histograms: the shortest and longest text."""
    filled = [
        (edges[i], edges[i + 1])
        for one in lengths
        for edges in [one["histogram"]["edges"]]
        for i, count in enumerate(one["histogram"]["counts"])
        if count
    ]
    if not filled:
        return 1, 100
    first, last = min(start for start, _ in filled), max(end for _, end in filled)
    return max(first, 0.5) / 1.2, last * 1.2


def draw_histogram(
    axes: Axes, lengths: Mapping[str, Any], limits: tuple[float, float], colours: Colours
) -> None:
    """Draw how many texts have which length, and where the median is; the axis is logarithmic."""
    first, last = limits
    axes.set(xscale="log", xlim=limits)
    axes.tick_params(labelsize=8)
    # A narrow axis may hold no power of ten.
    steps = (1, 2, 5) if last < 30 * first else (1, 3) if last < 300 * first else (1,)
    axes.xaxis.set(major_locator=LogLocator(subs=steps, numticks=9), major_formatter="{x:,g}")
    axes.xaxis.set_minor_locator(NullLocator())
    edges, counts = lengths["histogram"]["edges"], lengths["histogram"]["counts"]
    if not counts:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no replies", transform=axes.transAxes, ha="center", color=colours.soft)
        return
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    starts = [max(edge, 0.5) for edge in edges[:-1]]
    widths = [end - start for start, end in zip(starts, edges[1:], strict=True)]
    axes.bar(starts, counts, widths, align="edge", color=colours.bar, linewidth=0)
    axes.set_ylim(0, max(counts) * 1.35)
    median = max(lengths["median"], 0.5)
    axes.axvline(median, color=colours.result, linewidth=1.2)
    is_left = median * median < first * last
    axes.annotate(
        f"median {lengths['median']:,.0f}",
        (median, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3 if is_left else -3, 0),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="top",
        fontsize=8,
    )
