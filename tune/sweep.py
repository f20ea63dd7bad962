"""Run a study over a recipe on Ray Tune: train each point with each seed, judge, report.

    python -m tune.sweep SWEEP [--dry_run] [--resume]
    ray job submit --working-dir . -- python -m tune.sweep SWEEP

SWEEP is a file, or the name of one in tune/sweeps. Everything is checked, and the cost is told,
before the first training starts. A sweep that was killed goes on with
--resume, and repeats no training that was done; Ctrl-C ends it with a report of what there is.

    runs/sweeps/NAME/   sweep.yaml, trainings.jsonl, report.md, its pictures, best.yaml
    runs/trials/ID/     each training: a run, shared by all sweeps that have this point
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run as run_command

    sys.exit(run_command("sweep"))

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import ray
from rich.console import Console

from lima_ray.config.errors import UserError
from lima_ray.config.paths import durable
from lima_ray.config.recipe import Recipe
from lima_ray.results.units import duration, size
from tune import cost, pace, report, space, training
from tune.arguments import SweepCommand as Command
from tune.reports.tables import PERPLEXITY
from tune.reports.wording import counted
from tune.results import Study
from tune.space import Point, Sweep
from tune.sweep_directory import Claim
from tune.sweep_journal import SweepJournal
from tune.workers import tune_trials, worker_pool as pool
from tune.workers.worker_pool import Pool
from tune.workers.progress import Watch
from tune.workers.training_queue import ask

TABLE_WIDTH = 100
"""Characters of the report's table in a log, which has no width of its own."""


@dataclass(frozen=True)
class Plan:
    """A sweep whose every training is checked."""

    sweep: Sweep
    base: Recipe
    """What all points share."""
    points: list[Point]
    """None where a searcher proposes them."""
    made: list[training.Made]
    """The trainings; of a searcher's sweep those of the recipe without any change."""
    path: Path
    """The sweep's directory."""


def plan(command: Command) -> Plan:
    """Read a sweep and check everything that needs no cluster.

    Raises:
        UserError: anything wrong with the file or its points; all wrong points are listed.
    """
    sweep = space.load(command.sweep, command.setting)
    changes = {"name": command.name, "seeds": command.seeds, "concurrent": command.concurrent}
    sweep = space.changed(sweep, {name: value for name, value in changes.items() if value})
    space.check_names(sweep)
    tune_trials.check_search(sweep)
    base = space.base_recipe(sweep)
    if command.runs_dir:
        base = base.override({"runs_dir": command.runs_dir})
    tune_trials.check_scheduler(sweep, base)
    points = [] if sweep.search == "optuna" else space.points(sweep)
    made = training.prepare(sweep, base, points or [Point(-1, {}, {})])
    return Plan(sweep, base, points, made, durable(Path(base.runs_dir)) / "sweeps" / sweep.name)


def run(command: Command) -> Study:
    """Run a sweep to its end and report it.

    Raises:
        UserError: anything wrong with the file, its points, the directory or the cluster, before
            anything starts.
        KeyboardInterrupt: it was stopped; what there is has been reported.
    """
    return carry_out(plan(command), resume=command.resume, dry_run=command.dry_run)


def carry_out(
    todo: Plan, *, resume: bool, dry_run: bool = False, warm: Pool | None = None
) -> Study:
    """Run a planned sweep to its end and report it; raises as `run` does.

    Args:
        todo: the plan.
        resume: go on with a sweep that was begun.
        dry_run: tell what would run, and start nothing.
        warm: actors that an earlier sweep has left running; none starts its own.
    """
    sweep, path = todo.sweep, todo.path
    with Claim(path) as claim:
        ids = [job.id for job, _ in todo.made]
        claim.check(sweep, todo.base, todo.points, ids, resume)
        tune_trials.connect()
        at_once, gpus = pool.room(sweep, todo.base.cluster, len(todo.made))
        tell(todo, at_once, gpus)
        if dry_run:
            return Study(sweep, todo.points, [], path, todo.base, [])
        claim.write()
        try:
            finish(todo, claim, at_once, gpus, warm)
        finally:
            study = Study.load(path)
            screen = Console(highlight=False)
            screen.print(report.table(study), width=max(screen.width, TABLE_WIDTH))
            print(f"report       {report.write(study)}", flush=True)
    return study


def tell(todo: Plan, at_once: int, gpus: bool) -> None:
    """Say what is about to run and what it takes.

    Raises:
        UserError: the disk has no room for it.
    """
    say = Console(highlight=False, soft_wrap=True).print
    kinds = [k.split(":")[1] for k in ray.cluster_resources() if k.startswith("accelerator_type:")]
    gpu = (kinds or ["GPU"])[0] if gpus else None
    sweep, path = todo.sweep, todo.path
    needs = needed(todo, at_once)
    count = len(todo.points) or f"up to {sweep.points}"
    say(f"sweep {sweep.name}: {count} points x {len(sweep.seeds)} seeds, in {path}")
    for point in todo.points:
        say(f"  {point.number + 1:3}  {point.name}")
    free = cost.free_bytes(path)
    say(
        f"{needs.trainings} trainings left, {at_once} at once: "
        f"{forecast(todo, needs, at_once, gpu)}; weights of {size(needs.kept_bytes)} are "
        f"kept, {size(needs.most_bytes)} at most meanwhile ({size(free)} free)"
    )
    if sweep.metric == "perplexity":
        say(f"note: {PERPLEXITY}")
    if needs.most_bytes > free:
        raise UserError(
            f"{path} has {size(free)} left and the sweep needs {size(needs.most_bytes)}; "
            "make room, keep fewer epochs (checkpoint.weights_from_epoch), or `keep: none`"
        )


def needed(todo: Plan, at_once: int) -> cost.Cost:
    """What is left of a sweep."""
    return cost.of(todo.made, at_once).times(1 if todo.points else todo.sweep.points)


def forecast(todo: Plan, needs: cost.Cost, at_once: int, gpu: str | None) -> str:
    """How long a sweep takes, by earlier trainings of its base where there are any."""
    job, prepared = todo.made[0]
    runs = pace.earlier(job.run.path.parent, prepared.card["base"]["hash"])
    if known := pace.of(runs):
        seconds = known.seconds(needs, at_once)
        return (
            f"about {duration(seconds)}, by the pace of {counted(known.runs, 'earlier training')}"
        )
    told = cost.arithmetic(needs, gpu)
    return f"how long is told after the first steps ({told})"


def finish(todo: Plan, claim: Claim, at_once: int, gpus: bool, warm: Pool | None) -> None:
    """Run what is left of a sweep, and close what was started for it.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    sweep, path = todo.sweep, todo.path
    study = Study.load(path)
    settled = {(o.point, o.seed) for o in study.outcomes if o.status != "failed"}
    begun = {job.point for job, _ in todo.made if (job.point, job.seed) not in settled}
    journal, jobs = SweepJournal(path), dict[int, list[training.Job]]()
    names: dict[tuple[int, int], str] = {}
    missing = {job.point for job, _ in todo.made if not job.is_measured()}
    for job, prepared in todo.made if todo.points else ():
        if job.point in begun - missing:  # other sweeps have trained and measured it
            journal.ended(job, {(job.point, job.seed)}, "done", "", 0)
        elif job.point in begun:
            claim.locks.append(training.claim(job, prepared))
            jobs.setdefault(job.point, []).append(job)
            names[job.point, job.seed] = f"{study.points[job.point].name}, seed {job.seed}"
    total = len(names)
    if not todo.points:
        total = max(0, sweep.points - len(study.ended)) * len(sweep.seeds)
    if not total:
        return
    own = nullcontext(warm) if warm else Pool(todo.base.cluster, at_once, gpus, path / "lanes")
    with own as actors:
        actors.begin(sweep, path)
        runs = [job.run for job, _ in todo.made]
        with Watch(actors, names, total, runs, needed(todo, at_once), at_once) as watch:
            trials = tune_trials.Trials(
                sweep, todo.base, actors.dispatcher, jobs, study.next_number, path
            )
            tune_trials.run(trials, -(-at_once // len(sweep.seeds)) + 1, study)
            while ask(actors.dispatcher.stopping.remote()):
                pass
        if actors.broken:
            raise UserError(actors.broken)
        if watch.unfinished > 0:
            raise KeyboardInterrupt


def main(command: Command) -> None:
    """`python -m tune.sweep SWEEP`."""
    run(command)
