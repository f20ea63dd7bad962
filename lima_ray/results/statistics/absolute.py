"""Verdicts on single replies, system by system: grades, audit, safety.

rates(verdicts, "audit")["lima"]["excellent"].value        # LIMA section 4, figure 3
grades(verdicts)["lima"].mean.mean                          # LIMA section 5
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lima_ray.config.errors import UserError
from lima_ray.records.verdict import Verdict
from lima_ray.results.intervals import NAN
from lima_ray.results.statistics.clustered import ClusteredMean, Rate, clustered_mean, rate
from lima_ray.results.statistics.preference import prompt_means

LABELS: dict[str, tuple[str, ...]] = {
    "audit": ("excellent", "pass", "fail"),
    "safety": ("safe", "unsafe"),
    "thumbs": ("up", "down"),
}
LOWEST, HIGHEST = 1.0, 6.0
"""Grades of LIMA's helpfulness scale."""


@dataclass(frozen=True)
class Grades:
    """The mean grade of a system."""

    mean: ClusteredMean
    all_lowest: float
    """The mean if every grade that was not read were 1."""
    all_highest: float
    """The mean if every grade that was not read were 6."""
    n_unreadable: int
    n_unanswered: int


def rates(
    verdicts: Iterable[Verdict], kind: Literal["audit", "safety", "thumbs"]
) -> dict[str, dict[str, Rate]]:
    """Return each system's share of each label, with interval and bounds, clustered by prompt."""
    labels = LABELS[kind]
    found: dict[str, dict[str, Rate]] = {}
    for system, rows in _by_system(verdicts, kind).items():
        read = [row for row in rows if row.was_read]
        for row in read:
            if row.verdict not in labels:
                raise UserError(
                    f"{kind} of {system} on prompt {row.id} by {row.annotator} is "
                    f"{row.verdict!r}; it is one of {', '.join(labels)}"
                )
        prompts, unread = [row.id for row in read], _unread(rows)
        found[system] = {
            label: rate([float(row.verdict == label) for row in read], prompts, *unread)
            for label in labels
        }
    return found


def grades(verdicts: Iterable[Verdict]) -> dict[str, Grades]:
    """Return each system's mean grade, with interval and bounds, clustered by prompt."""
    found = {}
    for system, rows in _by_system(verdicts, "grade").items():
        read = [row for row in rows if row.was_read]
        values = [_grade(row) for row in read]
        unreadable, unanswered = _unread(rows)
        total, count = sum(values), len(rows)
        found[system] = Grades(
            mean=clustered_mean(values, [row.id for row in read]),
            all_lowest=(total + LOWEST * (count - len(read))) / count if count else NAN,
            all_highest=(total + HIGHEST * (count - len(read))) / count if count else NAN,
            n_unreadable=unreadable,
            n_unanswered=unanswered,
        )
    return found


def values_by_prompt(verdicts: Iterable[Verdict]) -> dict[str, dict[str, float]]:
    """Return each system's mean grade on each prompt, for `compare_paired`."""
    found = {}
    for system, rows in _by_system(verdicts, "grade").items():
        read = [row for row in rows if row.was_read]
        found[system] = prompt_means([_grade(row) for row in read], [row.id for row in read])
    return found


def _by_system(verdicts: Iterable[Verdict], kind: str) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = defaultdict(list)
    seen = set()
    for row in verdicts:
        if row.kind != kind:
            continue
        if len(row.models) != 1:
            raise UserError(
                f"{kind} of prompt {row.id} by {row.annotator} names the models "
                f"{list(row.models)}; it judges one"
            )
        key = (row.id, row.models, row.annotator, row.sample, row.turn, row.key)
        if key in seen:
            raise UserError(
                f"{row.annotator} gives {row.models[0]} two verdicts of kind {kind} on prompt "
                f"{row.id}; keep one of them"
            )
        seen.add(key)
        found[row.models[0]].append(row)
    return found


def _grade(row: Verdict) -> float:
    grade = row.grade if row.grade is not None else row.verdict
    if not isinstance(grade, int | float) or not LOWEST <= grade <= HIGHEST:
        raise UserError(
            f"grade of {row.models[0]} on prompt {row.id} by {row.annotator} is {grade!r}; it is "
            f"a number from {LOWEST:.0f} to {HIGHEST:.0f}"
        )
    return float(grade)


def _unread(rows: list[Verdict]) -> tuple[int, int]:
    counts = Counter(row.status for row in rows)
    return counts["unreadable"], counts["unanswered"]
