"""Tables of a study: what was given to whom, and every answer in the order in which they came."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from lima_ray.web.database import Base


class StudyRow(Base):
    """A study; locked while something is given or answered, so that two at once do not collide."""

    __tablename__ = "studies"

    id: Mapped[str] = mapped_column(primary_key=True)
    settings: Mapped[dict[str, Any]]
    begun: Mapped[datetime]


class AssignmentRow(Base):
    """A question that an annotator was given."""

    __tablename__ = "study_assignments"
    __table_args__ = (UniqueConstraint("study", "annotator", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey("studies.id"), index=True)
    annotator: Mapped[str]
    number: Mapped[int]
    """From 1, in the annotator's queue; never given again."""
    question: Mapped[str]
    shared: Mapped[bool]
    """Whether all annotators are asked it."""
    donor: Mapped[str]
    """What stands in a check; empty where it is none."""
    order: Mapped[str] = mapped_column("shown_order")
    """Such as `1,0`."""
    shown: Mapped[datetime]
    """When it was last on a screen."""
    skipped: Mapped[int] = mapped_column(default=0)
    """Times."""
    released: Mapped[bool] = mapped_column(default=False)
    """Left unanswered, and taken over by others."""
    answered: Mapped[bool] = mapped_column(default=False)
    """Whether the last of its answers is one."""


class AnswerRow(Base):
    """An answer, or that one is taken back; the last of an assignment counts."""

    __tablename__ = "study_answers"

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment: Mapped[int] = mapped_column(ForeignKey("study_assignments.id"), index=True)
    at: Mapped[datetime]
    choice: Mapped[str | None]
    """None takes the answer back."""
    comment: Mapped[str]
    passed: Mapped[bool | None]
    """Of a check: whether it was the known answer."""
    record: Mapped[dict[str, Any] | None]
    """The verdict; none of a check."""
