"""Run a study over a recipe on Ray Tune: train each point with each seed, judge, report.

    python -m tune.sweep SWEEP [--dry_run] [--resume]
    ray job submit --working-dir . -- python -m tune.sweep SWEEP

SWEEP is a file, or the name of one in tune/sweeps. Everything is checked, and the cost is printed,
before the first training starts. A sweep that was killed goes on with
--resume, and repeats no training that was done; Ctrl-C ends it with a report of what there is.

    runs/sweeps/NAME/   sweep.yaml, trainings.jsonl, report.md, its pictures, best.yaml
    runs/trials/ID/     each training: a run, shared by all sweeps that have this point
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command as run_command

    sys.exit(run_command("sweep"))

import math
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import ray
from rich.console import Console

from lima_ray.config.errors import UserError
from lima_ray.config.paths import stored_path
from lima_ray.config.recipe import Recipe
from lima_ray.config.storage.working_copy import reference
from lima_ray.judging.asking.budget import Estimate, confirm
from lima_ray.planning.cost import free_bytes
from lima_ray.results.units import counted, format_bytes, format_duration
from tune import report, space
from tune.arguments import SweepCommand as Command
from tune.cost import Cost, arithmetic, judging_estimates, remaining_cost
from tune.pace import earlier_runs, measure_pace
from tune.reports.tables import PERPLEXITY
from tune.results import Study
from tune.space import Point, Sweep
from tune.sweep_directory import SweepDirectory, SweepJournal
from tune.training import PreparedTraining, Training, prepare, reserve
from tune.workers import tune_trials
from tune.workers.progress import SweepProgress
from tune.workers.training_queue import get
from tune.workers.worker_pool import WorkerPool, trainings_at_once


@dataclass(frozen=True)
class SweepPlan:
    """A sweep whose every training is checked."""

    sweep: Sweep
    base: Recipe
    """What all points share."""
    points: list[Point]
    """Empty where a searcher proposes them."""
    trainings: list[PreparedTraining]
    """Of all points; of a searcher's sweep those of the recipe without any change."""
    path: Path
    """The sweep's directory."""

    @property
    def ids(self) -> list[str]:
        return [training.id for training, _ in self.trainings]

    @property
    def times(self) -> int:
        """How many points each training stands for."""
        return 1 if self.points else self.sweep.points

    def remaining_cost(self, at_once: int) -> Cost:
        return remaining_cost(self.trainings, at_once).times(self.times)

    def judging_estimates(self) -> list[Estimate]:
        return judging_estimates(self.trainings, self.times)


def plan(command: Command) -> SweepPlan:
    """Read a sweep and check everything that needs no cluster; refuse all wrong points at once."""
    sweep = space.load(command.sweep, command.setting)
    changes = {"name": command.name, "seeds": command.seeds, "concurrent": command.concurrent}
    given = {name: value for name, value in changes.items() if value}
    sweep = space.validated(sweep.model_dump() | given, "command line")
    space.check_names(sweep)
    tune_trials.check_search(sweep)
    base = space.base_recipe(sweep)
    if command.runs_dir:
        base = base.override({"runs_dir": command.runs_dir})
    tune_trials.check_scheduler(sweep, base)
    points = [] if sweep.search == "optuna" else space.points(sweep)
    trainings = prepare(sweep, base, points or [Point(-1, {}, {})])
    path = stored_path(base.runs_dir) / "sweeps" / sweep.name
    return SweepPlan(sweep, base, points, trainings, path)


def run(command: Command) -> Study:
    """Run a sweep to its end and report it; refuse what is wrong before anything starts.

    KeyboardInterrupt tells that it was stopped; what there is has been reported.
    """
    most = command.most_usd
    return run_plan(plan(command), resume=command.resume, dry_run=command.dry_run, limit_usd=most)


def run_plan(
    plan: SweepPlan,
    *,
    resume: bool,
    dry_run: bool = False,
    limit_usd: float = math.inf,
    pool: WorkerPool | None = None,
) -> Study:
    """Run a planned sweep to its end and report it; raises as `run` does.

    Args:
        resume: go on with a sweep that was begun.
        dry_run: print what would run, and start nothing.
        limit_usd: money that judges may cost without asking a person.
        pool: actors that an earlier sweep has left running; by default the sweep starts its own.
    """
    sweep, path = plan.sweep, plan.path
    with SweepDirectory(path) as directory:
        directory.check(sweep, plan.base, plan.points, plan.ids, resume)
        tune_trials.connect()
        at_once, gpus = trainings_at_once(sweep, plan.base.cluster, len(plan.trainings))
        judging = plan.judging_estimates()
        print_plan(plan, at_once, gpus, judging)
        if dry_run:
            return Study(sweep, plan.points, [], path, plan.base, [])
        confirm(judging, limit_usd, sys.stdin.isatty())
        directory.write()
        try:
            run_trainings(plan, directory, at_once, gpus, pool)
        finally:
            study = Study.load(path)
            report.show(study)
            print(f"report       {reference(report.write(study))}", flush=True)
    return study


def print_plan(plan: SweepPlan, at_once: int, gpus: bool, judging: list[Estimate]) -> None:
    """Print what is about to run and what it takes; refuse it where the disk has no room."""
    show = Console(highlight=False, soft_wrap=True).print
    kinds = [k.split(":")[1] for k in ray.cluster_resources() if k.startswith("accelerator_type:")]
    gpu = (kinds or ["GPU"])[0] if gpus else None
    sweep, path = plan.sweep, plan.path
    cost = plan.remaining_cost(at_once)
    count = len(plan.points) or f"up to {sweep.points}"
    show(f"sweep {sweep.name}: {count} points x {len(sweep.seeds)} seeds, in {reference(path)}")
    for point in plan.points:
        show(f"  {point.number + 1:3}  {point.name}")
    free = free_bytes(path)
    show(
        f"{cost.trainings} trainings left, {at_once} at once: "
        f"{forecast(plan, cost, at_once, gpu)}; weights of {format_bytes(cost.kept_bytes)} are "
        f"kept, {format_bytes(cost.most_bytes)} at most meanwhile ({format_bytes(free)} free)"
    )
    for one in judging:
        show(f"judge {one.describe()}")
    if sweep.metric == "perplexity":
        show(f"note: {PERPLEXITY}")
    if cost.most_bytes > free:
        raise UserError(
            f"{path} has {format_bytes(free)} left and the sweep needs "
            f"{format_bytes(cost.most_bytes)}; make room, keep fewer epochs "
            "(checkpoint.weights_from_epoch), or `keep: none`"
        )


def forecast(plan: SweepPlan, cost: Cost, at_once: int, gpu: str | None) -> str:
    """Describe how long a sweep takes, by earlier trainings of its base where there are any."""
    training, prepared = plan.trainings[0]
    runs = earlier_runs(training.run.path.parent, prepared.data_card["base"]["hash"])
    if pace := measure_pace(runs):
        time = format_duration(pace.seconds(cost, at_once))
        return f"about {time}, by the pace of {counted(pace.runs, 'earlier training')}"
    return f"how long is told after the first steps ({arithmetic(cost, gpu)})"


def run_trainings(
    plan: SweepPlan, directory: SweepDirectory, at_once: int, gpus: bool, pool: WorkerPool | None
) -> None:
    """Run what is left of a sweep and close what was started, also at KeyboardInterrupt."""
    sweep, path = plan.sweep, plan.path
    study = Study.load(path)
    settled = {(o.point, o.seed) for o in study.outcomes if o.status != "failed"}
    left = {one.point for one, _ in plan.trainings if (one.point, one.seed) not in settled}
    unmeasured = {one.point for one, _ in plan.trainings if not one.is_measured()}
    journal, trainings = SweepJournal(path), dict[int, list[Training]]()
    names: dict[tuple[int, int], str] = {}
    for training, prepared in plan.trainings if plan.points else ():
        key = training.point, training.seed
        if training.point in left - unmeasured:  # other sweeps have trained and measured it
            journal.add_ended(training, {key}, "done", "", 0)
        elif training.point in left:
            directory.locks.append(reserve(training, prepared))
            trainings.setdefault(training.point, []).append(training)
            names[key] = f"{study.points[training.point].name}, seed {training.seed}"
    total = len(names)
    if not plan.points:
        total = max(0, sweep.points - len(study.ended)) * len(sweep.seeds)
    if not total:
        return
    own = (
        nullcontext(pool)
        if pool
        else WorkerPool(plan.base.cluster, at_once, gpus, path / "workers")
    )
    with own as pool:
        pool.begin_sweep(sweep, path)
        runs, cost = [training.run for training, _ in plan.trainings], plan.remaining_cost(at_once)
        with SweepProgress(pool, names, total, runs, cost, at_once) as progress:
            context = tune_trials.TrialContext(
                sweep, plan.base, pool.queue, trainings, study.next_number, path
            )
            tune_trials.run_trials(context, -(-at_once // len(sweep.seeds)) + 1, study)
            while get(pool.queue.is_stopping.remote()):
                pass
        if pool.broken:
            raise UserError(pool.broken)
        if progress.unfinished > 0:
            raise KeyboardInterrupt


def main(command: Command) -> None:
    run(command)
