"""Two systems prompt by prompt: by their grades, and by how each fared against a third."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from lima_ray.judging.report.loading import StudyVerdicts
from lima_ray.judging.report.sections.grades import grades_of
from lima_ray.judging.report.sections.section import Section, number
from lima_ray.judging.report.tables import Cell
from lima_ray.results.metric_unit import format_p
from lima_ray.results.page.blocks import Block, Heading, Line, Small, Table, text
from lima_ray.results.statistics.absolute import values_by_prompt
from lima_ray.results.statistics.preference import PairedDifference, compare_paired
from lima_ray.results.statistics.verdict_table import comparisons, points_by_prompt

LEAST_PROMPTS = 2


@dataclass(frozen=True)
class PairedRow:
    measure: str
    first: str
    second: str
    judge: str
    found: PairedDifference

    def cells(self) -> dict[str, Cell]:
        one = self.found
        return {
            "measure": self.measure,
            "system": self.first,
            "other": self.second,
            "judge": self.judge,
            "difference": one.mean,
            "low": one.low,
            "high": one.high,
            "bootstrap_low": one.bootstrap_low,
            "bootstrap_high": one.bootstrap_high,
            "p": one.p,
            "prompts": one.n_prompts,
            "only_system": len(one.only_first),
            "only_other": len(one.only_second),
        }


def paired_section(study: StudyVerdicts) -> Section | None:
    """Return the differences of all systems that a judge graded, or compared with a third."""
    rows = [row for row in paired_rows(study) if row.found.n_prompts >= LEAST_PROMPTS]
    if not rows:
        return None
    lines: list[list[Line]] = []
    for row in rows:
        one = row.found
        drawn = Small(f"[{one.bootstrap_low:+.2f}, {one.bootstrap_high:+.2f}]")
        alone = f"{len(one.only_first) + len(one.only_second):,}"
        told = [number(one.mean, one.low, one.high, "+.2f"), drawn, format_p(one.p)]
        pair = f"{row.first} less {row.second}"
        lines.append([row.measure, pair, row.judge, *told, f"{one.n_prompts:,}", alone])
    blocks: list[Block] = [
        Heading("Prompt by prompt"),
        text(
            "Differences over the prompts that both systems have: what makes a prompt hard for "
            "both cancels. The t interval, the bootstrap over prompts, and p of no difference. "
            "Against a third, 1 is a win and 0.5 a tie."
        ),
        Table(
            ["measure", "systems", "judge", "difference", "bootstrap", "p", "prompts", "one lacks"],
            lines,
            text_columns=3,
        ),
    ]
    return Section(blocks, {"paired": [row.cells() for row in rows]})


def paired_rows(study: StudyVerdicts) -> Iterator[PairedRow]:
    """Yield every two systems by every judge, by grade and through every third."""
    for judge, verdicts in study.by_judge.items():
        graded = values_by_prompt(grades_of(verdicts))
        yield from _pairs(study, "grade", judge, graded)
        found = comparisons(verdicts)
        for third in study.systems:
            met = {
                system: points_by_prompt(found, system, third)
                for system in study.systems
                if any({one.first, one.second} == {system, third} for one in found)
            }
            yield from _pairs(study, f"score against {third}", judge, met)


def _pairs(
    study: StudyVerdicts, measure: str, judge: str, values: Mapping[str, Mapping[str, float]]
) -> Iterator[PairedRow]:
    there = [system for system in study.systems if system in values]
    for first, second in combinations(there, 2):
        found = compare_paired(values[first], values[second])
        yield PairedRow(measure, first, second, judge, found)
