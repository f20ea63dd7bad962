"""One window's conversation: ask, stop, retry, undo, edit, judge; nothing here draws anything."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.records.verdict import Verdict
from serve.conversations.autosave import Autosave
from serve.conversations.client import (
    ChatClient,
    ReplyOptions,
    ReplyTiming,
    outcome,
    request_body,
    stream_reply,
)
from serve.conversations.dialogue import (
    MAX_CHARACTERS,
    SEEDS,
    Dialogue,
    Turn,
    check_text,
    clean,
    now,
)
from serve.conversations.verdicts import verdict_on
from serve.conversations.window import Window

REDRAW_S = 0.05
SAVE_EVERY_S = 2.0
"""So much of a reply is lost at most where the page's replica dies."""


@dataclass
class ChatWindow(Window):
    autosave: Autosave
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the API lists, by id."""
    timing: ReplyTiming = field(default_factory=ReplyTiming)
    titles: list[tuple[str, str]] = field(default_factory=list)
    """Names and ids of the session's conversations, as last read."""
    answered: list[Dialogue] = field(default_factory=list)
    """Conversations whose reply has not ended, or is not handed to `Autosave` yet."""

    def leave(self) -> None:
        """Turn to another conversation; a reply under way ends."""
        super().leave()
        self.timing = ReplyTiming()

    def open(self, dialogue: Dialogue) -> None:
        self.leave()
        self.dialogue = dialogue
        if dialogue.turns and dialogue.turns[-1].role == "user":
            self.draft = dialogue.turns.pop().content
            self.notice = "The last message has no reply; it is back in the box below."

    def catch_up(self, dialogue: Dialogue) -> None:
        """Take up the conversation as another window left it."""
        self.open(dialogue)
        self.notice = (
            "This conversation went on in another window and is shown as it is now. "
            "Look at it, then do again what you wanted to do."
        )

    def give_back(self, text: str) -> None:
        """Put text into the composer that was not sent, after what is there already."""
        texts = [self.draft, text[:MAX_CHARACTERS]]
        self.draft = "\n\n".join(text for text in texts if text.strip())

    def add_prompt(self, text: str) -> list[Turn] | None:
        """Add the user's turn; return turns to fall back on without a reply, none if refused."""
        self.notice, self.draft, before = "", "", list(self.dialogue.turns)
        try:
            self.dialogue.turns.append(Turn("user", self.check_prompt(text)))
        except UserError as error:
            self.notice, self.draft = str(error), text[:MAX_CHARACTERS]
            return None
        return before

    def retry(self, place: int) -> list[Turn] | None:
        """Go back to the user's turn at or before a place; return as `add_prompt` does."""
        before = list(self.dialogue.turns)
        last = self.user_turn(place)
        if self.busy or last is None:
            return None
        self.notice, self.draft = "", ""
        del self.dialogue.turns[last + 1 :]
        return before

    def edit(self, place: int, text: str) -> list[Turn] | None:
        """Mend a reply in place, or replace a user's turn and return as `add_prompt` does."""
        turns = self.dialogue.turns
        if self.busy or not 0 <= place < len(turns):
            return None
        try:
            text = check_text(text)
        except UserError as error:
            self.notice = str(error)
            return None
        before, turn = list(turns), turns[place]
        if turn.role == "user":
            turns[place:] = [Turn("user", text, original=turn.content)]
            self.notice, self.draft = "", ""
            return before
        turn.content, turn.original = text, turn.original or turn.content
        self.notice = "Your wording of the reply is kept; the conversation goes on from it."
        self.changed()
        return None

    async def answer(
        self, client: ChatClient, options: ReplyOptions, before: list[Turn]
    ) -> AsyncGenerator[None, None]:
        """Stream a reply to the last turn, and save it as far as it came.

        Args:
            options: how; a seed that an earlier reply used up is followed by the next.
            before: the turns to fall back on where the reply is empty.
        """
        dialogue, stop, self.timing = self.dialogue, asyncio.Event(), ReplyTiming()
        earlier = before[len(dialogue.turns) :][:1]
        turn = options.turn()
        if options.seed is not None and earlier and earlier[0].seed is not None:
            turn.seed = (max(earlier[0].seed, options.seed) + 1) % SEEDS
        body = request_body(dialogue, turn)
        self.autosave.save(dialogue)
        saved = time.monotonic()
        dialogue.turns.append(turn)
        self.answered.append(dialogue)
        self.stop, drawn = stop, 0.0
        try:
            async with aclosing(stream_reply(client, body, turn, self.timing, stop)) as steps:
                async for _ in steps:
                    if turn.content.strip() and time.monotonic() - saved >= SAVE_EVERY_S:
                        self.autosave.save(dialogue)
                        saved = time.monotonic()
                    if self.stop is stop and time.monotonic() - drawn >= REDRAW_S:
                        yield
                        drawn = time.monotonic()
        finally:
            self.close(dialogue, turn, stop, before)
            self.answered = [other for other in self.answered if other is not dialogue]

    async def settle(self) -> None:
        """Wait for what is being saved, and read the list of conversations anew."""
        titles = await self.autosave.titles()
        self.titles = self.titles if titles is None else titles

    def close(
        self, dialogue: Dialogue, turn: Turn, stop: asyncio.Event, before: list[Turn]
    ) -> None:
        """Keep a reply as far as it came; without any, all is as before the question."""
        turn.finish_reason = turn.finish_reason or "stopped"
        dialogue.updated = now()
        question = dialogue.turns[-2]
        back = not turn.content.strip() and question not in before
        if not turn.content.strip():
            dialogue.turns[:] = before
        if self.stop is stop:
            self.stop, self.notice = None, outcome(turn, self.timing)
            if back:
                self.draft = question.content
                self.notice += " Your message is back in the box below."
        self.keep(dialogue)

    def undo(self, place: int) -> None:
        """Take an exchange back, and all after it; the user's text returns to the composer."""
        first = self.user_turn(place)
        if self.busy or first is None:
            return
        self.notice, self.draft = "", self.dialogue.turns[first].content
        del self.dialogue.turns[first:]
        self.changed()

    def rename(self, title: str) -> None:
        """Give the conversation a title; an empty one leaves it to the first prompt."""
        title = " ".join(clean(title).split())[:200]
        if self.dialogue.turns and title not in {self.dialogue.name, self.dialogue.title}:
            self.dialogue.title = title
            self.autosave.save(self.dialogue)

    def set_system(self, system: str) -> None:
        """Change the system line, from the next reply on."""
        self.dialogue.system = clean(system[:MAX_CHARACTERS])

    def thumb(self, place: int, liked: bool | None) -> None:
        """Set a reply's thumb; none takes it back."""
        turns = self.dialogue.turns
        if self.busy or not 0 <= place < len(turns) or turns[place].role != "assistant":
            return
        turn = turns[place]
        turn.thumb = None if liked is None else "up" if liked else "down"
        if turn.thumb is None:
            self.autosave.unjudge(f"thumb-{turn.id}")
        else:
            self.autosave.judge(thumb_verdict(self.dialogue, place, self.session.annotator))
        self.autosave.save(self.dialogue)

    def changed(self) -> None:
        self.dialogue.updated = now()
        self.keep(self.dialogue)

    def keep(self, dialogue: Dialogue) -> None:
        """Save a conversation, or delete one that has nothing left."""
        if dialogue.turns:
            self.autosave.save(dialogue)
        else:
            self.autosave.forget(dialogue)

    def user_turn(self, place: int) -> int | None:
        """Return the place of the user's turn at or before a place."""
        turns = self.dialogue.turns
        places = range(min(place, len(turns) - 1), -1, -1)
        return next((p for p in places if turns[p].role == "user"), None)


def thumb_verdict(dialogue: Dialogue, place: int, annotator: str) -> Verdict:
    turn = dialogue.turns[place]
    return verdict_on(
        [turn],
        dialogue.turns[:place],
        dialogue.system,
        kind="thumbs",
        annotator=annotator,
        verdict=turn.thumb,
        order=(0,),
        key=f"thumb-{turn.id}",
        extra={"originals": [turn.original], "conversation": dialogue.id},
    )
