"""Values with their intervals, a line each, on one scale.

draw_dots([Dot("lima", 4.1, 3.9, 4.3, "4.10 [3.90, 4.30]")], (1, 6), LIGHT)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from lima_ray.results.page.pictures import (
    EDGE_IN,
    FONT_POINTS,
    GAP_IN,
    WIDTH_IN,
    Colours,
    place,
    shorten,
)

ROW_IN, SCALE_IN = 0.42, 0.3
"""Height of a label with its line, and of the scale below all."""
LABEL_AT, LINE_AT = 0.15, 0.3
"""Depth of the label and of the line in their row, in inches."""


@dataclass(frozen=True)
class Dot:
    label: str
    value: float
    low: float
    """NaN where there is no interval."""
    high: float
    said: str
    """The value and its interval in words, beside the label."""


def draw_dots(dots: Sequence[Dot], scale: tuple[float, float], colours: Colours) -> Figure:
    """Draw dots below each other; the scale's numbers stand below the last."""
    height = ROW_IN * len(dots) + SCALE_IN + GAP_IN
    figure = Figure(figsize=(WIDTH_IN, height))
    axes = place(figure, 2 * EDGE_IN, 0, WIDTH_IN - 4 * EDGE_IN, ROW_IN * len(dots) + GAP_IN / 2)
    axes.set(xlim=scale, ylim=(ROW_IN * len(dots) + GAP_IN / 2, 0))
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.grid(axis="x", color=colours.soft, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    for number, dot in enumerate(dots):
        y = number * ROW_IN
        label = axes.get_yaxis_transform()
        box = {"boxstyle": "square,pad=0.1", "facecolor": colours.page, "edgecolor": "none"}
        wide = WIDTH_IN - 6 * EDGE_IN
        axes.text(
            0, y + LABEL_AT, shorten(f"{dot.label}  {dot.said}", wide), transform=label, bbox=box,
            fontsize=FONT_POINTS,
        )  # fmt: skip
        if dot.low == dot.low:
            axes.plot((dot.low, dot.high), (y + LINE_AT,) * 2, color=colours.bar, linewidth=2.5)
        if dot.value == dot.value:
            axes.plot(dot.value, y + LINE_AT, "o", color=colours.result, markersize=6)
    return figure
