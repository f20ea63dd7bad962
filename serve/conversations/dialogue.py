"""Dialogues of the chat page: turns that keep what made them, and their form as training data."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from lima_ray.config.errors import UserError
from lima_ray.records.example import Example

SOURCE = "chat"
TITLE_CHARACTERS = 60
UNTITLED = "New conversation"
SECOND = "(second window)"
MAX_CHARACTERS = 32_000
MAX_TURNS = 400
SEEDS = 2**31


def new_id() -> str:
    """Return a name that nobody guesses."""
    return secrets.token_hex(16)


def now() -> datetime:
    return datetime.now(UTC)


def clean(text: str) -> str:
    """Remove what UTF-8 or a database cannot hold: halves of surrogate pairs, and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


@dataclass
class Turn:
    """One message, and for a reply what made it."""

    role: Literal["user", "assistant"]
    content: str
    id: str = field(default_factory=new_id)
    model: str | None = None
    revision: str | None = None
    seed: int | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    """The request's decoding fields, by the API's names."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    """`stop` or `length` as the API says; `stopped` by the reader, `error` where it broke off; none
    while it comes, or where whoever wrote it down did not live to its end."""
    dropped_messages: int = 0
    """Oldest messages that the context had no room for."""
    original: str | None = None
    """What stood here before a person mended it; none where nobody did."""
    thumb: Literal["up", "down"] | None = None
    created: datetime = field(default_factory=now)


@dataclass
class Dialogue:
    """A conversation: turns alternate, the user's first."""

    id: str = field(default_factory=new_id)
    title: str = ""
    """As renamed; empty where the first prompt names it."""
    system: str = ""
    turns: list[Turn] = field(default_factory=list)
    created: datetime = field(default_factory=now)
    updated: datetime = field(default_factory=now)
    version: str = field(default="", compare=False)
    """What the store calls it as it was read or written last; empty where it is not kept yet."""
    attempts: tuple[str, ...] = field(default=(), compare=False)
    """Versions written since, of which the store did not say whether it has them."""

    @property
    def name(self) -> str:
        """Return the title, or the first prompt on one line."""
        words = self.title or (self.turns[0].content if self.turns else "")
        line = " ".join(words.split())
        short = (
            line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1].rstrip() + "…"
        )
        return short or UNTITLED

    def become_another(self) -> dict[str, Turn]:
        """Become another conversation, with new ids and title; return turns by their old ids."""
        self.title = f"{self.name} {SECOND}"
        self.id, self.version, self.attempts = new_id(), "", ()
        renamed = {turn.id: turn for turn in self.turns}
        for turn in self.turns:
            turn.id = new_id()
        return renamed

    def messages(self) -> list[dict[str, str]]:
        """Return OpenAI messages, the system line first where there is one."""
        system = [{"role": "system", "content": self.system}] if self.system.strip() else []
        return system + [{"role": turn.role, "content": turn.content} for turn in self.turns]

    def example(self) -> Example:
        """Return it as a training example; refuse one without a last reply, or an empty turn."""
        if not self.turns:
            raise UserError("the conversation is empty; there is nothing to export")
        if self.turns[-1].role == "user":
            raise UserError(
                "the conversation ends with the user's turn, and training data ends with a reply: "
                "let the model answer, or take the last message back"
            )
        for number, turn in enumerate(self.turns, start=1):
            if not turn.content.strip():
                raise UserError(f"turn {number} is empty; edit it or retry before exporting")
        turns = tuple(turn.content.strip() for turn in self.turns)
        return Example(turns, id=self.id, source=SOURCE, system=self.system.strip() or None)


def check_text(text: str) -> str:
    """Return a message as it may be sent; refuse one that is empty or too long."""
    text = clean(text).strip()
    if not text:
        raise UserError("The message is empty.")
    if len(text) > MAX_CHARACTERS:
        raise UserError(
            f"The message has {len(text):,} letters; at most {MAX_CHARACTERS:,} are taken. "
            "Shorten it or send it in parts."
        )
    return text
