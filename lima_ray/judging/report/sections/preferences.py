"""Pairs: win, tie and lose of each two systems by each judge, as LIMA's figures 1 and 2."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lima_ray.judging.report.loading import PEOPLE, VOTES, StudyVerdicts
from lima_ray.judging.report.sections.pairs import PairByJudge, compare_pairs
from lima_ray.judging.report.sections.section import (
    INTERVALS,
    Section,
    count_cells,
    counts,
    ends,
    percent,
    percent_text,
    rate_cells,
)
from lima_ray.judging.report.tables import Cell
from lima_ray.results.metric_unit import format_p
from lima_ray.results.page.blocks import Block, Columns, Heading, Items, Line, Small, Table, text
from lima_ray.results.page.pictures import draw_picture
from lima_ray.results.page.shares import SharesBar, SharesPanel, draw_shares
from lima_ray.results.published.lima import OPPONENTS, Opponent, Shares, find_opponent
from lima_ray.results.statistics.calibration import Corrected
from lima_ray.results.units import counted

OUTCOMES = ("win", "tie", "lose")


def preference_section(study: StudyVerdicts, folder: Path, paper: bool) -> Section | None:
    """Return the bars and tables of all pairs; none where no pairs were judged.

    Args:
        folder: for pictures; it is there.
        paper: show LIMA's bars whatever the systems are called.
    """
    rows = compare_pairs(study)
    if not rows:
        return None
    blocks: list[Block] = [Heading("Which is preferred"), text(INTERVALS, " p tests win = lose.")]
    blocks += [_figures(rows, folder, paper), _table(rows)]
    tables = {"preference": [_cells(row) for row in rows]}
    if corrected := [row for row in rows if row.corrected]:
        blocks += [*_correction(corrected)]
        tables["corrected_preference"] = [c for row in corrected for c in _corrected_cells(row)]
    summary = []
    for row in rows:
        win, tie, lose = row.found.rates.values()
        told = f"win {percent_text(win)}, tie {100 * tie.value:.1f}, lose {100 * lose.value:.1f} %"
        summary.append((f"{' against '.join(row.pair)}, {row.judge}", told))
    return Section(blocks, tables, summary)


def _figures(rows: Sequence[PairByJudge], folder: Path, paper: bool) -> Columns:
    """Draw people's verdicts (figure 1) and each model's (figure 2), the paper's beside them."""
    columns: list[list[Block]] = []
    for judge in dict.fromkeys(row.judge for row in rows):
        is_model = judge not in (PEOPLE, VOTES)
        of_judge = [row for row in rows if row.judge == judge]
        panels = [SharesPanel(" against ".join(row.pair), _bars(row, is_model)) for row in of_judge]
        if paper:
            there = [find_opponent(*row.pair) for row in of_judge]
            panels += [
                SharesPanel(f"LIMA against {one.name}", [_published(one, is_model)])
                for one in OPPONENTS
                if one not in there
            ]
        picture = draw_picture(
            partial(draw_shares, panels, OUTCOMES),
            f"Win, tie and lose of each pair by {judge}",
            folder,
            f"preference-{len(columns) + 1}",
        )
        columns.append([Heading(f"By {judge}", 3), picture])
    return Columns(columns)


def _bars(row: PairByJudge, is_model: bool) -> list[SharesBar]:
    rates = row.found.rates
    many = counted(row.found.win.n_read, "verdict")
    bars = [
        SharesBar(
            f"{row.judge}, {many} on {counted(row.found.win.n_prompts, 'prompt')}",
            tuple(rates[name].value for name in OUTCOMES),
            ends(rates["win"]),
            ends(rates["lose"]),
        )
    ]
    if row.corrected and not row.corrected["win"].problem:
        one = row.corrected
        bars.append(
            SharesBar(
                f"{row.judge}, corrected by people",
                tuple(one[name].value for name in OUTCOMES),
                (one["win"].low, one["win"].high),
                (one["lose"].low, one["lose"].high),
            )
        )
    if opponent := find_opponent(*row.pair):
        bars.append(_published(opponent, is_model))
    return bars


def _published(opponent: Opponent, is_model: bool) -> SharesBar:
    shares: Shares = opponent.gpt4 if is_model else opponent.people
    who = "GPT-4" if is_model else "people"
    label = f"the paper: LIMA against {opponent.name}, {who}"
    return SharesBar(label, tuple(share / sum(shares) for share in shares), is_published=True)


def _table(rows: Sequence[PairByJudge]) -> Table:
    headings = ["pair", "judge", "win, %", "tie, %", "lose, %", "win + half the ties, %", "p"]
    lines = []
    for row in rows:
        shares: list[Line] = [percent(rate) for rate in row.found.rates.values()]
        p = format_p(row.found.margin.p)
        told = [percent(row.found.score), p, *counts(row.found.win)]
        lines.append([" against ".join(row.pair), row.judge, *shares, *told])
    return Table([*headings, "verdicts", "prompts", "not read"], lines, text_columns=2)


def _correction(rows: Sequence[PairByJudge]) -> list[Block]:
    """Return raw and corrected shares, and by which items, or why there are none."""
    lines: list[list[Line]] = []
    notes = []
    for row in rows:
        assert row.corrected
        pair, problem = " against ".join(row.pair), row.corrected["win"].problem
        told = f"not corrected: {problem} ({row.calibration})" if problem else row.calibration
        notes.append(f"{pair}, {row.judge}: {told}.")
        if not problem:
            shares = [row.corrected[name] for name in OUTCOMES]
            lines.append([pair, row.judge, *map(_corrected, shares)])
    headings = ["pair", "judge", *(f"{name}, %" for name in OUTCOMES)]
    return [
        Heading("Corrected by people", 3),
        text(
            "A judge errs, and people who judged some of the same items show how. Raw → corrected "
            "by the judge's confusion matrix against people; the interval holds both errors, of "
            "the judged sample and of these items."
        ),
        *([Table(headings, lines, text_columns=2)] if lines else []),
        Items(notes),
    ]


def _corrected(one: Corrected) -> Line:
    ends = Small(f"[{100 * one.low:.1f}, {100 * one.high:.1f}]")
    return f"{100 * one.raw:.1f} → {100 * one.value:.1f} ", ends


def _cells(row: PairByJudge) -> dict[str, Cell]:
    cells: dict[str, Cell] = {"system": row.pair[0], "other": row.pair[1], "judge": row.judge}
    for name, rate in {**row.found.rates, "score": row.found.score}.items():
        cells |= rate_cells(name, rate)
    opponent = find_opponent(*row.pair)
    printed = opponent and (opponent.people if row.judge in (PEOPLE, VOTES) else opponent.gpt4)
    cells |= {"p": row.found.margin.p, **count_cells(row.found.win)}
    for number, name in enumerate(OUTCOMES):
        cells[f"paper_{name}"] = printed[number] / 100 if printed else None
    return cells


def _corrected_cells(row: PairByJudge) -> list[dict[str, Cell]]:
    assert row.corrected
    start: dict[str, Cell] = {"system": row.pair[0], "other": row.pair[1], "judge": row.judge}
    return [
        {
            **start,
            "outcome": name,
            "raw": one.raw,
            "corrected": one.value,
            "low": one.low,
            "high": one.high,
            "calibration": row.calibration,
            "problem": one.problem,
        }
        for name, one in row.corrected.items()
    ]
