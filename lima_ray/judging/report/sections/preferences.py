"""Pairs: win, tie and lose of each two systems by each judge, as LIMA's figures 1 and 2."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lima_ray.judging.report.loading import PEOPLE, VOTES, StudyVerdicts
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
from lima_ray.records.verdict import Verdict
from lima_ray.results.metric_unit import format_p
from lima_ray.results.page.blocks import Block, Heading, Line, Small, Table, text
from lima_ray.results.page.pictures import draw_picture
from lima_ray.results.page.shares import SharesBar, SharesPanel, draw_shares
from lima_ray.results.published.lima import OPPONENTS, Opponent, Shares, find_opponent
from lima_ray.results.statistics.calibration import Corrected, corrected_shares
from lima_ray.results.statistics.preference import POINTS, Preference
from lima_ray.results.statistics.verdict_table import Comparison, comparisons, preference
from lima_ray.results.units import counted

OUTCOMES = ("win", "tie", "lose")
Pair = tuple[str, str]


@dataclass(frozen=True)
class PairByJudge:
    """What one judge says of one pair, from the side of the first."""

    pair: Pair
    judge: str
    found: Preference
    corrected: dict[str, Corrected] | None
    """Of a model, where people judged some of the same; by outcome."""
    calibration: str
    """Which items it is corrected by."""


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
    blocks += [*_figures(rows, folder, paper), _table(rows)]
    tables = {"preference": [_cells(row) for row in rows]}
    if corrected := [row for row in rows if row.corrected]:
        blocks += [*_correction(corrected)]
        tables["corrected_preference"] = [c for row in corrected for c in _corrected_cells(row)]
    summary = []
    for row in rows:
        told = ", ".join(f"{name} {percent_text(rate)} %" for name, rate in row.found.rates.items())
        summary.append((f"{row.pair[0]} against {row.pair[1]}, {row.judge}", told))
    return Section(blocks, tables, summary)


def compare_pairs(study: StudyVerdicts) -> list[PairByJudge]:
    """Return every pair by every judge that judged it, pair by pair."""
    by_judge = {name: oriented(study, found) for name, found in study.by_judge.items()}
    every = [one for found in by_judge.values() for one in found]
    place = {name: number for number, name in enumerate(study.systems)}
    pairs = {(one.first, one.second) for one in every}
    rows = []
    for pair in sorted(pairs, key=lambda pair: [place[name] for name in pair]):
        for judge, found in by_judge.items():
            if not any((one.first, one.second) == pair for one in found):
                continue
            corrected, basis = None, ""
            if judge in study.models:
                corrected, basis = correct(found, by_judge.get(PEOPLE, []), pair)
            seen = preference(found, *pair)
            rows.append(PairByJudge(pair, judge, seen, corrected, basis))
    return rows


def oriented(study: StudyVerdicts, verdicts: Sequence[Verdict]) -> list[Comparison]:
    """Return pairwise verdicts from the side of the system that is reported first."""
    place = {name: number for number, name in enumerate(study.systems)}
    return [
        one.seen_from(min(one.first, one.second, key=place.__getitem__))
        for one in comparisons(verdicts)
    ]


def correct(
    judge: Sequence[Comparison], people: Sequence[Comparison], pair: Pair
) -> tuple[dict[str, Corrected] | None, str]:
    """Return a judge's shares of a pair corrected by people's verdicts on the same replies.

    The pair's own items count where they hold all outcomes; else those of all pairs do, as LIMA's
    50 shared items are spread over five. None where people judged nothing that the judge did.
    """
    of_pair = [one for one in judge if (one.first, one.second) == pair and one.outcome in POINTS]
    theirs: dict[object, list[str]] = defaultdict(list)
    for one in people:
        if one.outcome in POINTS:
            theirs[one.pair].append(one.outcome)
    both = [one for one in judge if one.outcome in POINTS and one.pair in theirs]
    own = [one for one in both if (one.first, one.second) == pair]
    found = None, ""
    for items, basis in ((own, "of this pair"), (both, "of all pairs")):
        if not items:
            continue
        labels = [(one.outcome, true, one.prompt) for one in items for true in theirs[one.pair]]
        said, true, prompts = zip(*labels, strict=True)
        shares = corrected_shares(
            [one.outcome for one in of_pair], [one.prompt for one in of_pair], true, said, prompts
        )
        number = len({one.pair for one in items})
        found = shares, f"{counted(number, 'item')} {basis} that people judged too"
        if not shares["win"].problem:
            break
    return found


def _figures(rows: Sequence[PairByJudge], folder: Path, paper: bool) -> list[Block]:
    """Draw people's verdicts (figure 1) and each model's (figure 2), the paper's beside them."""
    blocks: list[Block] = []
    for judge in dict.fromkeys(row.judge for row in rows):
        is_model = judge not in (PEOPLE, VOTES)
        panels = []
        for row in rows:
            if row.judge == judge:
                panels.append(SharesPanel(" against ".join(row.pair), _bars(row, is_model)))
        if paper:
            panels += [
                SharesPanel(f"LIMA against {one.name}", [_published(one, is_model)])
                for one in OPPONENTS
            ]
        name = f"preference-{len(blocks) + 1}"
        picture = draw_picture(
            lambda colours, panels=panels: draw_shares(panels, OUTCOMES, colours),
            f"Win, tie and lose of each pair by {judge}", folder, name,
        )  # fmt: skip
        blocks += [Heading(f"By {judge}", 3), picture]
    return blocks


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
    """Return raw and corrected shares, or why there are none."""
    lines: list[list[Line]] = []
    for row in rows:
        assert row.corrected
        line: list[Line] = [" against ".join(row.pair), row.judge]
        for name in OUTCOMES:
            one = row.corrected[name]
            line.append(
                "-"
                if one.problem
                else (
                    f"{100 * one.raw:.1f} → {100 * one.value:.1f} ",
                    Small(f"[{100 * one.low:.1f}, {100 * one.high:.1f}]"),
                )
            )
        problem = row.corrected["win"].problem
        line.append(f"{row.calibration}; {problem}" if problem else row.calibration)
        lines.append(line)
    headings = ["pair", "judge", *(f"{name}, %" for name in OUTCOMES), "corrected by"]
    return [
        Heading("Corrected by people", 3),
        text(
            "A judge errs, and people who judged some of the same items show how. Raw → corrected "
            "by the judge's confusion matrix against people; the interval holds both errors, of "
            "the judged sample and of these items."
        ),
        Table(headings, lines, text_columns=6),
    ]


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
