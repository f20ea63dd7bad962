"""Experiment trackers behind one interface: TensorBoard, MLflow, Weights & Biases."""

import importlib.util
import os
from typing import Any, Protocol

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.records.run import Run


class Tracker(Protocol):
    """Takes the numbers of each step."""

    def log(self, record: dict[str, Any], step: int) -> None:
        """Record a step's numbers."""
        ...

    def close(self) -> None:
        """Flush."""
        ...


def numeric_fields(record: dict[str, Any]) -> dict[str, float]:
    """Return the entries a tracker can draw."""
    return {
        k: v for k, v in record.items() if isinstance(v, int | float) and k not in ("step", "time")
    }


class NoTracker:
    """Metrics stay in metrics.jsonl alone."""

    def __init__(self, recipe: Recipe, run: Run) -> None:
        del recipe, run

    def log(self, record: dict[str, Any], step: int) -> None:
        """Record nothing."""

    def close(self) -> None:
        """Do nothing."""


class TensorBoard:
    """Event files in `runs/NAME/tensorboard`."""

    def __init__(self, recipe: Recipe, run: Run) -> None:
        from tensorboardX import SummaryWriter

        del recipe
        self.writer = SummaryWriter(str(run.path / "tensorboard"))

    def log(self, record: dict[str, Any], step: int) -> None:
        """Write each number as a scalar."""
        for name, value in numeric_fields(record).items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self.writer.close()


class MLflow:
    """A run of the server MLFLOW_TRACKING_URI names, or in the run's own `mlflow.db`."""

    def __init__(self, recipe: Recipe, run: Run) -> None:
        import mlflow

        self.mlflow = mlflow
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{run.path / 'mlflow.db'}")
        mlflow.set_experiment(recipe.log.project)
        id_file = run.path / "mlflow_run_id"
        known = id_file.read_text() if id_file.exists() else None
        id_file.write_text(mlflow.start_run(known, run_name=recipe.name).info.run_id)
        mlflow.log_params(recipe.identity())

    def log(self, record: dict[str, Any], step: int) -> None:
        """Log all numbers at once."""
        self.mlflow.log_metrics(numeric_fields(record), step=step)

    def close(self) -> None:
        """End the MLflow run."""
        self.mlflow.end_run()


class WandB:
    """A run of Weights & Biases; a resumed run goes on under the same id."""

    def __init__(self, recipe: Recipe, run: Run) -> None:
        import wandb

        self.run = wandb.init(
            project=recipe.log.project,
            name=recipe.name,
            id=f"{recipe.name}-{recipe.hash()}",
            resume="allow",
            dir=str(run.path),
            config=recipe.model_dump(),
        )

    def log(self, record: dict[str, Any], step: int) -> None:
        """Log all numbers at once."""
        self.run.log(numeric_fields(record), step=step)

    def close(self) -> None:
        """Upload what is left."""
        self.run.finish()


TRACKERS = {"none": NoTracker, "tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
MODULES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


def check_tracker(name: str) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        UserError: with the command that installs it.
    """
    if name in MODULES and importlib.util.find_spec(MODULES[name]) is None:
        raise UserError(
            f"log.tracker is {name}, which is not installed: pip install {MODULES[name]}"
        )


def open_tracker(recipe: Recipe, run: Run) -> Tracker:
    """Return the recipe's tracker."""
    return TRACKERS[recipe.log.tracker](recipe, run)
