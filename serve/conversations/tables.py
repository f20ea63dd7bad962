"""The tables of the store: conversations with their turns, and verdicts."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column, relationship

from lima_ray.web.database import Base


class DialogueRow(Base):
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
