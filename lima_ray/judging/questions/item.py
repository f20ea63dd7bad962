"""One question to a judge: about a reply, a turn of a dialogue, or a dialogue as a whole.

item = Item("pairwise", ("lima", "alpaca"), ((reply,), (other,)))
item.shown            # what the judge sees: A, then B; it says nothing of who wrote them
item.swapped()        # the same question with the sides exchanged
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

from lima_ray.records.reply import Reply

ItemKind = Literal["pairwise", "grade", "audit", "safety"]
KINDS: tuple[ItemKind, ...] = get_args(ItemKind)
DIGEST = 16
"""Hex digits of the hashes that tell questions and judgements apart."""


@dataclass(frozen=True)
class Side:
    """What a judge sees of one model, which it does not name."""

    system: str
    """The system message; empty where there was none."""
    turns: tuple[str, ...]
    """The dialogue, the user's turn first, a judged reply last."""
    judged: tuple[int, ...]
    """Places in `turns` of the replies that are judged."""

    @property
    def context(self) -> tuple[str, ...]:
        """The turns before the first judged reply, the user's last."""
        return self.turns[: self.judged[0]]

    @property
    def answer(self) -> tuple[str, ...]:
        """The turns from the first judged reply on: one reply, or the rest of a dialogue."""
        return self.turns[self.judged[0] :]


@dataclass(frozen=True)
class Item:
    """A question of one kind about replies to one prompt."""

    kind: ItemKind
    models: tuple[str, ...]
    """Who is judged: two of a pairwise question, else one."""
    replies: tuple[tuple[Reply, ...], ...]
    """Of each model what is judged: one reply, or all of a dialogue in the order of its turns."""
    order: tuple[int, ...] = ()
    """In which models are shown: `models[order[0]]` as A. Empty takes them as they stand."""
    whole: bool = False
    """Whether a dialogue is judged as a whole; its verdicts have no `turn`."""

    def __post_init__(self) -> None:
        if not self.order:
            object.__setattr__(self, "order", tuple(range(len(self.models))))

    @property
    def id(self) -> str:
        """Of the prompt."""
        return self.replies[0][0].id

    @property
    def sample(self) -> int:
        return self.replies[0][0].sample

    @property
    def turn(self) -> int | None:
        return None if self.whole else self.replies[0][0].turn

    @property
    def shown(self) -> tuple[Side, ...]:
        """The sides as the judge sees them: A, then B."""
        return tuple(show(self.replies[place]) for place in self.order)

    @cached_property
    def content(self) -> tuple[str, ...]:
        """A hash of each model's dialogue, in the order of `models`."""
        sides = [show(replies) for replies in self.replies]
        return tuple(digest([side.system, side.turns, side.judged]) for side in sides)

    @cached_property
    def key(self) -> str:
        """A hash that names the question, whoever is asked; another order is another question."""
        about = self.kind, self.id, self.sample, self.turn
        return item_key(about, self.models, self.content, self.order)

    def with_order(self, order: tuple[int, ...]) -> "Item":
        return replace(self, order=order)

    def swapped(self) -> "Item":
        """Return the same question with the sides exchanged."""
        return self.with_order(self.order[::-1])


def item_key(
    about: tuple[object, ...], models: Sequence[str], content: Sequence[str], order: Sequence[int]
) -> str:
    """Return the key of an item of this kind, prompt, sample and turn, as it is shown."""
    shown = [(models[place], content[place]) for place in order]
    return digest([*about, shown])


def show(replies: tuple[Reply, ...]) -> Side:
    """Return the dialogue that ends with the last of these replies."""
    last = replies[-1]
    return Side(
        system=last.system or "",
        turns=(*last.conversations, last.reply),
        judged=tuple(len(reply.conversations) for reply in replies),
    )


def digest(value: object) -> str:
    """Return 16 hex digits of the SHA-256 of a value's JSON."""
    said = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
