"""A study in a database: SQLite in its folder, or PostgreSQL. Nothing that was answered is lost."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer

from lima_ray.judging.study.tables import AnswerRow, AssignmentRow, StudyRow
from lima_ray.web.annotation.names import NamedSessionStore


@dataclass(frozen=True)
class Draw:
    """A question as it is given to an annotator."""

    question: str
    order: tuple[int, ...]
    shared: bool = False
    donor: str = ""
    """What stands in a check; empty where it is none."""


@dataclass(frozen=True)
class Assignment:
    """A question that an annotator was given, with the answer that counts."""

    annotator: str
    number: int
    drawn: Draw
    shown: datetime
    skipped: int = 0
    released: bool = False
    choice: str | None = None
    comment: str = ""
    at: datetime | None = None
    """When it was answered."""
    passed: bool | None = None
    record: dict[str, Any] | None = None
    """The verdict, where it was asked for."""

    @property
    def answered(self) -> bool:
        return self.choice is not None

    @property
    def is_check(self) -> bool:
        return bool(self.drawn.donor)


@dataclass(frozen=True)
class Answer:
    """What is kept of an answer."""

    choice: str | None
    """None takes the answer back."""
    comment: str = ""
    passed: bool | None = None
    record: dict[str, Any] | None = None


class StudyStore(NamedSessionStore):
    """Assignments and answers. Methods block, and raise DatabaseError."""

    def settings(self, study: str) -> dict[str, Any] | None:
        """Return what a study was begun with; none where there is no such."""
        with self.transaction() as rows:
            row = rows.get(StudyRow, study)
            return dict(row.settings) if row else None

    def begin(self, study: str, settings: dict[str, Any]) -> None:
        """Make a study where it is missing, and keep how it is run from now on."""
        with self.transaction(writes=True) as rows:
            row = rows.get(StudyRow, study)
            begun = row.begun if row else datetime.now(UTC)
            rows.merge(StudyRow(id=study, settings=settings, begun=begun))

    def assignments(self, study: str, records: bool = False) -> list[Assignment]:
        """Return all that was given, annotator by annotator, each in its order."""
        with self.transaction() as rows:
            return [assignment for _, assignment in read(rows, study, records)]

    def own(self, study: str, annotator: str) -> list[Assignment]:
        """Return what an annotator was given, in order."""
        with self.transaction() as rows:
            return [assignment for _, assignment in read(rows, study, annotator=annotator)]

    @contextmanager
    def change(self, study: str, annotator: str) -> Iterator["AnnotatorRows"]:
        """Begin a change to what an annotator was given; others wait until it ends."""
        with self.transaction(writes=True) as rows:
            rows.get(StudyRow, study, with_for_update=True)
            yield AnnotatorRows(rows, study, annotator)


class AnnotatorRows:
    """An annotator's assignments within a transaction that alone may change the study."""

    def __init__(self, rows: Session, study: str, annotator: str) -> None:
        self.rows, self.study, self.annotator = rows, study, annotator
        found = list(read(rows, study, annotator=annotator))
        self.row_of = {assignment.number: row for row, assignment in found}
        self.all = [assignment for _, assignment in found]

    def find(self, number: int) -> Assignment | None:
        return next((one for one in self.all if one.number == number), None)

    def held_by_others(self, claim: timedelta) -> Counter[str]:
        """Return how many others answered each question that is not shared, or have it on screen.

        Args:
            claim: for how long after it was shown a question without an answer counts.
        """
        row = AssignmentRow
        counted = select(row.question, func.count()).group_by(row.question)
        counted = counted.where(row.study == self.study, row.annotator != self.annotator)
        counted = counted.where(row.donor == "", row.shared.is_(False), row.released.is_(False))
        shown = row.shown > datetime.now(UTC) - claim
        return Counter(dict(self.rows.execute(counted.where(row.answered | shown)).tuples().all()))

    def give(self, drawn: Draw) -> int:
        """Give a question, and return its number."""
        number = max(self.row_of, default=0) + 1
        self.row_of[number] = AssignmentRow(
            study=self.study,
            annotator=self.annotator,
            number=number,
            question=drawn.question,
            shared=drawn.shared,
            donor=drawn.donor,
            order=",".join(map(str, drawn.order)),
            shown=datetime.now(UTC),
        )
        self.rows.add(self.row_of[number])
        self.all.append(Assignment(self.annotator, number, drawn, datetime.now(UTC)))
        return number

    def show(self, assignment: Assignment) -> Assignment:
        """Note that a question is on a screen, and is the annotator's again."""
        row = self.row_of[assignment.number]
        row.shown, row.released = datetime.now(UTC), False
        return replace(assignment, shown=row.shown, released=False)

    def skip(self, number: int, times: int | None = None) -> None:
        """Count that a question was left for later; `times` sets the count."""
        if row := self.row_of.get(number):
            row.skipped = row.skipped + 1 if times is None else times

    def release(self, assignment: Assignment) -> None:
        """Let others have a question that this annotator left unanswered."""
        self.row_of[assignment.number].released = True
        self.all = [replace(o, released=True) if o is assignment else o for o in self.all]

    def answer(self, assignment: Assignment, answer: Answer) -> None:
        """Keep an answer behind those before."""
        row = self.row_of[assignment.number]
        row.released, row.answered = False, answer.choice is not None
        self.rows.add(AnswerRow(assignment=row.id, at=datetime.now(UTC), **vars(answer)))


def read(
    rows: Session, study: str, records: bool = False, annotator: str | None = None
) -> Iterator[tuple[AssignmentRow, Assignment]]:
    """Yield each row and what it says, annotator by annotator; with the verdicts if asked."""
    wanted = [AssignmentRow.study == study]
    if annotator is not None:
        wanted.append(AssignmentRow.annotator == annotator)
    given = select(AssignmentRow).where(*wanted)
    given = given.order_by(AssignmentRow.annotator, AssignmentRow.number)
    found: Sequence[AssignmentRow] = rows.scalars(given).all()
    said = select(AnswerRow).join(AssignmentRow).where(*wanted)
    said = said.order_by(AnswerRow.id).options(*([] if records else [defer(AnswerRow.record)]))
    # A later answer takes the place of an earlier one.
    last = {answer.assignment: answer for answer in rows.scalars(said)}
    for row in found:
        answer = last.get(row.id)
        order = tuple(map(int, row.order.split(",")))
        one = Assignment(
            annotator=row.annotator,
            number=row.number,
            drawn=Draw(row.question, order, row.shared, row.donor),
            shown=row.shown,
            skipped=row.skipped,
            released=row.released,
        )
        if answer is not None and answer.choice is not None:
            one = replace(
                one,
                choice=answer.choice,
                comment=answer.comment,
                at=answer.at,
                passed=answer.passed,
                record=answer.record if records else None,
            )
        yield row, one
