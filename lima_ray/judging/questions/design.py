"""Which questions a study asks: of whom, in which pairs, and in which order of the sides.

items = design_items("pairwise", read_models(["lima=replies/lima", "other=outputs.csv"]))
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal

from lima_ray.config.errors import SHOWN_ERRORS, UserError, join_names
from lima_ray.judging.questions.item import Item, ItemKind, digest
from lima_ray.records.reply import Reply

Place = tuple[str, int, int | None]
"""Id of a prompt, number of the sample, and the turn; none of a dialogue as a whole."""
Judged = tuple[Reply, ...]
Orders = Literal["both", "seeded", "given"]


def design_items(
    kind: ItemKind,
    models: Mapping[str, Sequence[Reply]],
    *,
    whole: bool = False,
    pairs: Literal["first", "all"] = "first",
    orders: Orders = "both",
    missing: Literal["stop", "drop"] = "stop",
    prompts: Collection[str] = (),
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> list[Item]:
    """Return the questions of one kind, prompt by prompt.

    Args:
        whole: judge dialogues as a whole instead of each of their replies.
        pairs: of pairwise questions, each model against the first, or every two.
        orders: ask each pair in both orders, in one drawn by `seed`, or as the models stand.
        missing: what to do where a model lacks a reply that another has, or that `prompts` asks
            for: stop and name it, or drop the prompt for all models and say so.
        prompts: ids of the prompts to ask about; empty takes all that anybody replies to.
        report: is told what was dropped.

    Raises:
        UserError: unknown ids, missing replies, other prompts under the same id, one model alone.
    """
    if kind == "pairwise" and len(models) < 2:
        raise UserError("a pairwise question needs the replies of two models")
    by_place = {name: group(replies, whole) for name, replies in models.items()}
    if unknown := sorted(set(prompts) - {id for one in by_place.values() for id, _, _ in one}):
        raise UserError(
            f"nobody replies to {len(unknown)} of the prompts: {join_names(unknown, SHOWN_ERRORS)}"
        )
    places = complete_places(by_place, prompts, missing, report)
    check_same_prompts(by_place, places)
    found = []
    for place in places:
        for names in judged_together(kind, list(models), pairs):
            item = Item(kind, names, tuple(by_place[n][place] for n in names), whole=whole)
            found += ordered(item, orders, seed)
    return found


def group(replies: Sequence[Reply], whole: bool) -> dict[Place, Judged]:
    """Return what is judged in each place: a reply, or the replies of a dialogue by turn."""
    if not whole:
        return {(reply.id, reply.sample, reply.turn): (reply,) for reply in replies}
    dialogues: dict[Place, list[Reply]] = defaultdict(list)
    for reply in replies:
        dialogues[reply.id, reply.sample, None].append(reply)
    return {
        place: tuple(sorted(turns, key=lambda reply: reply.turn))
        for place, turns in dialogues.items()
    }


def complete_places(
    by_place: Mapping[str, Mapping[Place, Judged]],
    prompts: Collection[str],
    missing: Literal["stop", "drop"],
    report: Callable[[str], None],
) -> list[Place]:
    """Return the places in which every model replies; name each model that lacks some."""
    every = list(dict.fromkeys(place for one in by_place.values() for place in one))
    if prompts:
        every = [place for place in every if place[0] in set(prompts)]
    turns = {
        place: max(len(one[place]) for one in by_place.values() if place in one) for place in every
    }
    lacking = {
        name: [place for place in every if len(one.get(place, ())) < turns[place]]
        for name, one in by_place.items()
    }
    told = [
        f"{name} lacks {len(some)} of {len(every)} replies: "
        f"{join_names(list(map(describe_place, some)), SHOWN_ERRORS)}"
        for name, some in lacking.items()
        if some
    ]
    gone = {place for some in lacking.values() for place in some}
    kept = [place for place in every if place not in gone]
    if told and missing == "stop":
        raise UserError("\n  ".join([*told, "make them, or judge what all have by --missing drop"]))
    if told:
        report("\n  ".join([*told, f"{len(kept)} of {len(every)} are judged, for every model"]))
    if not kept:
        raise UserError("there is nothing to judge: the models reply to no prompt in common")
    return kept


def describe_place(place: Place) -> str:
    id, sample, turn = place
    return f"{id}{f' sample {sample}' if sample else ''}{f' turn {turn}' if turn else ''}"


def check_same_prompts(
    by_place: Mapping[str, Mapping[Place, Judged]], places: Sequence[Place]
) -> None:
    """Refuse an id under which models were asked different things."""
    for place in places:
        asked = {}
        for name, one in by_place.items():
            last = one[place][-1]
            # In a dialogue the user's turns are the same, the replies between them are not.
            asked[last.system or "", *last.conversations[::2]] = name
        if len(asked) > 1:
            first, second = list(asked.values())[:2]
            raise UserError(
                f"{first} and {second} were asked different things under the id {place[0]!r}; "
                "only replies to the same prompts compare"
            )


def judged_together(kind: ItemKind, names: list[str], pairs: str) -> list[tuple[str, ...]]:
    if kind != "pairwise":
        return [(name,) for name in names]
    if pairs == "all":
        return list(combinations(names, 2))
    return [(names[0], other) for other in names[1:]]


def ordered(item: Item, orders: Orders, seed: int) -> Iterator[Item]:
    """Yield an item in the orders in which it is asked."""
    if len(item.models) < 2 or orders == "given":
        yield item
    elif orders == "both":
        yield from (item, item.swapped())
    else:
        named = [seed, item.id, item.sample, item.turn, sorted(item.models)]
        yield item.swapped() if int(digest(named), 16) % 2 else item
