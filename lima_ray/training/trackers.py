"""Experiment trackers behind one interface: TensorBoard, MLflow, Weights & Biases."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.records.run import Run


@dataclass(frozen=True)
class Tracker:
    """Takes the numbers of each step, and is closed at the end."""

    log: Callable[[dict[str, float], int], object] = lambda numbers, step: None
    close: Callable[[], object] = lambda: None


def tensorboard(recipe: Recipe, run: Run) -> Tracker:
    """Write event files in `runs/NAME/tensorboard`."""
    from tensorboardX import SummaryWriter

    del recipe
    writer = SummaryWriter(str(run.path / "tensorboard"))

    def log(numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return Tracker(log, writer.close)


def mlflow(recipe: Recipe, run: Run) -> Tracker:
    """Open a run of the server MLFLOW_TRACKING_URI names, or in the run's own `mlflow.db`."""
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{run.path / 'mlflow.db'}")
    mlflow.set_experiment(recipe.log.project)
    id_file = run.path / "mlflow_run_id"
    known = id_file.read_text() if id_file.exists() else None
    id_file.write_text(mlflow.start_run(known, run_name=recipe.name).info.run_id)
    mlflow.log_params(recipe.identity())
    return Tracker(mlflow.log_metrics, mlflow.end_run)


def wandb(recipe: Recipe, run: Run) -> Tracker:
    """Open a run of Weights & Biases; a resumed run goes on under the same id."""
    import wandb

    opened = wandb.init(
        project=recipe.log.project,
        name=recipe.name,
        id=f"{recipe.name}-{recipe.hash()}",
        resume="allow",
        dir=str(run.path),
        config=recipe.model_dump(),
    )
    return Tracker(opened.log, opened.finish)


TRACKERS = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}
MODULES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


def check_tracker(name: str) -> None:
    if name in MODULES and importlib.util.find_spec(MODULES[name]) is None:
        raise UserError(
            f"log.tracker is {name}, which is not installed: pip install {MODULES[name]}"
        )


def open_tracker(recipe: Recipe, run: Run) -> Tracker:
    """Return the recipe's tracker; with none, metrics stay in metrics.jsonl alone."""
    opener = TRACKERS.get(recipe.log.tracker)
    return opener(recipe, run) if opener else Tracker()


def tracker_files(run: Run) -> list[Path]:
    """Return what trackers keep in the run's own directory."""
    return [run.path / name for name in ("tensorboard", "mlflow.db", "mlflow_run_id")]


def numeric_fields(record: dict[str, Any]) -> dict[str, float]:
    return {
        k: v for k, v in record.items() if isinstance(v, int | float) and k not in ("step", "time")
    }
