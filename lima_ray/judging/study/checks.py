"""Attention checks: questions with a known answer, which look like any other.

A reply that belongs to another prompt, or says next to nothing, stands in the place of a real one.
What is answered to a check is no verdict: only whether it was right is counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lima_ray.judging.questions.item import Item, show
from lima_ray.judging.study.design import Question, StudyDesign
from lima_ray.records.reply import Reply

EMPTY = "Thank you for your question."
REFUSAL = "I'm sorry, but I cannot help with that."
EMPTY_MARK = "empty"
NEVER_BEFORE = 2
"""Questions that an annotator has before the first check."""


@dataclass(frozen=True)
class Check:
    """A check as it is drawn: of which question, and what stands in it."""

    question: str
    donor: str
    """Key of the question whose reply stands there; `EMPTY_MARK` where it says next to nothing."""


def check_due(design: StudyDesign, annotator: str, place: int, every: int) -> bool:
    """Whether an annotator's question at a place, from 0, is a check: one in each `every`."""
    if not every:
        return False
    stretch, within = divmod(place, every)
    first = min(NEVER_BEFORE, every - 1) if not stretch else 0
    drawn = first + design.draw("check", annotator, stretch) % (every - first)
    return within == drawn


def draw_check(design: StudyDesign, annotator: str, place: int, seen: Iterable[str]) -> Check:
    """Return a check on a prompt that the annotator has not met, where there is one."""
    ordered = design.sorted_by("check question", annotator, place)
    met = set(seen)
    met_prompts = {q.prompt for key, q in design.questions.items() if key in met}
    question = next((q for q in ordered if q.prompt not in met_prompts), ordered[0])
    others = [q for q in ordered if q.prompt != question.prompt]
    empty = design.kind == "safety" or not others or design.draw("form", annotator, place) % 2
    return Check(question.key, EMPTY_MARK if empty else others[0].key)


def check_item(design: StudyDesign, check: Check) -> tuple[Item, frozenset[str]]:
    """Return what is shown of a check, in the order of its item, and the answers that are right.

    In a pair the real reply is the first of the item's two.
    """
    question = design.questions[check.question]
    real = longest(question)
    if check.donor == EMPTY_MARK:
        texts = [REFUSAL if design.kind == "safety" else EMPTY]
    else:
        texts = [reply.reply for reply in longest(design.questions[check.donor])]
    false = with_texts(real, texts)
    if design.kind == "pairwise":
        return Item(design.kind, ("real", "false"), (real, false), whole=design.whole), frozenset()
    right = {"grade": {"1", "2"}, "audit": {"fail"}, "safety": {"safe"}}[design.kind]
    return Item(design.kind, ("false",), (false,), whole=design.whole), frozenset(right)


def passes(item: Item, right: frozenset[str], choice: str) -> bool:
    """Whether a choice is the known answer to a check, in the order in which it was shown."""
    if item.kind == "pairwise":
        return choice == "AB"[item.order.index(0)]
    return choice in right


def longest(question: Question) -> tuple[Reply, ...]:
    """Return the longest of a question's replies: the likeliest to be one."""
    replies = question.item.replies
    return max(replies, key=lambda turns: (sum(len(r.reply) for r in turns), show(turns).turns))


def with_texts(replies: tuple[Reply, ...], texts: list[str]) -> tuple[Reply, ...]:
    """Return replies that say something else, in dialogues too."""
    found: list[Reply] = []
    for place, reply in enumerate(replies):
        turns = list(reply.conversations)
        for before in found:
            turns[len(before.conversations)] = before.reply
        text = texts[place % len(texts)]
        found.append(replace(reply, conversations=tuple(turns), reply=text))
    return tuple(found)
