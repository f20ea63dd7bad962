"""An annotator's queue: what comes next, and what is kept of an answer.

Every annotator is asked the shared questions, spread over the queue; of the others each goes to as
many as `per_item` says. A question that one has on the screen is kept from others for a while; one
that was left unanswered for longer goes to whoever is there.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.verdicts import Annotator, record_verdict
from lima_ray.judging.study.checks import Check, check_due, check_item, draw_check, passes
from lima_ray.judging.study.design import StudyDesign, pair_leads
from lima_ray.judging.study.store import AnnotatorRows, Answer, Assignment, Draw, StudyStore

CLAIM = timedelta(minutes=30)
"""For how long a question on somebody's screen is kept from others."""


@dataclass(frozen=True)
class Settings:
    """How a study is run; all but the design may change while it runs."""

    per_item: int = 1
    """Annotators of a question that is not shared."""
    annotators: int = 2
    """Who are expected; shared questions are spread over what each of them then has to do."""
    check_every: int = 20
    """Questions among which one is a check; 0 has none."""


@dataclass(frozen=True)
class Progress:
    """How far an annotator is, checks included, so that counting does not tell them."""

    answered: int
    expected: int


class StudyQueue:
    """Gives questions to annotators and keeps their answers; any thread may call."""

    def __init__(self, design: StudyDesign, store: StudyStore, settings: Settings) -> None:
        self.design, self.store, self.settings = design, store, settings

    @property
    def expected(self) -> int:
        """Questions of an annotator, without checks, if the expected ones do the study."""
        rest = len(self.design.rest) * self.settings.per_item
        return len(self.design.shared) + math.ceil(rest / max(1, self.settings.annotators))

    def item(self, assignment: Assignment) -> Item:
        """Return a question as its annotator sees it."""
        drawn = assignment.drawn
        if assignment.is_check:
            item, _ = check_item(self.design, Check(drawn.question, drawn.donor))
            return item.with_order(drawn.order)
        return self.design.questions[drawn.question].item.with_order(drawn.order)

    def open(self, annotator: str, after: int = 0) -> Assignment | None:
        """Return the next question that an annotator is to answer; none once all are done.

        It is the first that is open, else a new one, else the one that was skipped least.

        Args:
            after: number of a question that was just skipped and so comes last.
        """
        with self.store.change(self.design.id, annotator) as given:
            held = given.held_by_others(CLAIM)
            self._release(given, held)
            own = [one for one in given.all if not one.released and not one.answered]
            waiting = [one for one in own if not one.skipped]
            if waiting:
                return given.show(waiting[0])
            if drawn := self._draw(given, held):
                given.give(drawn)
                return given.all[-1]
            own.sort(key=lambda one: (one.number == after, one.skipped, one.number))
            return given.show(own[0]) if own else None

    def show(self, annotator: str, number: int) -> Assignment | None:
        """Return a question of the annotator's by its number; none where there is no such."""
        with self.store.change(self.design.id, annotator) as given:
            found = given.find(number)
            return given.show(found) if found and not found.answered else found

    def beside(self, annotator: str, number: int, step: int) -> Assignment | None:
        """Return the question before (-1) or after (1) one in the annotator's queue, if any."""
        own = [o.number for o in self.store.own(self.design.id, annotator) if not o.released]
        side = [n for n in own if (n < number if step < 0 else n > number)]
        if not side:
            return None
        return self.show(annotator, side[-1] if step < 0 else side[0])

    def answer(self, annotator: str, number: int, choice: str, comment: str) -> bool:
        """Keep an answer in the place of an earlier one; return whether there is such a question.

        Raises:
            UserError: a choice that is none.
        """
        self.design.wording.check(choice)
        with self.store.change(self.design.id, annotator) as given:
            found = given.find(number)
            if found is None:
                return False
            if (found.choice, found.comment) != (choice, comment):
                given.answer(found, self._answer(found, choice, comment))
            return True

    def skip(self, annotator: str, number: int) -> None:
        """Leave a question for later; one that is answered stays so."""
        with self.store.change(self.design.id, annotator) as given:
            given.skip(number)

    def take_back(self, annotator: str) -> Assignment | None:
        """Take the annotator's last answer back and return its question; none where none is."""
        with self.store.change(self.design.id, annotator) as given:
            answered = [one for one in given.all if one.answered]
            if not answered:
                return None
            last = max(answered, key=lambda one: (one.at, one.number))
            given.answer(last, Answer(None))
            given.skip(last.number, 0)
            return replace(given.show(last), choice=None)

    def progress(self, annotator: str) -> Progress:
        """Return how far an annotator is."""
        own = [o for o in self.store.own(self.design.id, annotator) if not o.released]
        every = self.settings.check_every
        checks = self.expected // every if every else 0
        return Progress(sum(o.answered for o in own), max(self.expected + checks, len(own)))

    def _answer(self, given: Assignment, choice: str, comment: str) -> Answer:
        now, item = datetime.now(UTC), self.item(given)
        if given.is_check:
            _, right = check_item(self.design, Check(given.drawn.question, given.drawn.donor))
            return Answer(choice, comment, passes(item, right, choice))
        # Of an answer that is changed later the time says nothing.
        took_s = None if given.answered else round((now - given.shown).total_seconds(), 1)
        told: dict[str, Any] = {
            "study": self.design.id,
            "shared": given.drawn.shared or None,
            "at": now.isoformat(timespec="seconds"),
            "seconds": took_s,
        }
        anna = Annotator(given.annotator)
        verdict = record_verdict(item, anna, choice, explanation=comment, **told)
        return Answer(choice, comment, record=verdict.to_json())

    def _draw(self, given: AnnotatorRows, held: Counter[str]) -> Draw | None:
        """Return a question that the annotator has not had; none where none is open."""
        design, own, annotator = self.design, given.all, given.annotator
        asked = {one.drawn.question: one.drawn for one in own if not one.is_check}
        shared = [key for key in design.shared if key not in asked]
        rest = [k for k in design.rest if k not in asked and held[k] < self.settings.per_item]
        if not shared and not rest:
            return None
        if check_due(design, annotator, len(own), self.settings.check_every):
            return self._draw_check(annotator, own)
        done = len(design.shared) - len(shared)
        if not rest or design.overlap_due(annotator, len(asked), done, self.expected):
            key = min(shared, key=lambda key: design.draw("shared", annotator, key))
        else:  # the least annotated first
            key = min(rest, key=lambda key: (held[key], design.draw("rest", annotator, key)))
        leads = pair_leads(design, {one: drawn.order for one, drawn in asked.items()})
        order = design.order(key, annotator, leads[design.questions[key].pair])
        return Draw(key, order, key in shared)

    def _draw_check(self, annotator: str, own: Sequence[Assignment]) -> Draw:
        check = draw_check(self.design, annotator, len(own), [one.drawn.question for one in own])
        item, _ = check_item(self.design, check)
        turned = len(item.models) > 1 and self.design.draw("check side", annotator, len(own)) % 2
        order = item.order[::-1] if turned else item.order
        return Draw(check.question, order, donor=check.donor)

    def _release(self, given: AnnotatorRows, held: Counter[str]) -> None:
        """Let go of what was left unanswered for long, where others have taken it over."""
        for one in given.all:
            own = one.answered or one.released or one.is_check or one.drawn.shared
            if not own and held[one.drawn.question] >= self.settings.per_item:
                given.release(one)
