"""Pieces of the study page as HTML; every text of others is escaped."""

from html import escape

from lima_ray.judging.questions.item import ItemKind
from lima_ray.judging.questions.wording import Wording
from lima_ray.judging.study.queue import Progress

CHOICES: dict[ItemKind, dict[str, str]] = {
    "pairwise": {"A": "A", "B": "B", "neither": "Neither"},
    "grade": {str(grade): str(grade) for grade in range(1, 7)},
    "audit": {"excellent": "Excellent", "pass": "Pass", "fail": "Fail"},
    "safety": {"safe": "Safe", "unsafe": "Unsafe"},
}
"""Buttons by verdict, in the order of `prompts/KIND.txt`."""
DONE = (
    "There is nothing left to answer for you. Thank you! Your answers are kept; you may go back "
    "and change them, or close the page."
)


def bar(title: str, progress: Progress, annotator: str) -> str:
    """Return how far an annotator is."""
    return (
        f'<div class="bar"><h1>{escape(title)}</h1>'
        f'<progress max="{progress.expected}" value="{progress.answered}"></progress>'
        f'<span class="facts"><span><b>{progress.answered:,}</b> of about '
        f"{progress.expected:,} answered</span></span>"
        f'<span class="who">{escape(annotator)}</span></div>'
    )


def instructions(wording: Wording) -> str:
    """Return what everybody is told, models too, and what each verdict means."""
    told = "".join(f"<p>{escape(part)}</p>" for part in wording.instructions.split("\n\n"))
    labels = CHOICES[wording.kind]
    levels = "".join(
        f"<dt>{escape(labels[name])}</dt><dd>{escape(meaning)}</dd>"
        for name, meaning in wording.levels.items()
    )
    return (
        f'<details class="told" open><summary>What is asked</summary>{told}<dl>{levels}</dl>'
        "</details>"
    )


def head(number: int, choice: str | None, label: str) -> str:
    """Return which question it is, and what was answered before."""
    said = f'<span class="mark">you answered {escape(label)}</span>' if choice else ""
    return f'<div class="head"><span>Question {number}</span>{said}</div>'


def system_line(text: str) -> str:
    """Return what the system was told; empty where nothing was."""
    if not text:
        return ""
    return f'<div class="system"><b>System</b> {escape(text)}</div>'
