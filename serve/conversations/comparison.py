"""A blind comparison: two contestants answer one conversation, a person votes, one of them goes on.

The two are shown as A and B in an order drawn anew each round; their names appear with the vote.
The vote is LIMA's: A significantly better, B significantly better, or neither (LIMA section 4).
"""

import asyncio
import copy
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from lima_ray.config.errors import UserError
from lima_ray.records.verdict import Verdict
from serve.conversations.client import (
    ChatClient,
    ReplyOptions,
    ReplyTiming,
    outcome,
    request_body,
    stream_reply,
)
from serve.conversations.dialogue import MAX_CHARACTERS, Dialogue, Turn, clean, new_id
from serve.conversations.verdicts import verdict_on
from serve.conversations.window import Window

Vote = Literal["A", "B", "neither"]
REDRAW_S = 0.08


@dataclass
class Round:
    """One prompt with its two replies, in the order shown."""

    order: tuple[int, int]
    """Which of the contestants, as configured, is shown as A and which as B."""
    replies: tuple[Turn, Turn]
    """A's and B's."""
    timings: tuple[ReplyTiming, ReplyTiming] = field(
        default_factory=lambda: (ReplyTiming(), ReplyTiming())
    )
    id: str = field(default_factory=new_id)
    vote: Vote | None = None
    goes_on: int = 0
    """Whose reply the conversation goes on from: 0 is A's."""

    @property
    def complete(self) -> bool:
        """Whether there are two replies to compare."""
        return all(turn.content.strip() and turn.finish_reason != "error" for turn in self.replies)


@dataclass
class ComparisonWindow(Window):
    """A browser window's compare tab; the dialogue goes up to the prompt that is answered."""

    round: Round | None = None

    def leave(self) -> None:
        """Start anew; replies under way end."""
        super().leave()
        self.dialogue, self.round = Dialogue(), None

    def add_prompt(self, text: str, system: str) -> bool:
        """Add the user's turn after the reply chosen before; false where it cannot be."""
        self.notice, self.draft = "", ""
        try:
            checked = self.check_prompt(text)
            if self.round is not None and self.round.vote is None:
                raise UserError("Vote on these two replies first; then the conversation goes on.")
        except UserError as error:
            self.notice, self.draft = str(error), text
            return False
        if self.round is not None:
            self.dialogue.turns.append(self.round.replies[self.round.goes_on])
        self.dialogue.system = clean(system[:MAX_CHARACTERS])
        self.dialogue.turns.append(Turn("user", checked))
        self.round = None
        return True

    async def answer(
        self, client: ChatClient, contestants: tuple[ReplyOptions, ReplyOptions]
    ) -> AsyncGenerator[None, None]:
        """Stream both replies at once, in an order drawn anew."""
        order = (0, 1) if secrets.randbelow(2) == 0 else (1, 0)
        replies = contestants[order[0]].turn(), contestants[order[1]].turn()
        self.round = this = Round(order, replies)
        self.stop = stop = asyncio.Event()

        async def fill(place: int) -> None:
            turn = this.replies[place]
            body = request_body(self.dialogue, turn)
            steps = stream_reply(client, body, turn, this.timings[place], stop)
            async with aclosing(steps):
                async for _ in steps:
                    pass

        tasks = [asyncio.create_task(fill(place)) for place in (0, 1)]
        try:
            while self.stop is stop and any(not task.done() for task in tasks):
                yield
                await asyncio.wait(tasks, timeout=REDRAW_S)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if self.stop is stop:
                self.stop = None
                self.close(this)

    def close(self, this: Round) -> None:
        """Say how the round ended; without two replies, the prompt goes back to the composer."""
        for turn in this.replies:
            turn.finish_reason = turn.finish_reason or "stopped"
        if this.complete:
            self.notice = cut_off(this)
            return
        reasons = {
            outcome(turn, timing) for turn, timing in zip(this.replies, this.timings, strict=True)
        }
        self.notice = " ".join(sorted(reasons - {""}))
        self.notice += " There are not two replies to compare; your message is back in the box."
        self.draft = self.dialogue.turns.pop().content
        self.round = None
        if self.dialogue.turns:  # it goes on from the reply of the round before
            reply = self.dialogue.turns.pop()
            self.round = Round((0, 1), (reply, reply), vote="neither")

    def judge(self, vote: Vote, annotator: str) -> Verdict | None:
        """Take the vote and return its verdict; none where there is nothing to vote on."""
        this = self.round
        if this is None or self.busy or this.vote is not None:
            return None
        this.vote, self.notice = vote, ""
        this.goes_on = 1 if vote == "B" else 0
        return pairwise_verdict(this, self.dialogue, annotator)

    def go_on_from(self, place: int) -> None:
        """Choose whose reply the conversation goes on from."""
        if self.round is not None and self.round.vote is not None:
            self.round.goes_on = place

    def side(self, place: int) -> Dialogue:
        """Return the conversation as A (0) or B (1) has it."""
        shown = copy.copy(self.dialogue)
        shown.turns = list(self.dialogue.turns)
        if self.round is not None:
            shown.turns.append(self.round.replies[place])
        return shown


def cut_off(this: Round) -> str:
    """Return what a judge must know of how the replies ended, without saying whose they are."""
    notes = []
    for name, turn in zip("AB", this.replies, strict=True):
        if turn.finish_reason == "length":
            notes.append(f"Reply {name} hit its length limit.")
        elif turn.finish_reason == "stopped":
            notes.append(f"Reply {name} was stopped.")
    if dropped := max(turn.dropped_messages for turn in this.replies):
        notes.append(f"The oldest {dropped} messages were left out for want of context.")
    return " ".join(notes)


def pairwise_verdict(this: Round, dialogue: Dialogue, annotator: str) -> Verdict:
    """Return the verdict of a vote: `models` as configured, `order` as shown.

    `stopped`, `replies`, `revisions`, `sampling` and `seeds` go with `models`; the verdict is
    about the order: `models[order[0]]` was shown as A.
    """
    by_model = [this.replies[this.order.index(place)] for place in (0, 1)]
    return verdict_on(
        by_model,
        dialogue.turns,
        dialogue.system,
        kind="pairwise",
        annotator=annotator,
        verdict=this.vote,
        order=this.order,
        stopped=tuple(turn.finish_reason == "stop" for turn in by_model),
        key=f"vote-{this.id}",
    )
