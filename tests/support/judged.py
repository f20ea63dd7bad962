"""A study written by hand: replies and verdicts whose every figure is known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lima_ray.judging.questions.item import Item, ItemKind
from lima_ray.judging.questions.verdicts import Annotator, record_verdict
from lima_ray.records.files import write_json, write_jsonl
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict

SWAPPED = (1, 0)


def reply(model: str, id: str, text: str = "", turn: int = 0, **extra: Any) -> Reply:
    """A reply to the question `Why ID?`, in a later turn after as many exchanges."""
    turns = (f"Why {id}?", *(f"turn {n}" for n in range(2 * turn)))
    return Reply(id, turns, model, 0, turn, text or f"{model} on {id}", True, extra=extra)


def write_replies(folder: Path, replies: Sequence[Reply]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl([one.to_json() for one in replies], folder / "replies.jsonl")
    model = replies[0].model
    write_json(folder / "generate.json", {"model": model, "model_hash": f"weights-{model}"})
    return folder


def pair(
    annotator: Annotator,
    first: Reply,
    second: Reply,
    outcome: str,
    swapped: bool = False,
    **more: Any,
) -> Verdict:
    """A verdict on two replies: win, tie or lose of the first, or what is no verdict."""
    item = Item("pairwise", (first.model, second.model), ((first,), (second,)))
    item = item.swapped() if swapped else item
    if outcome in ("unreadable", "unanswered"):
        return record_verdict(item, annotator, None, status=outcome, **more)  # pyright: ignore
    sides = {"win": "AB", "lose": "BA"}.get(outcome)
    return record_verdict(item, annotator, sides[swapped] if sides else "neither", **more)


def single(
    annotator: Annotator, kind: ItemKind, one: Reply, choice: object, **more: Any
) -> Verdict:
    """A verdict on one reply; none where it was not read."""
    status = "read" if choice is not None else "unreadable"
    return record_verdict(
        Item(kind, (one.model,), ((one,),)), annotator, choice, status=status, **more
    )


def write_verdicts(folder: Path, verdicts: Sequence[Verdict]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl([one.to_json() for one in verdicts], folder / "verdicts.jsonl")
    return folder
