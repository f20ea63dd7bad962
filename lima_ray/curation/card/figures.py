"""Figures of a card: funnels, lengths, and where rows are from, for light and for dark pages.

They are drawn from the facts alone, narrow enough that a phone shows their text at a readable size,
and placed in inches, which takes a tenth of the time of matplotlib's own layout.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from lima_ray.curation.card.blocks import Picture, one_line

WIDTH_IN, DPI = 4.6, 200
EDGE_IN = 0.08
BAR_IN, TITLE_IN, GAP_IN = 0.24, 0.28, 0.14
FONT_POINTS, TITLE_POINTS = 9, 10
HINTED = 1.05
"""How much wider letters are drawn than their outlines are, at most."""
HISTOGRAM_IN, AXIS_IN = 0.85, 0.42
"""Height of a histogram, and of the numbers and the name of its axis below it."""
COUNTS_IN = 0.38
"""Width of the numbers beside a histogram."""
LABEL_IN, MOST_CHARS = 1.9, 80
"""Widest label, and most characters of any name."""
MOST_GROUPS = 12
"""Bars of a source's groups; the others are counted in one line."""
LOG_START = 0.6
"""Where bars on a logarithmic axis begin: a bar of 1 is seen, one of 0 is not."""


@dataclass(frozen=True)
class Colours:
    """Of one theme; those of bars are Okabe and Ito's."""

    ink: str
    soft: str
    page: str
    bar: str
    result: str


LIGHT = Colours("#222222", "#666666", "#ffffff", "#0072b2", "#d55e00")
DARK = Colours("#dddddd", "#a0a0a0", "#181818", "#56b4e9", "#e69f00")
Draw = Callable[[Colours], Figure]


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
        name: save(
            lambda colours, source=source: draw_bars([funnel_panel(source)], colours, True),
            Picture(f"Rows of {name} left after each filter", folder, f"funnel-{number}"),
        )
        for number, (name, source) in enumerate(sources.items(), start=1)
        if source["funnel"]["seen"]
    }
    if not facts["rows"]["count"]:
        return Figures(funnels, None, None)
    lengths = save(
        lambda colours: draw_lengths(sources, unit, colours),
        Picture(f"Histograms of the {unit} of prompts and replies, by source", folder, "lengths"),
    )
    groups = save(
        lambda colours: draw_bars(group_panels(sources), colours),
        Picture("Rows of each source, and of its sites or categories", folder, "groups"),
    )
    return Figures(funnels, lengths, groups)


def save(draw: Draw, picture: Picture) -> Picture:
    """Draw a figure in both themes."""
    for file, colours in ((picture.light, LIGHT), (picture.dark, DARK)):
        with mpl.rc_context(style(colours)):
            draw(colours).savefig(file, dpi=DPI)
    return picture


def style(colours: Colours) -> dict[Any, Any]:
    """Return matplotlib's settings of a theme; names of others are no formulas."""
    inks = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
    pages = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    return (
        dict.fromkeys(inks, colours.ink)
        | dict.fromkeys(pages, colours.page)
        | {
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titlesize": TITLE_POINTS,
            "axes.titleweight": "bold",
            "font.size": FONT_POINTS,
            "text.parse_math": False,
        }
    )


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


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches from the figure's upper left corner."""
    whole = figure.get_figheight()
    bottom = whole - top - height
    return figure.add_axes((left / WIDTH_IN, bottom / whole, width / WIDTH_IN, height / whole))


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


def shorten(said: str, most_in: float = LABEL_IN, points: int = FONT_POINTS) -> str:
    """Return a name cut in its middle to a width, as its start and end tell it from others."""
    name = shown = one_line(said)
    kept = min(len(name), MOST_CHARS)
    while len(shown) > MOST_CHARS or width_in(shown, points) > most_in:
        kept -= 1
        shown = f"{name[: (kept + 1) // 2]}…{name[len(name) - kept // 2 :]}"
    return shown


def width_in(label: str, points: int = FONT_POINTS) -> float:
    """Return the width of a label in inches; titles are bold."""
    font = FontProperties(size=points, weight="bold" if points == TITLE_POINTS else "normal")
    width, _, _ = TextToPath().get_text_width_height_descent(label, font, ismath=False)
    return HINTED * width / 72
