"""The Tune part of a sweep: who proposes points, who stops them early, and one trial a point.

A trial is a light driver: it hands its point's trainings, one for each seed, to the dispatcher and
reports the mean dev grade of each epoch to Tune as judges give it. Tune optimises dev grades alone;
the prompts that measure stay a test.
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
from lima_ray.config.recipe import Recipe, validate
from lima_ray.records.quality import assessed
from tune.results import Study
from tune.space import Sweep, point
from tune.training import Job, claim, measuring, prepare_one, try_judges
from tune.workers.training_queue import ask

TRIAL_FAILURES = 2
"""Restarts of a trial's driver; the trainings themselves are the dispatcher's to retry."""
OBJECTIVE = "grade"
LOWEST_GRADE = 1.0
"""What a searcher is told of a point whose trainings all failed."""
HELD: list[Any] = []
"""Locks of the trainings that this process has claimed; they go with it."""


@dataclass(frozen=True)
class Trials:
    """What every trial's driver needs; it travels to them by the object store."""

    sweep: Sweep
    base: Recipe
    dispatcher: Any
    jobs: dict[int, list[Job]]
    """Of the points made before the start that are not settled."""
    next_number: int
    """For a point that a searcher proposes."""
    path: Path
    """The sweep's directory."""


def trial(config: dict[str, Any], trials: Trials) -> None:
    """Run one point and report to Tune: the grade of each epoch, then of the chosen ones.

    Args:
        config: `number` of a point made before the start, or what a searcher chose on each axis.
        trials: the sweep's.
    """
    dispatcher = trials.dispatcher
    if "number" in config:
        number, jobs = config["number"], trials.jobs[config["number"]]
    else:
        number, jobs = propose(config, trials)
    ray.get(dispatcher.submit.remote(jobs))
    told, last, ended = 0, 0, False
    grades: dict[int, float] = {}
    while not ended:
        grades, ended = ask(dispatcher.news.remote(number, told))
        for epoch in (epoch for epoch in grades if epoch > last):
            tune.report({"epoch": epoch, OBJECTIVE: grades[epoch], "point": number})
            last = epoch
        told = len(grades)
    chosen = [g for job in jobs if (g := chosen_grade(job)) is not None]
    mean = sum(chosen) / len(chosen) if chosen else LOWEST_GRADE
    tune.report({"epoch": last, OBJECTIVE: mean, "point": number})


def propose(chosen: dict[str, Any], trials: Trials) -> tuple[int, list[Job]]:
    """Make a searcher's point one of the sweep's, and prepare its trainings."""
    sweep, base = trials.sweep, trials.base
    number: int = ask(trials.dispatcher.number.remote(chosen, trials.next_number))
    new = point(sweep, number, chosen)
    ask(trials.dispatcher.ask.remote(asdict(new) | {"chosen": chosen}))
    try:
        measure = measuring(sweep, base)
        made = [prepare_one(sweep, base, measure, new, seed) for seed in sweep.seeds]
        try_judges([job for job, _ in made])
        HELD.extend(claim(job, prepared) for job, prepared in made)
    except UserError as error:
        ask(trials.dispatcher.refuse.remote(number, sweep.seeds, str(error)))
        return number, []
    return number, [job for job, _ in made]


def chosen_grade(job: Job) -> float | None:
    """Dev grade of a training's chosen epoch; none where it did not end well."""
    if not job.is_measured():
        return None
    qualities = assessed(job.run, validate(job.recipe).select.judge_name)
    quality = qualities.get(job.run.export_epoch())
    return quality.grade if quality else None


class Cancel(tune.Callback):
    """Tells the dispatcher of a point that Tune has stopped."""

    def __init__(self, dispatcher: Any) -> None:
        self.dispatcher = dispatcher

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Cancel what is left of the point; nothing is, where its trial ended by itself."""
        del iteration, trials
        number = (trial.last_result or {}).get("point")
        if number is not None:
            self.dispatcher.cancel.remote(number)


def run(trials: Trials, at_once: int, study: Study) -> None:
    """Let Tune run every point that is left.

    Args:
        trials: what their drivers need; without jobs a searcher proposes the points.
        at_once: trials that may run at a time.
        study: what an earlier start of this sweep has found, for a searcher to learn from.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    sweep = trials.sweep
    optuna = sweep.search == "optuna"
    space = {name: axis.domain() for name, axis in sweep.axes.items()}
    grid: dict[str, Any] = {"number": tune.grid_search(list(trials.jobs))}
    scheduler = ASHAScheduler(
        time_attr="epoch",
        max_t=most_epochs(trials) + 1,
        grace_period=sweep.asha_from_epoch,
        reduction_factor=sweep.asha_keep,
    )
    tune.Tuner(
        tune.with_resources(tune.with_parameters(trial, trials=trials), {"memory": 1}),
        param_space=None if optuna else grid,
        tune_config=tune.TuneConfig(
            metric=OBJECTIVE,
            mode="max",
            search_alg=learned(sweep, space, study) if optuna else None,
            scheduler=scheduler if sweep.asha else None,
            num_samples=sweep.points - len(study.ended) if optuna else 1,
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(trials.path),
            callbacks=[Cancel(trials.dispatcher)],
            failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
            verbose=0,
        ),
    ).fit()


def most_epochs(trials: Trials) -> int:
    """Epochs of the longest training."""
    known = [job.recipe["optim"]["epochs"] for jobs in trials.jobs.values() for job in jobs]
    axis = trials.sweep.axes.get("optim.epochs")
    ends = (axis.randint or ()) if axis else ()
    drawn = [int(value) for value in (*(axis.values.values() if axis else ()), *ends)]
    return max([trials.base.optim.epochs, *known, *drawn])


def learned(sweep: Sweep, space: dict[str, Any], study: Study) -> Any:
    """An Optuna searcher that knows what was found before."""
    from ray.tune.search.optuna import OptunaSearch

    known = [p for p in study.ended if study.done(p)]
    before = {a["number"]: a["chosen"] for a in study.asked}
    return OptunaSearch(
        space,
        metric=OBJECTIVE,
        mode="max",
        seed=len(study.asked),  # the same again would propose the same again
        points_to_evaluate=[before[p.number] for p in known] or None,
        evaluated_rewards=[study.dev_grade(p) for p in known] or None,
    )


def check_search(sweep: Sweep) -> None:
    """Refuse a searcher that is not installed, or has nothing to search.

    Raises:
        UserError: with the way out.
    """
    if sweep.search == "optuna" and importlib.util.find_spec("optuna") is None:
        raise UserError("search is optuna, which is not installed: pip install optuna")
    if sweep.search == "optuna" and not sweep.axes:
        raise UserError(f"{sweep.name}: search is optuna, but there are no axes to search")


def check_scheduler(sweep: Sweep, base: Recipe) -> None:
    """Refuse an ASHA that would never compare anything.

    Raises:
        UserError: with the way out.
    """
    if (sweep.asha or sweep.search == "optuna") and base.select.judge == "none":
        raise UserError(
            f"{sweep.name}: asha and optuna go by the grades of dev replies, and select.judge is "
            "none"
        )
    first = max(sweep.asha_from_epoch, base.checkpoint.weights_from_epoch)
    if sweep.asha and first >= base.optim.epochs:
        raise UserError(
            f"{sweep.name}: asha compares epochs from {first} on (asha_from_epoch, "
            f"checkpoint.weights_from_epoch), and there are {base.optim.epochs}; lower the first"
        )


def connect() -> None:
    """Join the cluster or start one, with the dashboard: Tune's early stops leak without it."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", cluster.HEALTH_CHECK_S)
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths are the command's
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    if not ray.is_initialized():
        cluster.check_address()
        cluster.prepare_environment()
        ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=True)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
