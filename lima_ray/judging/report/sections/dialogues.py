"""Dialogues: their turns one by one and as a whole (LIMA section 6, figure 7)."""

from collections.abc import Sequence
from pathlib import Path

from lima_ray.judging.report.loading import StudyVerdicts, is_vote
from lima_ray.judging.report.sections.absolute import Shares, dialogue_prompts, shares_section
from lima_ray.judging.report.sections.section import (
    Section,
    count_cells,
    counts,
    percent,
    rate_cells,
)
from lima_ray.records.verdict import Verdict
from lima_ray.results.page.blocks import Table, text
from lima_ray.results.published.lima import DIALOGUE_TURNS
from lima_ray.results.statistics.absolute import rates
from lima_ray.results.statistics.clustered import Rate, rate


def dialogue_section(study: StudyVerdicts, folder: Path, paper: bool) -> Section | None:
    """Return excellent, pass and fail of the turns of dialogues, and of dialogues as a whole."""
    dialogues = dialogue_prompts(study)
    rows, whole = [], []
    for judge, found in study.by_judge.items():
        turns = [v for v in found if v.id in dialogues and v.turn is not None and not is_vote(v)]
        parts = {"all turns": turns} | {
            f"turn {turn + 1}": [v for v in turns if v.turn == turn]
            for turn in sorted({v.turn for v in turns if v.turn is not None})
        }
        parts["as a whole"] = [v for v in found if v.id in dialogues and v.turn is None]
        for part, some in parts.items():
            rows += [Shares(part, s, judge, r) for s, r in rates(some, "audit").items()]
        whole += [(s, judge, r) for s, r in without_fail(turns).items()]
    published = {f"the paper, {name}": shares for name, shares in DIALOGUE_TURNS.items()}
    section = shares_section(
        "Dialogues", "dialogues", "audit", rows, folder, published if paper else {}
    )
    if section and whole:
        lines = [[system, judge, percent(one), *counts(one)] for system, judge, one in whole]
        headings = ["system", "judge", "no turn fails, %", "dialogues", "prompts", "not read"]
        section.blocks += [
            text("Dialogues of which no turn fails; one with a turn that was not read is unread:"),
            Table(headings, lines, text_columns=2),
        ]
        cells = [
            {"system": s, "judge": j, **rate_cells("no_turn_fails", one), **count_cells(one)}
            for s, j, one in whole
        ]
        section.tables = {**section.tables, "dialogues_without_fail": cells}
    return section


def without_fail(turns: Sequence[Verdict]) -> dict[str, Rate]:
    """Return of each system the share of dialogues in which no turn fails."""
    by_dialogue: dict[str, dict[tuple[object, ...], list[Verdict]]] = {}
    for v in turns:
        dialogues = by_dialogue.setdefault(v.models[0], {})
        dialogues.setdefault((v.id, v.sample, v.annotator), []).append(v)
    found = {}
    for system, dialogues in by_dialogue.items():
        values, prompts, unread = [], [], 0
        for (id, *_), rows in dialogues.items():
            if all(v.was_read for v in rows):
                values.append(float(all(v.verdict != "fail" for v in rows)))
                prompts.append(id)
            else:
                unread += 1
        found[system] = rate(values, prompts, unread)
    return found
