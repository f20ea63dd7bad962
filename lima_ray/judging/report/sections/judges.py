"""What is known of each model that judged, and which verdicts were not read."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lima_ray.judging.asking.judges import EXACT
from lima_ray.judging.passport import Passport, judges_without
from lima_ray.judging.passport_measures import measure
from lima_ray.judging.report.loading import PEOPLE, StudyVerdicts, count_unread
from lima_ray.judging.report.sections.section import Section, number, percent
from lima_ray.judging.report.tables import Cell
from lima_ray.records.verdict import Verdict
from lima_ray.results.page.blocks import Block, Heading, Items, Line, Table, text
from lima_ray.results.statistics.length import length_correlation
from lima_ray.results.statistics.verdict_table import Comparison, comparisons
from lima_ray.results.units import counted


def judge_section(study: StudyVerdicts, passports: Sequence[Path]) -> Section | None:
    """Return what is known of each model that judged, and who has no passport."""
    by_model = {
        name: found
        for name, found in study.by_judge.items()
        if name in study.models and (name != EXACT.name or any(v.kind == "pairwise" for v in found))
    }
    if not by_model:
        return None
    every = [v for found in by_model.values() for v in found]
    measured = {one.judge: one for one in _measure(every, study.by_judge.get(PEOPLE, []))}
    without = judges_without(every, [*study.folders, *passports])
    lines: list[list[Line]] = []
    cells, warnings = [], []
    for name, found in by_model.items():
        one = measured.get(name)
        passport = "missing" if name in without else "-" if name == EXACT.name else "present"
        snapshots = Counter(str(s) for v in found if (s := v.extra.get("snapshot")))
        if len(snapshots) > 1:
            told = ", ".join(
                f"{many:,} by {snapshot}" for snapshot, many in snapshots.most_common()
            )
            warnings.append(f"{name} changed within this study: {told}.")
        if name in without:
            warnings.append(
                f"{name} has no passport, so how far to trust it is not known; python -m "
                "lima_ray.judge --passport makes one."
            )
        warnings += [f"{name}: {problem}." for problem in (one.problems if one else [])]
        contradicting = sum("contradicts" in v.extra for v in found)
        correlation = _length_correlation(found)
        lines.append([name, passport, *_facts(one), _plain(correlation), str(contradicting)])
        lines[-1].append(str(len(snapshots)))
        cells.append(_judge_cells(name, passport, one, correlation, contradicting, snapshots))
    blocks: list[Block] = [
        Heading("The judges"),
        text(
            "Of pairs shown in both orders: how often both verdicts are the same, and how often "
            "the reply shown first is preferred (half of what is decided, if order does not "
            "matter). The slope is the log odds of a win per standardised length difference; the "
            "last correlation is Spearman's, of grades with lengths."
        ),
        Table(
            ["judge", "passport", "same in both orders, %", "first preferred, %",
             "slope on length", "longer preferred, %", "grade with length",
             "contradicts itself", "snapshots"],
            lines, text_columns=2,
        ),
    ]  # fmt: skip
    blocks += [Items(warnings)] if warnings else []
    summary = [("no passport", ", ".join(without))] if without else []
    return Section(blocks, {"judges": cells}, summary)


def unread_section(study: StudyVerdicts) -> Section:
    """Return how many verdicts about each system were not read, by each judge."""
    lines, cells = [], []
    for judge, found in study.by_judge.items():
        for system, many in count_unread(found).items():
            unread = many["unreadable"] + many["unanswered"]
            lines.append(
                [system, judge, f"{many.total():,}", f"{many['unreadable']:,}",
                 f"{many['unanswered']:,}", f"{100 * unread / many.total():.1f}"]
            )  # fmt: skip
            cells.append(
                {"system": system, "judge": judge, "verdicts": many.total()}
                | {status: many[status] for status in ("read", "unreadable", "unanswered")}
            )
    total = sum(not v.was_read for v in study.verdicts)
    headings = ["system", "judge", "verdicts", "unreadable", "unanswered", "not read, %"]
    blocks: list[Block] = [
        Heading("What is no verdict"),
        text(
            "An answer without a verdict, and one that never came, are neither a tie nor a grade."
        ),
        Table(headings, lines, text_columns=2),
    ]
    told = f"{counted(total, 'verdict')} of {len(study.verdicts):,}"
    return Section(blocks, {"unread": cells}, [("not read", told)])


def _measure(verdicts: Sequence[Verdict], people: Sequence[Verdict]) -> list[Passport]:
    """Return what passports measure, beside people's verdicts on pairs that a model judged."""
    pairwise = [v for v in verdicts if v.kind == "pairwise"]
    models = {one.pair for one in _pairs(pairwise)}
    shared = [v for v in people if v.kind == "pairwise" and _pairs([v])[0].pair in models]
    as_models = [v for v in pairwise if v.extra.get("annotator_kind") != "person"]
    return measure(as_models, shared, [])


def _pairs(verdicts: Sequence[Verdict]) -> list[Comparison]:
    return [one for v in verdicts for one in comparisons([v])]


def _length_correlation(verdicts: Sequence[Verdict]) -> float:
    """Return Spearman's correlation of grades with the lengths of their replies."""
    rows = [
        (v.grade, v.extra["lengths"][0])
        for v in verdicts
        if v.grade is not None and v.kind in ("grade", "audit") and v.extra.get("lengths")
    ]
    return length_correlation(*zip(*rows, strict=True)) if rows else math.nan


def _facts(one: Passport | None) -> tuple[Line, Line, Line, Line]:
    if one is None:
        return "-", "-", "-", "-"
    slope = one.length_slope
    return (
        percent(one.consistency),
        percent(one.first_slot),
        number(slope.value, slope.low, slope.high),
        percent(one.longer_preferred),
    )


def _plain(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"


def _judge_cells(
    name: str,
    passport: str,
    one: Passport | None,
    correlation: float,
    contradicting: int,
    snapshots: Counter[str],
) -> dict[str, Cell]:
    return {
        "judge": name,
        "passport": passport,
        "consistency": one.consistency.value if one else None,
        "first_slot": one.first_slot.value if one else None,
        "length_slope": one.length_slope.value if one else None,
        "longer_preferred": one.longer_preferred.value if one else None,
        "grade_length_correlation": correlation,
        "contradictions": contradicting,
        "snapshots": " ".join(snapshots),
    }
