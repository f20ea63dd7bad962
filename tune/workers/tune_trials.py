"""The Tune part of a sweep: what proposes points, what stops them early, and one trial a point.

A trial is a light driver: it submits its point's trainings, one for each seed, to the queue and
reports the dev value of each epoch, mean grade or win rate, to Tune as judges give it. Tune
optimises that alone; the prompts that measure stay a test.
"""

import importlib.util
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from lima_ray.config import cluster
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.config.storage.working_copy import rays_folder
from lima_ray.records.quality import read_qualities
from lima_ray.results.metric_unit import JUDGED
from tune.measurement import read_measurement
from tune.results import Study
from tune.space import Sweep, point
from tune.training import Training, prepare_one, reserve, try_judges
from tune.workers.training_queue import get

TRIAL_FAILURES = 2
"""Restarts of a trial's driver; trainings that failed are retried by the queue."""
OBJECTIVE = "dev_value"
LOCKS: list[Any] = []
"""Of the trainings that this process has reserved; they end with it."""


@dataclass(frozen=True)
class TrialContext:
    """What every trial's driver needs; it travels to them by the object store."""

    sweep: Sweep
    base: Recipe
    queue: Any
    """Handle of the `TrainingQueue`."""
    trainings: dict[int, list[Training]]
    """Of the points made before the start that are not settled."""
    next_number: int
    """For a point that a searcher proposes."""
    path: Path


def run_trial(config: dict[str, Any], context: TrialContext) -> None:
    """Run one point and report to Tune: the value of each epoch, then of the chosen ones.

    Args:
        config: `number` of a point made before the start, or what a searcher chose on each axis.
    """
    queue = context.queue
    if "number" in config:
        number, trainings = config["number"], context.trainings[config["number"]]
    else:
        number, trainings = add_proposed(config, context)
    ray.get(queue.submit.remote(trainings))
    known, last, ended = 0, 0, False
    while not ended:
        values, ended = get(queue.wait_for_dev_values.remote(number, known))
        for epoch in (epoch for epoch in values if epoch > last):
            tune.report({"epoch": epoch, OBJECTIVE: values[epoch], "point": number})
            last = epoch
        known = len(values)
    chosen = [v for training in trainings if (v := chosen_value(training)) is not None]
    unit = JUDGED[context.base.select.metric]
    # Of a point whose trainings all failed a searcher is told the lowest there is.
    mean = sum(chosen) / len(chosen) if chosen else unit.lowest / unit.factor
    tune.report({"epoch": last, OBJECTIVE: mean, "point": number})


def add_proposed(chosen: dict[str, Any], context: TrialContext) -> tuple[int, list[Training]]:
    """Make a searcher's point one of the sweep's, and prepare its trainings."""
    sweep, base, queue = context.sweep, context.base, context.queue
    number: int = get(queue.point_number.remote(chosen, context.next_number))
    new = point(sweep, number, chosen)
    get(queue.write_proposed.remote(asdict(new) | {"chosen": chosen}))
    try:
        measurement = read_measurement(sweep, base)
        prepared = [prepare_one(sweep, base, measurement, new, seed) for seed in sweep.seeds]
        try_judges([training for training, _ in prepared])
        LOCKS.extend(reserve(training, inputs) for training, inputs in prepared)
    except UserError as error:
        get(queue.write_refused.remote(number, sweep.seeds, str(error)))
        return number, []
    return number, [training for training, _ in prepared]


def chosen_value(training: Training) -> float | None:
    """Return the dev value of a training's chosen epoch; none where it did not end well."""
    if not training.is_measured():
        return None
    seen = training.look()
    qualities = read_qualities(seen, validate_recipe(training.recipe).select.judge_name)
    quality = qualities.get(seen.export_epoch())
    return quality.value if quality else None


class CancelStopped(tune.Callback):
    """Cancels the trainings of a point that Tune has stopped."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Cancel what is left of the point; nothing is, where its trial ended by itself."""
        del iteration, trials
        number = (trial.last_result or {}).get("point")
        if number is not None:
            self.queue.cancel.remote(number)


def run_trials(context: TrialContext, at_once: int, study: Study) -> None:
    """Let Tune run every point that is left.

    Args:
        context: of the sweep; without trainings a searcher proposes the points.
        at_once: trials that may run at a time.
        study: what an earlier start of this sweep has found, for a searcher to learn from.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    sweep = context.sweep
    optuna = sweep.search == "optuna"
    grid: dict[str, Any] = {"number": tune.grid_search(list(context.trainings))}
    scheduler = ASHAScheduler(
        time_attr="epoch",
        max_t=most_epochs(context) + 1,
        grace_period=sweep.asha_from_epoch,
        reduction_factor=sweep.asha_keep,
    )
    tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, context=context), {"memory": 1}),
        param_space=None if optuna else grid,
        tune_config=tune.TuneConfig(
            metric=OBJECTIVE,
            mode="max",
            search_alg=optuna_search(sweep, study) if optuna else None,
            scheduler=scheduler if sweep.asha else None,
            num_samples=sweep.points - len(study.ended) if optuna else 1,
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(rays_folder(context.path)),
            callbacks=[CancelStopped(context.queue)],
            failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
            verbose=0,
        ),
    ).fit()


def most_epochs(context: TrialContext) -> int:
    """Return the epochs of the longest training that the sweep can have."""
    known = [one.recipe["optim"]["epochs"] for own in context.trainings.values() for one in own]
    axis = context.sweep.axes.get("optim.epochs")
    ends = (axis.randint or ()) if axis else ()
    drawn = [int(value) for value in (*(axis.values.values() if axis else ()), *ends)]
    return max([context.base.optim.epochs, *known, *drawn])


def optuna_search(sweep: Sweep, study: Study) -> Any:
    """Return an Optuna searcher that knows the points of earlier starts."""
    from ray.tune.search.optuna import OptunaSearch

    known = [p for p in study.ended if study.done(p)]
    chosen = {proposed["number"]: proposed["chosen"] for proposed in study.proposed}
    return OptunaSearch(
        {name: axis.domain() for name, axis in sweep.axes.items()},
        metric=OBJECTIVE,
        mode="max",
        seed=len(study.proposed),  # the same seed would propose the same points again
        points_to_evaluate=[chosen[p.number] for p in known] or None,
        evaluated_rewards=[study.dev_value(p) for p in known] or None,
    )


def check_search(sweep: Sweep) -> None:
    """Refuse a searcher that is not installed, or has nothing to search."""
    if sweep.search == "optuna" and importlib.util.find_spec("optuna") is None:
        raise UserError("search is optuna, which is not installed: pip install optuna")
    if sweep.search == "optuna" and not sweep.axes:
        raise UserError(f"{sweep.name}: search is optuna, but there are no axes to search")


def check_scheduler(sweep: Sweep, base: Recipe) -> None:
    """Refuse ASHA where it would never compare two points, or has no verdicts to compare."""
    if (sweep.asha or sweep.search == "optuna") and base.select.judge == "none":
        raise UserError(
            f"{sweep.name}: asha and optuna go by the verdicts on dev replies, and select.judge is "
            "none"
        )
    first = max(sweep.asha_from_epoch, base.checkpoint.weights_from_epoch)
    if sweep.asha and first >= base.optim.epochs:
        raise UserError(
            f"{sweep.name}: asha compares epochs from {first} on (asha_from_epoch, "
            f"checkpoint.weights_from_epoch), and there are {base.optim.epochs}; lower the first"
        )


def connect() -> None:
    """Join the cluster or start one, as Tune needs it."""
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths are the command's
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    cluster.connect(dashboard=True)  # without it trials that Tune stops early never end
