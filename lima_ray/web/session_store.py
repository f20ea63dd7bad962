"""What the replicas of a page share of its sessions: the signing key, and who logged out."""

import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from lima_ray.web.database import Base, Database, DatabaseError


class SettingRow(Base):
    """A value that every replica shares."""

    __tablename__ = "settings"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class EndedRow(Base):
    """A session whose bearer logged out; kept until its cookie would have expired."""

    __tablename__ = "ended_sessions"

    session: Mapped[str] = mapped_column(primary_key=True)
    until: Mapped[datetime]


class SessionStore(Database):
    """A database that keeps sessions beside what its page keeps."""

    def end_session(self, session: str, max_age_s: float) -> None:
        """Keep that a session's bearer logged out, for as long as its cookie could be good."""
        with self.transaction() as rows:
            rows.execute(delete(EndedRow).where(EndedRow.until < datetime.now(UTC)))
            rows.merge(
                EndedRow(session=session, until=datetime.now(UTC) + timedelta(seconds=max_age_s))
            )

    def ended_sessions(self) -> set[str]:
        with self.transaction() as rows:
            return set(rows.scalars(select(EndedRow.session)))

    def secret(self) -> bytes:
        """Return the key that signs cookies: made once, the same for every replica."""
        made = secrets.token_hex(32)
        try:
            with self.transaction() as session:
                if (row := session.get(SettingRow, "secret")) is not None:
                    return bytes.fromhex(row.value)
                session.add(SettingRow(name="secret", value=made))
        except DatabaseError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            return self.secret()
        return bytes.fromhex(made)
