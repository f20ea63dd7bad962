"""Save in the background: a database that is away costs no reply, and what it missed is told."""

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lima_ray.config.errors import join_names
from lima_ray.records.verdict import Verdict
from lima_ray.web.database import DatabaseError
from serve.conversations.dialogue import Dialogue, new_id
from serve.conversations.store import Conflict, Store

NAMES_SHOWN = 3
MAX_KEPT = 200


@dataclass
class PendingWrite:
    """One thing to write, and what to call it where it could not be."""

    name: str
    method: Callable[..., None]
    arguments: tuple[Any, ...]
    dialogue: Dialogue | None = None
    """The conversation in the window, of which the arguments hold a copy."""
    version: str = field(default_factory=new_id)
    """What the copy is called once it is written."""

    def begin(self) -> tuple[Any, ...]:
        """Return the method's arguments, with the conversation's version as it is known by now."""
        if self.dialogue is None:
            return self.arguments
        owner, copied = self.arguments
        copied.version, copied.attempts = self.dialogue.version, self.dialogue.attempts
        if self.method is Store.forget:
            return self.arguments
        self.dialogue.attempts = tuple({*self.dialogue.attempts, self.version})
        return owner, copied, self.version

    def end(self) -> None:
        """Note on the conversation that it is written."""
        if self.dialogue is not None:
            _, copied = self.arguments
            self.dialogue.version, self.dialogue.attempts = copied.version, ()


@dataclass
class Autosave:
    """Saves one window's conversations in the background: the newest state of each thing."""

    store: Store
    owner: str
    waiting: dict[str, PendingWrite] = field(default_factory=dict)
    problem: str | None = None
    """Why the last attempt failed; none where everything is saved."""
    recovered: int = 0
    """Things saved late, until somebody has been told."""
    lost: int = 0
    """Things given up, because too many waited."""
    conflicts: list[str] = field(default_factory=list)
    """What happened to conversations that another window changed, until somebody has been told."""
    task: asyncio.Task[None] | None = None

    def save(self, dialogue: Dialogue) -> None:
        copied = copy.deepcopy(dialogue)
        last = copied.turns[-1] if copied.turns else None
        if last and last.role == "assistant" and not last.content.strip():
            copied.turns.pop()  # a reply of which nothing has come yet
        change = PendingWrite(f"“{dialogue.name}”", Store.save, (self.owner, copied), dialogue)
        self.later(dialogue.id, change)

    def forget(self, dialogue: Dialogue) -> None:
        name, copied = f"the deletion of “{dialogue.name}”", copy.copy(dialogue)
        self.later(dialogue.id, PendingWrite(name, Store.forget, (self.owner, copied), dialogue))

    def judge(self, verdict: Verdict) -> None:
        self.later(verdict.key, PendingWrite("a vote", Store.judge, (self.owner, verdict)))

    def unjudge(self, key: str) -> None:
        self.later(key, PendingWrite("a vote taken back", Store.unjudge, (self.owner, key)))

    def later(self, key: str, change: PendingWrite) -> None:
        """Replace what waits under a key, and start to write."""
        self.waiting.pop(key, None)
        self.waiting[key] = change
        while len(self.waiting) > MAX_KEPT:
            self.waiting.pop(next(iter(self.waiting)))
            self.lost += 1
        self.start()

    def start(self) -> None:
        """Write in the background unless that is under way."""
        if self.waiting and (self.task is None or self.task.done()):
            self.task = asyncio.create_task(self.write())

    async def write(self) -> None:
        """Write what waits, the oldest first, until it is done or the database fails."""
        late = self.problem is not None
        while self.waiting:
            key, change = next(iter(self.waiting.items()))
            try:
                conflict = await self.attempt(change)
            except DatabaseError as error:
                self.problem = str(error)
                return
            if conflict is not None:
                self.keep_both(key, change, *conflict)
                continue
            change.end()
            self.recovered += late
            if self.waiting.get(key) is change:
                del self.waiting[key]
        self.problem = None

    async def attempt(self, change: PendingWrite) -> tuple[str, Dialogue | None] | None:
        """Write one thing, or raise DatabaseError.

        Return what another window did to the conversation and left of it; none if it did nothing.
        """
        try:
            await self.store.off_loop(change.method, *change.begin())
        except Conflict as conflict:
            owner, copied, *_ = change.arguments
            return str(conflict), await self.store.off_loop(Store.open, owner, copied.id)
        return None

    def keep_both(self, key: str, change: PendingWrite, what: str, kept: Dialogue | None) -> None:
        """Keep what another window did, and save this window's as another conversation."""
        newest = self.waiting.pop(key, change)
        dialogue = newest.dialogue
        assert dialogue is not None
        name = dialogue.name
        if newest.method is Store.forget:
            self.conflicts.append(f"“{name}” {what} meanwhile and is not deleted.")
            return
        renamed = dialogue.become_another()
        theirs = {turn.id for turn in kept.turns if turn.thumb} if kept else set[str]()
        for old, turn in renamed.items():
            if turn.thumb:
                keys = (f"thumb-{old}", f"thumb-{turn.id}")
                move = (self.owner, *keys, dialogue.id, old in theirs)
                self.later(f"move-{turn.id}", PendingWrite("a vote", Store.move_verdict, move))
        self.conflicts.append(
            f"“{name}” {what} meanwhile. Nothing is lost: what this window has is now a "
            f"conversation of its own, “{dialogue.name}”."
        )
        self.save(dialogue)

    async def settle(self) -> None:
        """Wait for the writing under way; it takes a bounded time."""
        self.start()
        if self.task is not None:
            await asyncio.wait({self.task})

    async def titles(self) -> list[tuple[str, str]] | None:
        """Return names and ids of the conversations, when all is written; none if it fails."""
        await self.settle()
        try:
            titles = await self.store.off_loop(Store.titles, self.owner)
        except DatabaseError as error:
            self.problem = str(error)
            return None
        if not self.waiting:
            self.problem = None
        return titles

    def message(self) -> str:
        """Return what to tell the user, once; empty where all is well."""
        if self.problem is not None:
            names = [change.name for change in self.waiting.values()]
            shown = join_names(names, NAMES_SHOWN)
            kept = (
                f" Not saved: {shown}. This window keeps that, and saves it when the database is "
                "back; do not close it until then."
            )
            gone = f" {self.lost} older changes are lost." if self.lost else ""
            away = f"Nothing is being saved: the database does not answer ({self.problem})."
            return away + (kept if names else "") + gone
        if self.recovered:
            count, self.recovered = self.recovered, 0
            things = "1 change" if count == 1 else f"{count} changes"
            self.conflicts.append(f"The database is back: {things} of the time without it saved.")
        message, self.conflicts = " ".join(self.conflicts), []
        return message
