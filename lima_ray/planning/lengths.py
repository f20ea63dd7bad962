"""How long a recipe's rows are: encoded where data and base are at hand, else LIMA's or told."""

from dataclasses import dataclass, field

import numpy as np

from lima_ray.config.paths import resolve
from lima_ray.config.recipe import Recipe
from lima_ray.data import training_data
from lima_ray.data.packing import Step
from lima_ray.data.rows import Rows
from lima_ray.planning.memory import Load
from lima_ray.training.schedule import plan_epoch

LIMA = "GAIR/lima"
TABLE_1 = {
    "stackexchange": (400, 118, 526),
    "wikihow": (200, 12, 1811),
    "writingprompts": (150, 34, 274),
    "nlp": (50, 236, 92),
    "authors": (200, 40, 334),
}
"""LIMA's Table 1: rows, mean tokens of prompt and reply, by source."""
PACKED_EPOCHS, MANY = 3, 10_000
"""Epochs whose micro-batches are looked at for the largest; one of so many rows."""


@dataclass(frozen=True)
class RowLengths:
    """Tokens of each row, and those of them that are supervised."""

    lengths_R: np.ndarray
    supervised_R: np.ndarray
    source: str
    """Where they are from, for people."""
    loads: dict[tuple[int, ...], Load] = field(default_factory=dict)
    """The largest micro-batches that were found, by what decides them."""

    def __len__(self) -> int:
        return len(self.lengths_R)


def find_lengths(recipe: Recipe, rows: int | None, tokens: int | None) -> RowLengths | None:
    """Return the lengths of a recipe's rows; none where neither data nor counts are at hand.

    Args:
        rows: training rows, where the data is not read.
        tokens: their mean tokens.
    """
    if rows is None and tokens is None:
        if resolve(recipe.data.train) and resolve(recipe.model.base):
            encoded = training_data.load(recipe)[2]
            return RowLengths(encoded.lengths_R, encoded.supervised_R, recipe.data.train)
        if recipe.data.train == LIMA:
            return cut(*lima_lengths(), recipe, "drawn from the means of the paper's Table 1")
    if rows is None or tokens is None:
        return None
    prompts_R, replies_R = (x[: rows + 1] for x in lima_lengths())
    told = np.resize(prompts_R + replies_R, rows) * (tokens / (prompts_R + replies_R).mean())
    share = np.resize(replies_R / (prompts_R + replies_R), rows)
    lengths_R = np.maximum(2, told).astype(np.int64)
    replies_R = np.clip(lengths_R * share, 1, lengths_R - 1).astype(np.int64)
    return cut(lengths_R - replies_R, replies_R, recipe, f"{rows:,} rows of {tokens:,} tokens")


def cut(prompts_R: np.ndarray, replies_R: np.ndarray, recipe: Recipe, source: str) -> RowLengths:
    """Cut rows at `data.max_tokens`, as encoding does."""
    lengths_R = np.minimum(prompts_R + replies_R, recipe.data.max_tokens)
    learned_R = np.minimum(replies_R, np.maximum(1, lengths_R - prompts_R))
    if recipe.data.loss_on == "all":
        learned_R = lengths_R - 1
    return RowLengths(lengths_R, learned_R, source)


def lima_lengths() -> tuple[np.ndarray, np.ndarray]:
    """Draw tokens of prompts and of replies whose means are those of the paper's Table 1."""
    generator = np.random.default_rng(0)
    sizes = [
        [int(generator.gamma(2.0, mean / 2)) + 1 for mean in (prompt, reply)]
        for count, prompt, reply in TABLE_1.values()
        for _ in range(count)
    ]
    prompts_R, replies_R = np.array(sizes).T
    return prompts_R, replies_R


def largest_load(recipe: Recipe, rows: RowLengths | None, workers: int) -> Load:
    """Return the largest micro-batch of a training; a full one where rows are not known."""
    if rows is None:
        return Load(recipe.token_budget, recipe.token_budget)
    batch, epochs = recipe.optim.batch_examples, min(PACKED_EPOCHS, recipe.optim.epochs)
    decides = (recipe.token_budget, workers, batch, epochs, recipe.seed)
    if decides not in rows.loads:
        steps = [
            step
            for epoch in range(epochs if len(rows) < MANY else 1)
            for step in plan_epoch(recipe, rows, epoch, workers)
        ]
        rows.loads[decides] = load_of_steps(steps, rows)
    return rows.loads[decides]


def load_of_steps(steps: list[Step], rows: RowLengths | Rows, rank: int | None = None) -> Load:
    """Return the largest micro-batch of some steps, of one worker or of all."""
    own = [s.ranks if rank is None else [s.ranks[rank]] for s in steps]
    batches = [list(batch) for ranks in own for rank in ranks for batch in rank]
    return Load(
        tokens=max(int(rows.lengths_R[batch].sum()) for batch in batches),
        supervised=max(int(rows.supervised_R[batch].sum()) for batch in batches),
        several=any(len(step.ranks[0]) > 1 for step in steps),
    )
