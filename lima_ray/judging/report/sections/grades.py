"""Grades from 1 to 6: each system's mean by each judge (LIMA section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lima_ray.judging.report.loading import StudyVerdicts
from lima_ray.judging.report.sections.absolute import dialogue_prompts
from lima_ray.judging.report.sections.section import Section, number
from lima_ray.judging.report.tables import Cell
from lima_ray.records.verdict import Verdict
from lima_ray.results.page.blocks import Block, Heading, Line, Small, Table
from lima_ray.results.page.dots import Dot, draw_dots
from lima_ray.results.page.pictures import draw_picture
from lima_ray.results.statistics.absolute import HIGHEST, LOWEST, Grades, grades


@dataclass(frozen=True)
class GradedPart:
    """The mean grade of one system by one judge, of some of its replies."""

    part: str
    system: str
    judge: str
    found: Grades

    def written(self) -> str:
        """Write mean, interval and bounds."""
        mean, bounds = self.found.mean, self.bounds()
        interval = f" [{mean.low:.2f}, {mean.high:.2f}]" if mean.low == mean.low else ""
        return f"{mean.mean:.2f}{interval}" + (f" {bounds}" if bounds else "")

    def line(self) -> Line:
        """Write the same, what is beside the mean in small letters."""
        mean, bounds = self.found.mean, self.bounds()
        line = number(mean.mean, mean.low, mean.high)
        parts = line if isinstance(line, tuple) else (line,)
        return (*parts, " ", Small(bounds)) if bounds else line

    def bounds(self) -> str:
        """Write the means if all that was not read were 1, and 6; empty where all was read."""
        if not self.n_unread:
            return ""
        return f"{{{self.found.all_lowest:.2f}, {self.found.all_highest:.2f}}}"

    @property
    def n_unread(self) -> int:
        return self.found.n_unreadable + self.found.n_unanswered

    def cells(self) -> dict[str, Cell]:
        mean = self.found.mean
        return {
            "replies": self.part,
            "system": self.system,
            "judge": self.judge,
            "mean": mean.mean,
            "low": mean.low,
            "high": mean.high,
            "all_lowest": self.found.all_lowest,
            "all_highest": self.found.all_highest,
            "read": mean.n,
            "unreadable": self.found.n_unreadable,
            "unanswered": self.found.n_unanswered,
            "prompts": mean.n_prompts,
        }


def grade_section(study: StudyVerdicts, folder: Path) -> Section | None:
    """Return mean grades from 1 to 6, of audits that carry one as well."""
    rows = graded_parts(study)
    if not rows:
        return None
    dots = []
    for row in rows:
        name, mean = f"{row.system}, {row.judge}, {row.part}", row.found.mean
        dots.append(Dot(name, mean.mean, mean.low, mean.high, row.written()))
    picture = draw_picture(
        partial(draw_dots, dots, (LOWEST - 0.05, HIGHEST + 0.05)),
        "Mean grade of each system with its 95 % interval",
        folder,
        "grades",
    )
    lines: list[list[Line]] = []
    for row in rows:
        mean = row.found.mean
        many = [f"{count:,}" for count in (mean.n, mean.n_prompts, row.n_unread)]
        lines.append([row.part, row.system, row.judge, row.line(), *many])
    headings = ["replies", "system", "judge", "mean, 1 to 6", "grades", "prompts", "not read"]
    blocks: list[Block] = [Heading("Grades"), picture, Table(headings, lines, text_columns=3)]
    summary = [(f"{row.system}, grade by {row.judge}, {row.part}", row.written()) for row in rows]
    return Section(blocks, {"grades": [row.cells() for row in rows]}, summary)


def graded_parts(study: StudyVerdicts) -> list[GradedPart]:
    """Return the grades of single replies, of dialogues' turns, and of dialogues as a whole."""
    dialogues, rows = dialogue_prompts(study), []
    for judge, found in study.by_judge.items():
        parts: dict[str, list[Verdict]] = {"single": [], "dialogue turns": [], "dialogues": []}
        for v in grades_of(found):
            whole = "dialogues" if v.turn is None else "dialogue turns"
            parts[whole if v.id in dialogues else "single"].append(v)
        for part, some in parts.items():
            rows += [GradedPart(part, system, judge, g) for system, g in grades(some).items()]
    return rows


def grades_of(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return a judge's grades; where it gives none, those that its audits carry."""
    given = [v for v in verdicts if v.kind == "grade"]
    audits = [v for v in verdicts if v.kind == "audit"]
    if given or not any(v.grade is not None for v in audits):
        return given
    return [
        replace(v, kind="grade", verdict=v.grade)
        for v in audits
        if v.grade is not None or not v.was_read
    ]
