"""What the queue knows of each training, and the work that it gives to assessors."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lima_ray.config.recipe import validate_recipe
from lima_ray.records.quality import read_qualities
from tune.training import Training

State = Literal["waiting", "training", "trained", "done", "failed", "stopped"]


@dataclass(frozen=True)
class Assessment:
    """Work for an assessor: judge an epoch, or choose, export and measure a trained run."""

    training: Training
    epoch: int | None
    """The epoch to judge; none where the whole training is to be measured."""


@dataclass
class QueuedTraining:
    """A training of the sweep and how far it has come."""

    training: Training
    served: set[tuple[int, int]] = field(default_factory=set)
    """Points and seeds that need it."""
    state: State = "waiting"
    started_s: float = 0
    attempts: int = 0
    error: str = ""
    epoch: int = 0
    """Epochs trained."""
    dev_values: dict[int, float] = field(default_factory=dict)
    """Mean grade or win rate of the dev replies of each judged epoch."""
    to_assess: set[int] = field(default_factory=set)
    """Epochs whose weights are saved and not judged yet."""
    chosen: int | None = None
    """The epoch that was chosen, once the training is measured."""
    cancelled: bool = False

    @classmethod
    def read(cls, training: Training) -> "QueuedTraining":
        """Read from a training's files how far earlier starts have brought it."""
        seen = training.look()
        known = read_qualities(seen, validate_recipe(training.recipe).select.judge_name)
        queued = cls(training, dev_values={epoch: found.value for epoch, found in known.items()})
        if training.is_measured():
            queued.state, queued.chosen = "done", seen.export_epoch()
        elif training.is_trained():
            queued.state = "trained"
        return queued

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("done", "failed", "stopped")

    def serves(self, point: int) -> bool:
        return any(number == point for number, _ in self.served)

    def status(self) -> list[dict[str, Any]]:
        """Return its state for each point and seed, with the chosen or the last epoch's value."""
        judged = self.chosen or max(self.dev_values, default=None)
        status = {
            "id": self.training.id,
            "state": self.state,
            "epoch": self.epoch,
            "dev_value": self.dev_values.get(judged) if judged else None,
            "metric": validate_recipe(self.training.recipe).select.metric,
            "of_epoch": judged,
            "error": self.error,
        }
        return [status | {"point": point, "seed": seed} for point, seed in sorted(self.served)]


def mean_dev_values(trainings: list[QueuedTraining]) -> dict[int, float]:
    """Return mean dev values by epoch, of the epochs that all trainings under way have."""
    alive = [queued.dev_values for queued in trainings if queued.state not in ("failed", "waiting")]
    common = set.intersection(*map(set, alive)) if alive else set()
    return {n: float(np.mean([values[n] for values in alive])) for n in sorted(common)}
