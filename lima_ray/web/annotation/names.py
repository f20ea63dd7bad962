"""People's names: a login is its own name; a browser without one is asked for a name once."""

from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column

from lima_ray.web.database import Base, DatabaseError
from lima_ray.web.session_store import SessionStore
from lima_ray.web.sessions import Session

MAX_NAME_CHARACTERS = 60


class NameRow(Base):
    """The name that a session without a login gave."""

    __tablename__ = "reviewers"  # as in databases of earlier versions

    owner: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]


class NamedSessionStore(SessionStore):
    """Sessions, with the names that they gave."""

    def name_of(self, owner: str) -> str:
        """Return a session's name, empty where it gave none."""
        with self.transaction() as rows:
            found = rows.get(NameRow, owner)
            return found.name if found else ""

    def keep_name(self, owner: str, name: str) -> None:
        with self.transaction() as rows:
            rows.merge(NameRow(owner=owner, name=name))

    def shares_name(self, owner: str, name: str) -> bool:
        """Whether another session has a name."""
        said = select(NameRow).where(NameRow.name == name, NameRow.owner != owner)
        with self.transaction() as rows:
            return rows.scalars(said).first() is not None


class NamePrompt:
    """Asks a browser without a login for a name; one that another browser has, twice."""

    def __init__(self, store: NamedSessionStore, what: str) -> None:
        """Keep names in a store; `what` people do under them is called so, such as decisions."""
        self.store, self.what = store, what
        self.asked_again: dict[str, str] = {}
        """Names that others have too, by the session that was told so."""

    def name_of(self, session: Session) -> str:
        """Return the login's name, or what the session gave; empty where it is to be asked.

        Raises:
            DatabaseError: the names cannot be read.
        """
        return session.user or self.store.name_of(session.owner)

    def give(self, owner: str, name: str) -> tuple[str, str]:
        """Return the name that is kept of now on, else none and what is to be told."""
        name = " ".join("".join(c for c in name if c.isprintable()).split())[:MAX_NAME_CHARACTERS]
        if not name:
            return "", f"Give a name, under which your {self.what} are kept."
        try:
            if self.store.shares_name(owner, name) and self.asked_again.pop(owner, "") != name:
                self.asked_again[owner] = name
                return "", (
                    f"{name} is a name in another browser. Press Begin again if that is you too; "
                    f"else take another name, or your {self.what} count as theirs."
                )
            self.store.keep_name(owner, name)
        except DatabaseError:
            return "", "The name cannot be kept at the moment. Try again."
        return name, ""
