"""A league table of three systems or more: Bradley-Terry strengths with ties, by each judge."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.judging.report.loading import StudyVerdicts
from lima_ray.judging.report.sections.section import Section
from lima_ray.judging.report.tables import Cell
from lima_ray.results.page.blocks import Block, Columns, Heading, Picture, Small, Table, text
from lima_ray.results.page.dots import Dot, draw_dots
from lima_ray.results.page.pictures import draw_picture
from lima_ray.results.statistics.bradley_terry import (
    ELO_MEAN,
    ELO_SCALE,
    Strengths,
    bootstrap_strengths,
)
from lima_ray.results.statistics.preference import POINTS
from lima_ray.results.statistics.verdict_table import Comparison, compared, comparisons, strengths

LEAST_SYSTEMS = 3
MARGIN = 0.05
"""Of the scale, left and right of all intervals."""


def league_section(study: StudyVerdicts, folder: Path) -> Section | None:
    """Return the strengths of all systems by each judge; none where no judge compared three."""
    columns: list[list[Block]] = []
    cells: list[dict[str, Cell]] = []
    summary = []
    for judge, verdicts in study.by_judge.items():
        found = [one for one in comparisons(verdicts) if one.outcome in POINTS]
        if len({name for one in found for name in (one.first, one.second)}) < LEAST_SYSTEMS:
            continue
        columns.append([Heading(f"By {judge}", 3)])
        has_orders = in_both_orders(found)
        try:
            fit = strengths(found, order=has_orders)
        except UserError as error:
            columns[-1].append(text(f"There is no league table: {error}."))
            continue
        drawn = bootstrap_strengths(compared(found, order=has_orders))
        rows = [_row(judge, fit, system, drawn[system]) for system in fit.systems]
        cells += rows
        name = f"league-{len(columns)}"
        columns[-1] += [_picture(judge, rows, folder, name), _table(rows, fit)]
        summary.append((f"league by {judge}", " > ".join(fit.systems)))
    if not columns:
        return None
    intro = text(
        "Bradley-Terry strengths on the scale of chess: mean 1000, 400 points are odds of ten to "
        "one. Ties follow Davidson. Intervals: sandwich errors clustered by prompt, and the "
        "bootstrap over prompts with all their verdicts."
    )
    return Section([Heading("League table"), intro, Columns(columns)], {"league": cells}, summary)


def in_both_orders(found: Sequence[Comparison]) -> bool:
    """Tell whether some pair was shown in both orders, so that the order's effect is known."""
    shown: dict[tuple[str, str], set[bool]] = defaultdict(set)
    for one in found:
        shown[one.first, one.second].add(one.first_shown)
    return any(len(ways) > 1 for ways in shown.values())


def _row(judge: str, fit: Strengths, system: str, drawn: tuple[float, float]) -> dict[str, Cell]:
    found = fit.strengths[system]
    scaled = [ELO_MEAN + ELO_SCALE * end for end in (found.low, found.high, *drawn)]
    names = ("low", "high", "bootstrap_low", "bootstrap_high")
    cells: dict[str, Cell] = {"judge": judge, "system": system, "strength": fit.elo(system)}
    return cells | {name: float(end) for name, end in zip(names, scaled, strict=True)}


def _picture(judge: str, rows: Sequence[dict[str, Cell]], folder: Path, name: str) -> Picture:
    dots = []
    for row in rows:
        value, low, high = (float(row[key] or 0) for key in ("strength", "low", "high"))
        interval = f" [{low:.0f}, {high:.0f}]" if low == low else ""
        dots.append(Dot(str(row["system"]), value, low, high, f"{value:.0f}{interval}"))
    every = [end for dot in dots for end in (dot.value, dot.low, dot.high) if end == end]
    edge = MARGIN * (max(every) - min(every)) or 1.0
    scale = min(every) - edge, max(every) + edge
    return draw_picture(
        partial(draw_dots, dots, scale),
        f"Strength of each system by {judge}",
        folder,
        name,
    )


def _table(rows: Sequence[dict[str, Cell]], fit: Strengths) -> Table:
    lines = []
    for place, row in enumerate(rows, start=1):
        ends = {name: float(row[name] or 0) for name in list(row)[2:]}
        lines.append(
            [
                str(place),
                str(row["system"]),
                f"{ends['strength']:.0f}",
                _interval(ends["low"], ends["high"]),
                _interval(ends["bootstrap_low"], ends["bootstrap_high"]),
                f"{100 * fit.win_probability(str(row['system']), fit.systems[0]):.1f}",
            ]
        )
    headings = ["place", "system", "strength", "sandwich", "bootstrap", "beats the first, %"]
    return Table(headings, lines, text_columns=2)


def _interval(low: float, high: float) -> Small | str:
    return Small(f"[{low:.0f}, {high:.0f}]") if low == low else "-"
