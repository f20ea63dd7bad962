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
from typing import Any, Literal

from lima_ray.config.errors import UserError
from lima_ray.records.verdict import Verdict, prompt_id
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
    new_id,
    now,
)

Vote = Literal["A", "B", "neither"]
REDRAW_S = 0.08


@dataclass(frozen=True)
class Contestant:
    """A model and how it is decoded."""

    model: str
    sampling: dict[str, Any]


@dataclass
class Round:
    """One prompt with its two replies, in the order shown."""

    contestants: tuple[Contestant, Contestant]
    """As configured; `order` says which is shown as A."""
    order: tuple[int, int]
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
    def whole(self) -> bool:
        """Whether there are two replies to compare."""
        return all(turn.content.strip() and turn.finish_reason != "error" for turn in self.replies)


@dataclass
class ComparisonWindow:
    """A browser window's compare tab."""

    owner: str
    """Whose window it is."""
    dialogue: Dialogue = field(default_factory=Dialogue)
    """Up to the prompt that is being answered."""
    round: Round | None = None
    stop: asyncio.Event | None = None
    notice: str = ""
    draft: str = ""

    @property
    def busy(self) -> bool:
        """Whether replies are under way."""
        return self.stop is not None

    def leave(self) -> None:
        """Start anew: what is being said ends."""
        if self.stop is not None:
            self.stop.set()
        self.dialogue, self.round, self.stop = Dialogue(), None, None
        self.notice, self.draft = "", ""

    def say(self, text: str, system: str) -> bool:
        """Add the user's turn after the reply chosen before; false where it cannot be."""
        self.notice, self.draft = "", ""
        try:
            said = check_text(text)
            if len(self.dialogue.turns) >= MAX_TURNS:
                raise UserError(f"The conversation has {MAX_TURNS} messages; start a new one.")
            if self.round is not None and self.round.vote is None:
                raise UserError("Vote on these two replies first; then the conversation goes on.")
        except UserError as error:
            self.notice, self.draft = str(error), text
            return False
        if self.round is not None:
            self.dialogue.turns.append(self.round.replies[self.round.goes_on])
        self.dialogue.system = clean(system[:MAX_CHARACTERS])
        self.dialogue.turns.append(Turn("user", said))
        self.round = None
        return True

    async def answer(
        self, client: ChatClient, contestants: tuple[Contestant, Contestant], seed: int | None
    ) -> AsyncGenerator[None, None]:
        """Stream both replies at once, in an order drawn anew."""
        order = (0, 1) if secrets.randbelow(2) == 0 else (1, 0)
        shown = [contestants[place] for place in order]
        seeds = [secrets.randbelow(SEEDS) if seed is None else seed for _ in order]
        turns = tuple(
            Turn("assistant", "", model=one.model, seed=drawn, sampling=one.sampling)
            for one, drawn in zip(shown, seeds, strict=True)
        )
        self.round = this = Round(contestants, order, (turns[0], turns[1]))
        self.stop = stop = asyncio.Event()

        async def fill(place: int) -> None:
            turn = this.replies[place]
            body = request_body(turn.model or "", self.dialogue, turn.sampling, turn.seed or 0)
            async with aclosing(
                stream_reply(client, body, turn, this.timings[place], stop)
            ) as steps:
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
        if this.whole:
            self.notice = cut_off(this)
            return
        reasons = {
            outcome(turn, timing) for turn, timing in zip(this.replies, this.timings, strict=True)
        }
        self.notice = " ".join(sorted(reasons - {""}))
        self.notice += " There are not two replies to compare; your message is back in the box."
        self.draft = self.dialogue.turns.pop().content
        self.round = None
        if self.dialogue.turns:
            last = self.dialogue.turns.pop()
            self.round = settled(last)

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


def settled(reply: Turn) -> Round:
    """Return a round that is over: the conversation goes on from its one reply."""
    both = Contestant(reply.model or "", reply.sampling)
    return Round((both, both), (0, 1), (reply, reply), vote="neither")


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

    `stopped`, `replies`, `revisions`, `sampling` and `seeds` go with `models`; the verdict speaks
    of the order: `models[order[0]]` was shown as A.
    """
    by_model = [this.replies[this.order.index(place)] for place in (0, 1)]
    prompt, system = [turn.content for turn in dialogue.turns], dialogue.system or None
    return Verdict(
        id=prompt_id(prompt, system),
        kind="pairwise",
        annotator=annotator,
        verdict=this.vote,
        models=tuple(turn.model or "" for turn in by_model),
        order=this.order,
        stopped=tuple(turn.finish_reason == "stop" for turn in by_model),
        key=f"vote-{this.id}",
        extra={
            "conversations": prompt,
            "system": system,
            "replies": [turn.content for turn in by_model],
            "revisions": [turn.revision for turn in by_model],
            "sampling": [turn.sampling for turn in by_model],
            "seeds": [turn.seed for turn in by_model],
            "created": now().isoformat(),
        },
    )
