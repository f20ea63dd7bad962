"""Trials an hour of a sweep: warm workers against a Ray Train run of its own for every trial.

    python -m benchmarks.sweep --work DIR [--sweep quality] [--trials 4] [--rounds 1]

Both train and measure the same points of the miniature with one seed, as many at once, in turn and
each with a Ray of its own. Cold is the usual way to run Train under Tune: every trial is a light
driver that calls `lima_ray.train.fit` and then replies to the measuring prompts itself. Prints the
trials an hour of both, their ratio, and whether the two gave the same losses and verdicts.
"""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import tyro
from ray import tune

from benchmarks.page.result import OURS, Figure, Recording
from lima_ray import train
from lima_ray.config.recipe import validate_recipe
from lima_ray.judging import assessment
from lima_ray.records.run import Run
from lima_ray.records.verdict import read_verdicts
from tune import sweep, training
from tune.results import Study
from tune.sweep_directory import SweepDirectory
from tune.workers.tune_trials import connect
from tune.workers.worker_pool import trainings_at_once

SHORT = str(Path(__file__).parent / "twelve.yaml")


def cold_trial(config: dict[str, Any], trainings: list[training.Training]) -> None:
    """Train one recipe by a Train run of its own, then measure it."""
    one = trainings[config["number"]]
    recipe = validate_recipe(one.recipe)
    run = train.fit(recipe)
    prompts = assessment.PromptSet(one.prompts, "test", one.samples)
    _, verdicts = assessment.generate_and_judge(run.export_dir, prompts, one.measured, recipe)
    tune.report({"grade": float(np.mean([v.grade for v in verdicts if v.grade is not None]))})


def cold(name: str, trials: int, runs: Path) -> list[Run]:
    read = sweep.plan(sweep.Command(sweep=name, seeds=[0], runs_dir=str(runs)))
    base = read.base.override({"cluster.cpus_per_worker": 1})
    prepared = training.prepare(read.sweep, base, read.points[:trials])
    connect()
    trainings = [one for one, _ in prepared]
    at_once = int(ray.cluster_resources()["CPU"])
    results = tune.Tuner(
        tune.with_resources(tune.with_parameters(cold_trial, trainings=trainings), {"memory": 1}),
        param_space={"number": tune.grid_search(list(range(len(trainings))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
        run_config=tune.RunConfig(name="cold", storage_path=str(runs / "tune"), verbose=0),
    ).fit()
    if results.errors:
        raise SystemExit(f"{len(results.errors)} cold trials failed: {results.errors[0]}")
    return [one.run for one in trainings]


def warm(name: str, trials: int, runs: Path) -> list[Run]:
    """Run a sweep's points as the product does."""
    plan = sweep.plan(sweep.Command(sweep=name, seeds=[0], runs_dir=str(runs)))
    connect()
    at_once, gpus = trainings_at_once(plan.sweep, plan.base.cluster, trials)
    few = replace(plan, points=plan.points[:trials], trainings=plan.trainings[:trials])
    with SweepDirectory(few.path) as directory:
        directory.check(few.sweep, few.base, few.points, few.ids, False)
        directory.write()
        sweep.run_trainings(few, directory, at_once, gpus, None)
    study = Study.load(few.path)
    return [study.done(point)[0].run for point in study.points]


def losses(run: Run) -> list[float]:
    return [step["loss"] for step in run.steps()]


def grades(run: Run) -> list[float | None]:
    (file,) = run.path.glob("measured/*/verdicts.jsonl")
    return [verdict.grade for verdict in read_verdicts(file)]


def main(
    work: Path,
    sweep: str = SHORT,
    trials: int = 12,
    rounds: int = 1,
    json: Path | None = None,
) -> None:
    """Run both ways in turn.

    Args:
        work: directory for the runs; what is there of an earlier benchmark is removed.
        sweep: which sweep's points; by default short ones.
        trials: how many of them.
        rounds: how often.
        json: file for the figures, such as docs/benchmarks/sweep.json.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    recording = Recording("sweep")
    rates: dict[str, list[float]] = {"cold": [], "warm": []}
    for number in range(rounds):
        made: dict[str, list[Run]] = {}
        for name, way in (("warm", warm), ("cold", cold)):
            runs = work.absolute() / f"{name}-{number}"
            shutil.rmtree(runs, ignore_errors=True)
            started = time.perf_counter()
            made[name] = way(sweep, trials, runs)
            seconds = time.perf_counter() - started
            ray.shutdown()
            rates[name].append(len(made[name]) / seconds * 3600)
            print(f"{name}: {len(made[name])} trials in {seconds:.0f} s", flush=True)
        pairs = list(zip(made["warm"], made["cold"], strict=True))
        apart = max(float(np.abs(np.subtract(losses(a), losses(b))).max()) for a, b in pairs)
        same = sum(grades(a) == grades(b) for a, b in pairs)
        said = f"losses differ by {apart:.1e} at most; verdicts equal in {same} of {len(pairs)}"
        print(said)
        recording.notes.append(said)
    hourly = {name: float(np.median(values)) for name, values in rates.items()}
    print(
        f"trials an hour: warm {hourly['warm']:.0f}, cold {hourly['cold']:.0f}, "
        f"ratio {hourly['warm'] / hourly['cold']:.2f}"
    )
    for name, who in (("warm", OURS), ("cold", "a Ray Train run a trial")):
        case = f"{trials} short trainings, each measured"
        figure = Figure("trials", case, who, "an hour", tuple(rates[name]), "higher")
        recording.figures.append(figure)
    recording.save(json)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.sweep", description=__doc__)
