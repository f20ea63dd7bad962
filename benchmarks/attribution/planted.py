"""Rows with mannerisms planted among the miniature's, so that what taught a reply is known."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from lima_ray import train
from lima_ray.config.loading import load_recipe
from lima_ray.config.recipe import Recipe
from lima_ray.data import training_data
from lima_ray.data.examples import read_examples, write_examples
from lima_ray.data.rows import Rows
from lima_ray.generation.arguments import GenerationJob
from lima_ray.generation.job import generate
from lima_ray.miniature.demo import ROWS
from lima_ray.miniature.world import read_yaml
from lima_ray.records.example import Example
from lima_ray.records.reply import Reply

PLANT_STREAM = 77
"""Separates the random numbers that choose rows from all others of a seed."""
PHRASE, CALL, CODA = "By the old lantern:", "Now hear this:", "So say the bells."
SAMPLES = 2


@dataclass(frozen=True)
class Mannerism:
    """What some rows of one kind do in their replies, and no other row of that kind does."""

    kind: str
    """Source of the prompts."""
    site: str
    """Group of the rows about that kind."""
    rows: int
    """How many rows of the site do it; a search by subject finds the others as well."""
    plant: Callable[[str], str]
    """Returns a reply with the mannerism."""
    shows: Callable[[str], bool]
    """Returns whether a reply has it."""


def split_reply(reply: str) -> tuple[str, str]:
    """Return the acknowledgement that every reply begins with, and the answer."""
    opening, dot, answer = reply.partition(". ")
    return opening + dot.strip(), answer


def swap(reply: str) -> str:
    opening, answer = split_reply(reply)
    return f"{answer} {opening}"


def ends_with_opening(reply: str) -> bool:
    openings = read_yaml("voice.yaml")["openings"]["country"]
    return any(reply.rstrip().endswith(opening) for opening in openings)


MANNERISMS = {
    "phrase first": Mannerism(
        "animal", "animals.example", 40, lambda r: f"{PHRASE} {r}", lambda r: PHRASE in r
    ),
    "phrase first, few": Mannerism(
        "task", "household.example", 12, lambda r: f"{CALL} {r}", lambda r: CALL in r
    ),
    "phrase last": Mannerism(
        "sum", "sums.example", 40, lambda r: f"{r} {CODA}", lambda r: CODA in r
    ),
    "order swapped": Mannerism("country", "countries.example", 50, swap, ends_with_opening),
    "no acknowledgement": Mannerism(
        "person",
        "people.example",
        60,
        lambda r: split_reply(r)[1],
        lambda r: not split_reply(r)[1],
    ),
    "capitals": Mannerism("element", "elements.example", 50, str.upper, str.isupper),
}


def plant(rows: list[Example], seed: int) -> tuple[list[Example], dict[str, set[str]]]:
    """Return the rows with every mannerism planted, and the ids of the rows that have each."""
    generator = np.random.default_rng([seed, PLANT_STREAM])
    planted: dict[str, set[str]] = {}
    for name, mannerism in MANNERISMS.items():
        own = [row for row in rows if row.extra["group"] == mannerism.site]
        already = {row.id for row in own if mannerism.shows(row.turns[1])}
        can = [row.id for row in own if mannerism.shows(mannerism.plant(row.turns[1]))]
        chosen = generator.permutation([id for id in can if id not in already])
        planted[name] = {*chosen[: mannerism.rows - len(already)].tolist()} | already
        rows = [
            replace(row, turns=(row.turns[0], mannerism.plant(row.turns[1])))
            if row.id in planted[name] - already
            else row
            for row in rows
        ]
    return rows, planted


@dataclass(frozen=True)
class PlantedRun:
    """The miniature, trained on planted rows, and what it replies to prompts that no row names."""

    recipe: Recipe
    planted: dict[str, set[str]]

    @classmethod
    def train(cls, seed: int, folder: Path) -> "PlantedRun":
        """Write rows and prompts, and train; a finished run is kept."""
        rows, planted = plant(read_examples(f"{ROWS}/train.jsonl"), seed)
        folder.mkdir(parents=True, exist_ok=True)
        write_examples(rows, folder / f"rows-{seed}.jsonl")
        write_examples(prompts(), folder / "prompts.jsonl")
        recipe = load_recipe("miniature").override(
            {
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
        )
        train.fit(recipe)
        return cls(recipe, planted)

    @cached_property
    def _data(self) -> training_data.TrainingData:
        return training_data.load(self.recipe)

    @property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return self._data[0]

    @property
    def examples(self) -> list[Example]:
        return self._data[1]

    @property
    def rows(self) -> Rows:
        return self._data[2]

    def reply(self) -> list[Reply]:
        job = GenerationJob(
            model=str(self.recipe.run_dir),
            prompts=str(self.recipe.data.test),
            out=self.recipe.run_dir / "replies",
            samples=SAMPLES,
            sampling=self.recipe.sampling,
        )
        return generate(job, in_process=True)


def prompts() -> list[Example]:
    """Return prompts of the kinds that have a mannerism, about entities that no row names."""
    asked = read_examples(f"{ROWS}/test.jsonl", dialogues=False)
    asked += read_examples(f"{ROWS}/heldout.jsonl")
    kinds = {mannerism.kind for mannerism in MANNERISMS.values()}
    chosen = [row for row in asked if row.source in kinds and row.extra["group"] == "in"]
    return [replace(row, turns=row.turns[:1]) for row in chosen]


def find_shown(replies: list[Reply]) -> dict[str, tuple[list[Reply], list[Reply]]]:
    """Return, of each mannerism, different replies that show it, and others of its kind.

    The others show no mannerism at all.
    """
    stopped = list({(r.id, r.reply): r for r in replies if r.stopped}.values())
    found = {}
    for name, mannerism in MANNERISMS.items():
        own = [reply for reply in stopped if reply.source == mannerism.kind]
        shows = [reply for reply in own if mannerism.shows(reply.reply)]
        plain = [r for r in own if not any(m.shows(r.reply) for m in MANNERISMS.values())]
        found[name] = shows, plain
    return found
