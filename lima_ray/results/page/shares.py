"""Bars of shares that add up to the whole, such as win, tie and lose, with intervals at their ends.

panel = SharesPanel("lima against alpaca", [SharesBar("people, 300 verdicts", (0.5, 0.2, 0.3))])
draw_shares([panel], ("win", "tie", "lose"), LIGHT)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lima_ray.results.page.pictures import (
    DARK,
    EDGE_IN,
    FONT_POINTS,
    GAP_IN,
    TITLE_IN,
    TITLE_POINTS,
    WIDTH_IN,
    Colours,
    place,
    shorten,
    width_in,
)

LABEL_IN, BAR_IN, LEGEND_IN = 0.19, 0.27, 0.24
"""Height of a bar's label, of the bar, and of the legend above all."""
INSIDE_IN = 0.06
"""Left and right of a number in its part."""
WHISKER_IN = 0.045
"""From a bar's edge to the interval along it: of the first share below, of the last above."""
FILLS = (("#0072b2", "#ffffff"), ("#d9d9d9", "#222222"), ("#d55e00", "#ffffff"))
DARK_FILLS = (("#56b4e9", "#111111"), ("#4a4a4a", "#ffffff"), ("#e69f00", "#111111"))
"""Colour of the first, the middle and the last part, and of the number in it: Okabe and Ito's, with
a grey between them, which colour-blind readers tell apart."""

Interval = tuple[float, float]
Part = TypeVar("Part")


@dataclass(frozen=True)
class SharesBar:
    """A bar; NaN shares draw nothing but the label."""

    label: str
    shares: tuple[float, ...]
    """Two or three, from 0 to 1."""
    first: Interval | None = None
    """The interval of the first share, drawn at its end."""
    last: Interval | None = None
    """The interval of the last share, drawn where it begins."""
    is_published: bool = False
    """Hatched: what somebody else printed."""


@dataclass(frozen=True)
class SharesPanel:
    title: str
    bars: Sequence[SharesBar]

    @property
    def height_in(self) -> float:
        """Height with title and gap."""
        return TITLE_IN + (LABEL_IN + BAR_IN) * len(self.bars) + GAP_IN


def draw_shares(panels: Sequence[SharesPanel], names: Sequence[str], colours: Colours) -> Figure:
    """Draw panels below each other, each share with its percent, the names of the parts above."""
    height = LEGEND_IN + sum(panel.height_in for panel in panels)
    figure = Figure(figsize=(WIDTH_IN, height))
    top = LEGEND_IN
    for panel in panels:
        axes = place(
            figure, EDGE_IN, top + TITLE_IN, WIDTH_IN - 2 * EDGE_IN, panel.height_in - TITLE_IN
        )
        _draw_panel(axes, panel, colours)
        title = shorten(panel.title, WIDTH_IN - 2 * EDGE_IN, TITLE_POINTS)
        at = EDGE_IN / WIDTH_IN, 1 - (top + TITLE_IN - 0.06) / height
        figure.text(*at, title, fontsize=TITLE_POINTS, fontweight="bold")
        top += panel.height_in
    keys = [Patch(facecolor=fill, label=name) for (fill, _), name in _parts(names, colours)]
    if any(bar.is_published for panel in panels for bar in panel.bars):
        keys.append(Patch(facecolor=colours.page, edgecolor=colours.soft, hatch="////"))
        keys[-1].set_label("published")
    figure.legend(
        handles=keys, loc="upper left", ncols=len(keys), frameon=False, fontsize=FONT_POINTS,
        bbox_to_anchor=(0, 1), borderaxespad=0.2, handlelength=1.2, columnspacing=1.2,
    )  # fmt: skip
    return figure


def _draw_panel(axes: Axes, panel: SharesPanel, colours: Colours) -> None:
    """Draw bars from the top; the axes are as many inches high as the bars need."""
    row_in = LABEL_IN + BAR_IN
    width = axes.get_position().width * WIDTH_IN
    axes.set(xlim=(0, 1), ylim=(row_in * len(panel.bars) + GAP_IN, 0))
    axes.set_axis_off()
    for number, bar in enumerate(panel.bars):
        top = number * row_in
        axes.text(0, top + LABEL_IN - 0.04, shorten(bar.label, width), va="baseline")
        if any(share != share for share in bar.shares):  # NaN
            continue
        y, left = top + LABEL_IN + BAR_IN / 2, 0.0
        for (fill, ink), share in _parts(bar.shares, colours):
            with mpl.rc_context({"hatch.color": colours.page, "hatch.linewidth": 1.0}):
                hatch = "////" if bar.is_published else None
                axes.barh(y, share, BAR_IN, left, color=fill, hatch=hatch, linewidth=0)
            said = f"{100 * share:.0f} %"
            if share * width > width_in(said) + 2 * INSIDE_IN:
                box = {"boxstyle": "square,pad=0.1", "facecolor": fill, "edgecolor": "none"}
                _number(axes, left + share / 2, y, said, ink, box if bar.is_published else None)
            left += share
        edge = BAR_IN / 2 - WHISKER_IN
        if bar.first and bar.first[0] == bar.first[0]:
            _whisker(axes, bar.shares[0], bar.first, y + edge, colours)
        if bar.last and bar.last[0] == bar.last[0]:
            low, high = bar.last
            _whisker(axes, 1 - bar.shares[-1], (1 - high, 1 - low), y - edge, colours)


def _number(
    axes: Axes, x: float, y: float, said: str, ink: str, box: dict[str, str] | None
) -> None:
    axes.text(x, y, said, color=ink, ha="center", va="center_baseline", bbox=box)


def _whisker(axes: Axes, x: float, ends: Interval, y: float, colours: Colours) -> None:
    """Draw an interval along the edge of a bar, where it hides no number."""
    for width, colour in ((3.2, colours.page), (1.4, colours.ink)):
        axes.plot(ends, (y, y), color=colour, linewidth=width, solid_capstyle="butt", zorder=3)
        axes.plot(x, y, "|", color=colour, markersize=4 + width, markeredgewidth=width, zorder=3)


def _parts(values: Sequence[Part], colours: Colours) -> list[tuple[tuple[str, str], Part]]:
    """Return each part with its fill and ink; of two parts there is no middle one."""
    fills = DARK_FILLS if colours is DARK else FILLS
    chosen = fills if len(values) == 3 else (fills[0], fills[-1])
    return list(zip(chosen, values, strict=True))
