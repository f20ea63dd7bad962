"""Figures for light and for dark pages, narrow enough that a phone shows their text.

Figures are placed in inches, which takes a tenth of the time of matplotlib's own layout.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from lima_ray.results.page.blocks import Picture, one_line

WIDTH_IN, DPI = 4.6, 200
EDGE_IN = 0.08
TITLE_IN, GAP_IN = 0.28, 0.14
"""Height of a panel's title, and between panels."""
FONT_POINTS, TITLE_POINTS = 9, 10
HINTED = 1.05
"""How much wider letters are drawn than their outlines are, at most."""
LABEL_IN, MOST_CHARS = 1.9, 80
"""Widest label, and most characters of any name."""


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


def draw_picture(draw: Draw, alt: str, folder: Path, name: str) -> Picture:
    """Draw a figure in both themes, to NAME.png and NAME-dark.png of a folder that is there."""
    picture = Picture(alt, folder / f"{name}.png", dark := folder / f"{name}-dark.png")
    for file, colours in ((picture.file, LIGHT), (dark, DARK)):
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


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches from the figure's upper left corner."""
    wide, high = figure.get_figwidth(), figure.get_figheight()
    bottom = high - top - height
    return figure.add_axes((left / wide, bottom / high, width / wide, height / high))


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
