"""One window's conversation: ask, stop, retry, undo, edit, judge; nothing here draws anything."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.records.verdict import Verdict, prompt_id
from lima_ray.web.sessions import Session
from serve.conversations.autosave import Autosave
from serve.conversations.client import (
    ChatClient,
    ReplyTiming,
    outcome,
    request_body,
    stream_reply,
)
from serve.conversations.dialogue import (
    MAX_CHARACTERS,
    MAX_TURNS,
    SEEDS,
    Dialogue,
    Turn,
    check_text,
    clean,
    now,
)

REDRAW_S = 0.05
SAVE_EVERY_S = 2.0
"""So much of a reply is lost at most where the page's replica dies."""


@dataclass(frozen=True)
class ReplyOptions:
    """How the next reply is to be made."""

    model: str
    sampling: dict[str, Any]
    """Decoding fields by the API's names; all but the seed."""
    seed: int | None = None
    """None draws one for each reply."""


@dataclass
class ChatWindow:
    """A browser window's chat tab."""

    session: Session
    autosave: Autosave
    dialogue: Dialogue = field(default_factory=Dialogue)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the API lists, by id."""
    stop: asyncio.Event | None = None
    """Ends the reply under way; none where there is none."""
    timing: ReplyTiming = field(default_factory=ReplyTiming)
    notice: str = ""
    titles: list[tuple[str, str]] = field(default_factory=list)
    """Names and ids of the session's conversations, as last read."""
    draft: str = ""
    """Text that goes back into the composer, because it has no reply."""
    answered: list[Dialogue] = field(default_factory=list)
    """Conversations whose reply has not ended, or is not handed to `Autosave` yet."""

    @property
    def busy(self) -> bool:
        """Whether a reply is under way."""
        return self.stop is not None

    def leave(self) -> None:
        """Turn to another conversation: what is being said ends."""
        if self.stop is not None:
            self.stop.set()
        self.stop, self.notice, self.draft, self.timing = None, "", "", ReplyTiming()

    def open(self, dialogue: Dialogue) -> None:
        """Take up a conversation."""
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

    def say(self, text: str) -> list[Turn] | None:
        """Add the user's turn.

        Returns:
            The turns to fall back on where no reply comes; none where the text is refused.
        """
        self.notice, self.draft, before = "", "", list(self.dialogue.turns)
        try:
            said = check_text(text)
            if len(before) >= MAX_TURNS:
                raise UserError(f"The conversation has {MAX_TURNS} messages; start a new one.")
        except UserError as error:
            self.notice, self.draft = str(error), text[:MAX_CHARACTERS]
            return None
        self.dialogue.turns.append(Turn("user", said))
        return before

    def again(self, place: int) -> list[Turn] | None:
        """Go back to the user's turn at or before a place, to have it answered anew.

        Returns:
            The turns to fall back on where no reply comes; none where there is no such turn.
        """
        before = list(self.dialogue.turns)
        last = self.user_turn(place)
        if self.busy or last is None:
            return None
        self.notice, self.draft = "", ""
        del self.dialogue.turns[last + 1 :]
        return before

    def edit(self, place: int, text: str) -> list[Turn] | None:
        """Replace a turn's text: a reply is mended in place, a user's turn wants a new reply.

        Returns:
            The turns to fall back on where that reply does not come; none where none is due.
        """
        turns = self.dialogue.turns
        if self.busy or not 0 <= place < len(turns):
            return None
        try:
            said = check_text(text)
        except UserError as error:
            self.notice = str(error)
            return None
        before, turn = list(turns), turns[place]
        if turn.role == "user":
            turns[place:] = [Turn("user", said, original=turn.content)]
            self.notice, self.draft = "", ""
            return before
        turn.content, turn.original = said, turn.original or turn.content
        self.notice = "Your wording of the reply is kept; the conversation goes on from it."
        self.changed()
        return None

    async def answer(
        self, client: ChatClient, ask: ReplyOptions, before: list[Turn]
    ) -> AsyncGenerator[None, None]:
        """Stream a reply to the last turn, and save it as far as it came.

        Args:
            client: what answers.
            ask: how; a seed that an earlier reply used up is followed by the next.
            before: the turns to fall back on where nothing is said.
        """
        dialogue, stop, self.timing = self.dialogue, asyncio.Event(), ReplyTiming()
        earlier = before[len(dialogue.turns) :][:1]
        seed = secrets.randbelow(SEEDS) if ask.seed is None else ask.seed
        if ask.seed is not None and earlier and earlier[0].seed is not None:
            seed = (max(earlier[0].seed, seed) + 1) % SEEDS
        body = request_body(ask.model, dialogue, ask.sampling, seed)
        self.autosave.save(dialogue)
        saved = time.monotonic()
        turn = Turn("assistant", "", model=ask.model, seed=seed, sampling=ask.sampling)
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
        """Note the time and save."""
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
    """Return the verdict on one reply."""
    turn, system = dialogue.turns[place], dialogue.system or None
    earlier = [one.content for one in dialogue.turns[:place]]
    return Verdict(
        id=prompt_id(earlier, system),
        kind="thumbs",
        annotator=annotator,
        verdict=turn.thumb,
        models=(turn.model or "",),
        order=(0,),
        key=f"thumb-{turn.id}",
        extra={
            "conversations": earlier,
            "system": system,
            "replies": [turn.content],
            "originals": [turn.original],
            "revisions": [turn.revision],
            "sampling": [turn.sampling],
            "seeds": [turn.seed],
            "conversation": dialogue.id,
            "created": now().isoformat(),
        },
    )
