"""What happens at which optimizer step: learning rate, seeds, saves, and the epoch's plan."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Optim
from lima_ray.data import packing


class HasLengths(Protocol):
    """Rows, or what is known of them without reading them."""

    @property
    def lengths_R(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Schedule:
    steps: int
    epoch_steps: int
    recipe: Recipe

    @classmethod
    def of(cls, recipe: Recipe, rows: int) -> "Schedule":
        epoch_steps = packing.steps_per_epoch(rows, recipe.optim.batch_examples)
        return cls(epoch_steps * recipe.optim.epochs, epoch_steps, recipe)

    def learning_rate(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        return learning_rate(step, self.steps, self.recipe.optim)

    def saves_state(self, done: int) -> bool:
        """Return whether a resume state is due after `done` steps."""
        every = self.recipe.checkpoint.state_every_steps or self.epoch_steps
        return done % every == 0 or done == self.steps

    def saves_weights(self, done: int) -> bool:
        """Return whether `done` steps end an epoch whose weights are kept."""
        epoch, rest = divmod(done, self.epoch_steps)
        wanted = epoch >= self.recipe.checkpoint.weights_from_epoch
        return rest == 0 and (wanted or done == self.steps)


def kept_epochs(recipe: Recipe) -> int:
    """Return how many epochs' weights are kept; the last one's always are."""
    first = min(recipe.checkpoint.weights_from_epoch, recipe.optim.epochs)
    return recipe.optim.epochs - first + 1


def learning_rate(step: int, steps: int, optim: Optim) -> float:
    """Interpolate linearly from the first step's rate to the last step's (LIMA section 3)."""
    done = step / max(1, steps - 1)
    return optim.learning_rate * (1 - done) + optim.last_learning_rate * done


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of a worker's dropout in one step; resuming needs no random state."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def plan_epoch(recipe: Recipe, rows: HasLengths, epoch: int, workers: int) -> list[packing.Step]:
    return packing.plan_epoch(
        rows.lengths_R,
        seed=recipe.seed,
        epoch=epoch,
        workers=workers,
        batch_examples=recipe.optim.batch_examples,
        tokens_per_micro_batch=recipe.token_budget,
    )
