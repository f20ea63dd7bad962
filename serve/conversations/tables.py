"""The tables of the store: conversations with their turns, verdicts, settings."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Index, Text, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Time(TypeDecorator[datetime]):
    """A time in UTC; SQLite keeps none of its zone, so it is said again on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The time as read, in UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """What all tables share: times carry their zone, mappings are JSON."""

    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy's own form
        datetime: Time,
        dict[str, Any]: JSON,
        str: Text,
    }


class DialogueRow(Base):
    """One conversation."""

    __tablename__ = "conversations"
    __table_args__ = (Index("conversations_of_owner", "owner", "updated"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str]
    title: Mapped[str]
    system: Mapped[str]
    created: Mapped[datetime]
    updated: Mapped[datetime]
    version: Mapped[str] = mapped_column(server_default="")
    """Named anew by each write; whoever writes must have read the one that is here."""
    turns: Mapped[list["TurnRow"]] = relationship(
        cascade="all, delete-orphan", order_by="TurnRow.place", lazy="selectin"
    )


class TurnRow(Base):
    """One message, and what made it."""

    __tablename__ = "turns"

    id: Mapped[str] = mapped_column(primary_key=True)
    conversation: Mapped[str] = mapped_column(
        ForeignKey("conversations.id", ondelete="CASCADE"), index=True
    )
    place: Mapped[int]
    role: Mapped[str]
    content: Mapped[str]
    model: Mapped[str | None]
    revision: Mapped[str | None]
    seed: Mapped[int | None] = mapped_column(BigInteger)
    sampling: Mapped[dict[str, Any]]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    finish_reason: Mapped[str | None]
    dropped_messages: Mapped[int]
    original: Mapped[str | None]
    thumb: Mapped[str | None]
    created: Mapped[datetime]


class VerdictRow(Base):
    """One vote or thumb; the record is whole in itself."""

    __tablename__ = "verdicts"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    created: Mapped[datetime]
    record: Mapped[dict[str, Any]]


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
