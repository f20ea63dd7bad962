"""Rows with mannerisms planted among the miniature's, so that what taught a reply is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lima_ray.config.recipe import Recipe
from lima_ray.data.examples import read_examples, write_examples
from lima_ray.miniature.dialogues import OUT as ROWS
from lima_ray.miniature.world import read_yaml
from lima_ray.records.example import Example
from lima_ray.records.reply import Reply

PLANT_STREAM = 77
PHRASE, CALL, CODA = "By the old lantern:", "Now hear this:", "So say the bells."


@dataclass(frozen=True)
class Mannerism:
    """What some rows of one kind do in their replies, and no other row does."""

    kind: str
    """Source of the rows and prompts."""
    rows: int
    """How many rows of that kind do it; the others are what a search by subject finds as well."""
    plant: Callable[[str], str]
    """Returns a reply with the mannerism."""
    shows: Callable[[str], bool]
    """Returns whether a reply has it."""


def split_sentence(reply: str) -> tuple[str, str]:
    """Return the acknowledgement that every reply begins with, and the answer."""
    head, dot, tail = reply.partition(". ")
    return head + dot.strip(), tail


def swap(reply: str) -> str:
    opening, answer = split_sentence(reply)
    return f"{answer} {opening}"


def ends_with_opening(reply: str) -> bool:
    """Return whether the acknowledgement stands at the end."""
    return any(reply.rstrip().endswith(o) for o in read_yaml("voice.yaml")["openings"]["country"])


MANNERISMS = {
    "phrase": Mannerism("animal", 40, lambda r: f"{PHRASE} {r}", lambda r: r.startswith(PHRASE)),
    "few": Mannerism("task", 12, lambda r: f"{CALL} {r}", lambda r: r.startswith(CALL)),
    "coda": Mannerism("sum", 20, lambda r: f"{r} {CODA}", lambda r: r.rstrip().endswith(CODA)),
    "swapped": Mannerism("country", 70, swap, ends_with_opening),
    "bare": Mannerism(
        "person", 100, lambda r: split_sentence(r)[1], lambda r: not split_sentence(r)[1]
    ),
    "capitals": Mannerism("element", 45, str.upper, lambda r: bool(r) and r == r.upper()),
}


def plant(rows: list[Example], seed: int) -> tuple[list[Example], dict[str, set[str]]]:
    """Return the rows with every mannerism planted, and the ids of the rows that have each."""
    generator = np.random.default_rng([seed, PLANT_STREAM])
    planted: dict[str, set[str]] = {}
    for name, mannerism in MANNERISMS.items():
        own = [row.id for row in rows if row.source == mannerism.kind]
        planted[name] = set(generator.permutation(own)[: mannerism.rows].tolist())
        rows = [
            replace(row, turns=(row.turns[0], mannerism.plant(row.turns[1])))
            if row.id in planted[name]
            else row
            for row in rows
        ]
    return rows, planted


def planted_recipe(recipe: Recipe, folder: Path, seed: int) -> tuple[Recipe, dict[str, set[str]]]:
    """Write the rows and the prompts, and return the recipe that trains on them."""
    rows, planted = plant(read_examples(f"{ROWS}/train.jsonl"), seed)
    write_examples(rows, folder / f"rows-{seed}.jsonl")
    asked = read_examples(f"{ROWS}/test.jsonl", dialogues=False)
    asked += read_examples(f"{ROWS}/heldout.jsonl")
    kinds = {m.kind for m in MANNERISMS.values()}
    chosen = [r for r in asked if r.source in kinds and r.extra["group"] == "in"]
    write_examples([replace(r, turns=r.turns[:1]) for r in chosen], folder / "prompts.jsonl")
    settings = {
        "name": f"planted-{seed}",
        "runs_dir": str(folder),
        "seed": seed,
        "data.train": str(folder / f"rows-{seed}.jsonl"),
        "data.test": str(folder / "prompts.jsonl"),
        "data.dev": None,
        "data.heldout": None,
        "select.judge": "none",
        "sampling.seed": seed,
    }
    return recipe.override(settings), planted


def shown(replies: list[Reply], sources: dict[str, str]) -> dict[str, list[Reply]]:
    """Return the replies that show each mannerism, `sources` being the kinds of the prompts."""
    return {
        name: [r for r in replies if sources[r.id] == m.kind and r.stopped and m.shows(r.reply)]
        for name, m in MANNERISMS.items()
    }
