"""How far people, authors and models agree, kind by kind (LIMA section 4)."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from lima_ray.judging.report.loading import VOTES, StudyVerdicts
from lima_ray.judging.report.sections.section import Section, agreement_text
from lima_ray.judging.report.tables import Cell
from lima_ray.records.verdict import Verdict
from lima_ray.results.page.blocks import Block, Heading, Inline, Items, Line, Table, text
from lima_ray.results.published.lima import AGREEMENT
from lima_ray.results.statistics.agreement import Agreement, Level, fleiss_kappa
from lima_ray.results.statistics.agreement_table import (
    Annotation,
    GroupAgreement,
    agreement_table,
    reliability,
)
from lima_ray.results.statistics.verdict_table import TIE, annotations, comparisons

ORDERED = {"audit": ("fail", "pass", "excellent"), "safety": ("unsafe", "safe")}
"""Labels of single replies, the worst first."""
ALL = "all"


def agreement_section(study: StudyVerdicts, paper: bool) -> Section | None:
    """Return agreement of every two groups of annotators on what both judged, kind by kind."""
    lines: list[list[Line]] = []
    cells: list[dict[str, Cell]] = []
    overall: list[Line] = []
    summary = []
    for kind, found, level in labels_by_kind(study):
        for row in agreement_table(found, TIE):
            groups = " and ".join(row.groups)
            is_pair = kind == "pairwise"
            discounted = agreement_text(row.tie_discounted) if is_pair else "-"
            shares = [discounted, agreement_text(row.percent)]
            kappa = agreement_text(row.kappa, 1, ".2f")
            lines.append([kind, groups, *shares, kappa, f"{row.n_items:,}", f"{row.n_pairs:,}"])
            cells.append(_cells(kind, row, is_pair))
            if is_pair:
                value = row.tie_discounted
                told = f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}] %"
                summary.append((f"agreement, {groups}", f"{told} tie-discounted"))
        alpha, fleiss = reliability(found, level), _fleiss(found)
        cells.append({**_cells(kind, None), "krippendorff_alpha": alpha.value, "items": None})
        cells[-1] |= {"fleiss_kappa": fleiss.value if fleiss else None}
        if alpha.value == alpha.value:
            overall.append(_reliability(kind, alpha, fleiss, level))
    if not lines:
        return None
    headings = ["kind", "annotators", "tie-discounted, %", "equal, %", "kappa", "items", "pairs"]
    blocks: list[Block] = [
        Heading("How far annotators agree"),
        text(
            "On items that both judged. Tie-discounted accuracy is LIMA's: 1 if equal, 0.5 if "
            "exactly one says neither, else 0. Kappa is Cohen's; within a group, chance is that of "
            "the whole group. Nobody is paired with themself."
        ),
        Table(headings, lines, text_columns=2),
    ]
    blocks += [Items(overall)] if overall else []
    if paper:
        told = ", ".join(f"{groups} {value} %" for groups, value in AGREEMENT.items())
        blocks.append(text(f"The paper, tie-discounted on 50 shared items: {told}."))
    return Section(blocks, {"agreement": cells}, summary)


def labels_by_kind(study: StudyVerdicts) -> Iterator[tuple[str, list[Annotation], Level]]:
    """Yield what annotators say of each item, for every kind, and how its labels are ordered."""
    read = [v for name, found in study.by_judge.items() if name != VOTES for v in found]
    read = [v for v in read if v.was_read]
    pairs = [
        one
        for name, found in study.by_judge.items()
        if name != VOTES
        for one in annotations(comparisons(found), study.groups)
    ]
    if pairs:
        yield "pairwise", pairs, "nominal"
    for kind, order in ORDERED.items():
        found = [_annotation(v, study, str(v.verdict)) for v in read if v.kind == kind]
        if any(one.label not in order for one in found):
            continue  # `rates` has refused it, or will
        if found:
            yield kind, found, "nominal"
    grades = [v for v in read if v.kind == "grade" and v.grade is not None]
    if grades:
        yield "grade", [_annotation(v, study, float(v.grade or 0)) for v in grades], "ordinal"


def _annotation(verdict: Verdict, study: StudyVerdicts, label: str | float) -> Annotation:
    item = repr((verdict.id, verdict.models, verdict.sample, verdict.turn))
    group = study.groups.get(verdict.annotator, verdict.annotator)
    return Annotation(item, verdict.annotator, group, label)


def _fleiss(found: Sequence[Annotation]) -> Agreement | None:
    """Return Fleiss' kappa of items with several annotators; none where their number differs."""
    by_item: dict[str, dict[str, str | int | float]] = defaultdict(dict)
    for one in found:
        by_item[one.item].setdefault(one.annotator, one.label)
    shared = [list(labels.values()) for labels in by_item.values() if len(labels) > 1]
    return fleiss_kappa(shared) if len({len(row) for row in shared}) == 1 else None


def _reliability(
    kind: str, alpha: Agreement, fleiss: Agreement | None, level: Level
) -> tuple[Inline, ...]:
    def written(found: Agreement) -> tuple[Inline, ...]:
        said = agreement_text(found, 1, ".2f")
        return said if isinstance(said, tuple) else (said,)

    told: tuple[Inline, ...] = (f"{kind}: Krippendorff's alpha ({level}) ", *written(alpha))
    return (*told, "; Fleiss' kappa ", *written(fleiss)) if fleiss else told


def _cells(kind: str, row: GroupAgreement | None, is_pair: bool = False) -> dict[str, Cell]:
    cells: dict[str, Cell] = {"kind": kind, "annotators": " and ".join(row.groups) if row else ALL}
    for name in ("tie_discounted", "percent", "kappa"):
        found = getattr(row, name) if row and (name != "tie_discounted" or is_pair) else None
        cells |= {
            name: found.value if found else None,
            f"{name}_low": found.low if found else None,
            f"{name}_high": found.high if found else None,
        }
    cells |= {"items": row.n_items if row else None, "pairs": row.n_pairs if row else None}
    return cells | {"krippendorff_alpha": None, "fleiss_kappa": None}
