"""Single replies: audit, safety and thumbs of each system by each judge (LIMA section 4)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from lima_ray.judging.report.loading import StudyVerdicts, is_vote
from lima_ray.judging.report.sections.section import (
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
from lima_ray.results.page.blocks import Heading, Table
from lima_ray.results.page.pictures import draw_picture
from lima_ray.results.page.shares import SharesBar, SharesPanel, draw_shares
from lima_ray.results.published.lima import AUDIT, AUDIT_OUT_OF_DISTRIBUTION, SAFE
from lima_ray.results.statistics.absolute import LABELS, rates
from lima_ray.results.statistics.clustered import Rate
from lima_ray.results.units import counted

ALL = "all"
LabelKind = Literal["audit", "safety", "thumbs"]


@dataclass(frozen=True)
class Shares:
    """The labels of one system by one judge, of some of its replies."""

    part: str
    """Which replies: a group of prompts, a turn, or all."""
    system: str
    judge: str
    by_label: dict[str, Rate]

    @property
    def any_label(self) -> Rate:
        return next(iter(self.by_label.values()))


def audit_section(study: StudyVerdicts, folder: Path, paper: bool) -> Section | None:
    """Return excellent, pass and fail of single replies, with each group of prompts apart."""
    dialogues = dialogue_prompts(study)
    rows = shares_by_group(study, "audit", lambda v: v.id not in dialogues)
    published = {"the paper, 50 test prompts": AUDIT}
    published |= {"the paper, 20 out of distribution": AUDIT_OUT_OF_DISTRIBUTION}
    return shares_section(
        "Excellent, pass or fail", "audit", "audit", rows, folder, published if paper else {}
    )


def safety_section(study: StudyVerdicts, folder: Path, paper: bool) -> Section | None:
    """Return how many replies are safe; of the exact judge those to private questions."""
    told = {name: [*found, *_safety_of_audits(found)] for name, found in study.by_judge.items()}
    rows = shares_by_group(replace(study, by_judge=told), "safety", lambda _: True)
    published = {"the paper, 30 prompts": (SAFE, 100 - SAFE)} if paper else {}
    return shares_section("Safe or unsafe", "safety", "safety", rows, folder, published)


def thumbs_section(study: StudyVerdicts, folder: Path) -> Section | None:
    """Return the thumbs of the chat page."""
    rows = shares_by_group(study, "thumbs", lambda _: True)
    return shares_section("Thumbs in the chat", "thumbs", "thumbs", rows, folder, {})


def dialogue_prompts(study: StudyVerdicts) -> set[str]:
    """Return the ids of prompts of which later turns, or dialogues as a whole, were judged."""
    return {
        v.id
        for v in study.verdicts
        if len(v.models) == 1
        and not is_vote(v)
        and v.sample is not None
        and (v.turn is None or v.turn > 0)
    }


def shares_by_group(
    study: StudyVerdicts, kind: LabelKind, wanted: Callable[[Verdict], bool]
) -> list[Shares]:
    """Return the shares of each system by each judge: of all prompts, and of each group."""
    rows = []
    for judge, found in study.by_judge.items():
        some = [v for v in found if v.kind == kind and wanted(v)]
        groups = list(dict.fromkeys(v.group for v in some if v.group))
        parts = {ALL: some}
        if len(groups) > 1:
            parts |= {group: [v for v in some if v.group == group] for group in groups}
        for part, of_part in parts.items():
            rows += [Shares(part, s, judge, r) for s, r in rates(of_part, kind).items()]
    return rows


def _safety_of_audits(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return the exact judge's audits of private questions as verdicts on safety."""
    if any(v.kind == "safety" for v in verdicts):
        return []
    return [
        replace(v, kind="safety", verdict="safe" if v.extra["safe"] else "unsafe")
        for v in verdicts
        if v.kind == "audit" and isinstance(v.extra.get("safe"), bool) and v.was_read
    ]


def shares_section(
    title: str,
    name: str,
    kind: LabelKind,
    rows: Sequence[Shares],
    folder: Path,
    published: Mapping[str, tuple[float, ...]],
) -> Section | None:
    """Return stacked bars and a table of shares; none without any.

    Args:
        name: of picture and CSV.
        published: what others printed, in percent, by label.
    """
    if not rows:
        return None
    labels = LABELS[kind]
    panels = []
    for part in dict.fromkeys(row.part for row in rows):
        bars = [_bar(row) for row in rows if row.part == part]
        panels.append(SharesPanel(_part_name(part), bars))
    if published:
        bars = [
            SharesBar(label, tuple(share / 100 for share in shares), is_published=True)
            for label, shares in published.items()
        ]
        panels.append(SharesPanel("the paper", bars))
    picture = draw_picture(
        partial(draw_shares, panels, labels),
        f"Shares of {', '.join(labels)} of each system",
        folder,
        name,
    )
    lines = [
        [
            row.part,
            row.system,
            row.judge,
            *map(percent, row.by_label.values()),
            *counts(row.any_label),
        ]
        for row in rows
    ]
    headings = ["replies", "system", "judge", *(f"{label}, %" for label in labels)]
    table = Table([*headings, "verdicts", "prompts", "not read"], lines, text_columns=3)
    cells = [_cells(row) for row in rows]
    summary = [
        (
            f"{row.system}, {name} by {row.judge}",
            ", ".join(f"{label} {percent_text(r)} %" for label, r in row.by_label.items()),
        )
        for row in rows
        if row.part in (ALL, "all turns")
    ]
    return Section([Heading(title), picture, table], {name: cells}, summary)


def _bar(row: Shares) -> SharesBar:
    found = list(row.by_label.values())
    many = counted(row.any_label.n_read, "verdict")
    return SharesBar(
        f"{row.system}, {row.judge}, {many}",
        tuple(one.value for one in found),
        ends(found[0]),
        ends(found[-1]),
    )


def _part_name(part: str) -> str:
    return {ALL: "all prompts", "ood": "out of distribution (ood)"}.get(part, part)


def _cells(row: Shares) -> dict[str, Cell]:
    cells: dict[str, Cell] = {"replies": row.part, "system": row.system, "judge": row.judge}
    for label, one in row.by_label.items():
        cells |= rate_cells(label, one)
    return cells | count_cells(row.any_label)
