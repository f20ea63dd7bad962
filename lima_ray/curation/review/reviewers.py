"""Reviewers: a login is its own name; a browser without one is asked for a name once."""

from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column

from lima_ray.web.database import Base
from lima_ray.web.session_store import SessionStore

MAX_NAME_CHARACTERS = 60


class ReviewerRow(Base):
    """The name that a session without a login gave."""

    __tablename__ = "reviewers"

    owner: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


class ReviewStore(SessionStore):
    """Sessions of the review page, with the reviewers' names."""

    def reviewer(self, owner: str) -> str:
        """Return a session's name, empty where it gave none."""
        with self.transaction() as rows:
            found = rows.get(ReviewerRow, owner)
            return found.name if found else ""

    def name_reviewer(self, owner: str, name: str) -> None:
        """Keep a session's name."""
        with self.transaction() as rows:
            rows.merge(ReviewerRow(owner=owner, name=name))

    def shares_name(self, owner: str, name: str) -> bool:
        """Whether another session has a name."""
        said = select(ReviewerRow).where(ReviewerRow.name == name, ReviewerRow.owner != owner)
        with self.transaction() as rows:
            return rows.scalars(said).first() is not None
