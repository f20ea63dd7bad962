"""Fine-tune a base on a small dataset with LIMA's protocol, on a laptop or a Ray cluster.

    python -m lima_ray.train [RECIPE] [--section.field value ...]
    ray job submit --working-dir . -- python -m lima_ray.train [RECIPE] ...

Everything that can be wrong with the input is checked first. The run's directory then gets metrics,
resume state, weights by epoch and `export/`, a complete Hugging Face model. The same command goes
on from the last state after a crash, also with another number of workers.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("train"))

import errno
import math
import os
import shutil
from dataclasses import asdict, dataclass, replace
from shlex import quote
from typing import Any

import psutil
import ray
import ray.train
from ray.exceptions import OutOfMemoryError, RayActorError
from transformers import PreTrainedTokenizerFast

from lima_ray import select
from lima_ray.config import cluster
from lima_ray.config.command_line import RecipeCommand
from lima_ray.config.errors import UserError
from lima_ray.config.loading import with_absolute_paths
from lima_ray.config.recipe import Recipe
from lima_ray.config.secrets.sharing import SharedSecrets
from lima_ray.config.storage import changing_files, whole_folders
from lima_ray.config.storage.working_copy import rays_folder, reference
from lima_ray.data import training_data
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import describe_template
from lima_ray.judging import assessment, preflight
from lima_ray.judging.asking.forecast import tell_training
from lima_ray.judging.registry import check_judge_answers
from lima_ray.model.families import check_base_model
from lima_ray.planning.report import resolve_auto
from lima_ray.records.files import explain_write_errors, make_readable
from lima_ray.records.lineage import check_base, hash_arrays, hash_base
from lima_ray.records.phases import Phases
from lima_ray.records.run import Run
from lima_ray.results.figures import draw_loss_curve
from lima_ray.training.failures import FailureLog, describe_exception
from lima_ray.training.progress import TrainingProgress
from lima_ray.training.schedule import Schedule
from lima_ray.training.signals import raise_on_signals, run_in_thread
from lima_ray.training.trackers import check_tracker
from lima_ray.training.trainer import ProcessGroup, Trainer
from lima_ray.training.worker import LEFT, train_worker

COLLECTIVE_TIMEOUT_S = 1800


def fit(recipe: Recipe) -> Run:
    """Train a recipe to its end, or go on where an earlier run of it stopped.

    Raises:
        UserError: bad input, an occupied directory, a cluster that is too small, a full disk; or a
            run that failed more often than `cluster.max_failures` allows.
    """
    phases = Phases(psutil.Process().create_time())
    phases.done("imports")
    run = Run(recipe.run_dir)
    changing_files.check_writable(run.path)
    run.refresh()
    job = prepare(run.with_own_choices(recipe))
    print(describe_template(job.tokenizer))
    with run.locked():
        if not run.is_begun() or not job.recipe.is_resolved():
            job = job.resolved()
        recipe = job.recipe
        job.initialise()
        if not is_finished(run, job.schedule):
            run.check_states()
            job.write()
            phases.done("data")
            cluster.connect()
            phases.done("ray")
            gpus = cluster.wants_gpus(recipe.cluster)
            cpus = cluster.cpus_per_worker(recipe.cluster, gpus)
            cluster.check_resources(recipe.cluster, gpus, cpus)
            seen = run.reading_copy()  # workers on other nodes write the run's own files
            with (
                changing_files.Refreshes(seen.path),
                raise_on_signals(seen),
                TrainingProgress(seen, recipe, job.schedule),
            ):
                run_in_thread(lambda: run_workers(recipe, run, gpus, cpus, job.lineage, phases))
            run.refresh()
        with raise_on_signals(run):
            select.choose_epoch(run, recipe)
            print(select.check_export(run, recipe), flush=True)
        if run.steps():
            changing_files.push(draw_loss_curve(run))
    return run


@dataclass(frozen=True)
class PreparedRun:
    """A training whose input is checked; nothing of it is written yet."""

    recipe: Recipe
    data_card: dict[str, Any]
    """What the run is made from."""
    tokenizer: PreTrainedTokenizerFast
    """With EOT."""
    rows: Rows

    @property
    def schedule(self) -> Schedule:
        return Schedule.of(self.recipe, len(self.rows))

    @property
    def lineage(self) -> dict[str, str]:
        """Hashes of data, base and recipe."""
        return {part: made["hash"] for part, made in self.data_card.items()}

    def resolved(self) -> "PreparedRun":
        """Join Ray and resolve each `auto` by what fits there; print what it stands for."""
        recipe, told = resolve_auto(self.recipe, self.rows)
        if told:
            print(told, flush=True)
        card = self.data_card | {"recipe": {"from": recipe.name, "hash": recipe.hash()}}
        return replace(self, recipe=recipe, data_card=card)

    def initialise(self) -> Run:
        """Make the run's directory this recipe's; refuse one that holds something else."""
        run = Run(self.recipe.run_dir)
        run.initialise(self.recipe, self.data_card)
        return run

    def write(self) -> None:
        """Write what the workers read: the encoded rows and the tokenizer."""
        run = Run(self.recipe.run_dir)
        with explain_write_errors(run.path):
            self.rows.save(run.rows_file)
            make_readable(run.rows_file)
            self.tokenizer.save_pretrained(run.tokenizer_dir, save_jinja_files=False)
        changing_files.push(run.rows_file)
        whole_folders.publish(run.tokenizer_dir)


def prepare(recipe: Recipe, encoded: training_data.TrainingData | None = None) -> PreparedRun:
    """Refuse all that can be wrong with a recipe's input, and encode its rows.

    Args:
        encoded: what `training_data.load` returned for the same data, base and sample of rows.
    """
    made = check_inputs(recipe, encoded)
    if not Run(recipe.run_dir).has_export():  # a finished run needs none of it
        preflight.check_dev_prompts(recipe, made.tokenizer)
        tell_training(recipe)
        check_judge_answers(recipe.select)
    return made


def check_inputs(recipe: Recipe, encoded: training_data.TrainingData | None = None) -> PreparedRun:
    """Do what `prepare` does, but look at nothing that choosing an epoch needs of others."""
    check_base(recipe.model.base)
    check_base_model(recipe)
    check_tracker(recipe.log.tracker)
    preflight.check_selection(recipe)
    tokenizer, examples, rows = encoded or training_data.load(recipe)
    data = {
        "from": recipe.data.train,
        "rows": len(rows),
        "tokens": int(rows.lengths_R.sum()),
        "hash": hash_arrays(rows.ids_N, rows.mask_N, rows.starts_R1),
        "sources": sorted({e.source for e in examples if e.source}),
    }
    card = {
        "data": data | ({"added": recipe.data.added} if recipe.data.added else {}),
        "base": {"from": recipe.model.base, "hash": hash_base(recipe.model.base)},
        "recipe": {"from": recipe.name, "hash": recipe.hash()},
    }
    return PreparedRun(recipe, card, tokenizer, rows)


def is_finished(run: Run, schedule: Schedule) -> bool:
    """Return whether every step is done and the last epoch's weights are written."""
    state, earlier = run.latest_state(), run.earlier_states()
    steps = state.step if state else max(earlier, default=0)
    return steps == schedule.steps and run.has_epoch(schedule.recipe.optim.epochs)


def run_workers(
    recipe: Recipe, run: Run, gpus: bool, cpus: int, lineage: dict[str, str], phases: Phases
) -> None:
    asked = recipe.cluster
    workers = (asked.min_workers, asked.workers) if asked.min_workers else asked.workers
    assessed = assesses_during_training(recipe, gpus)
    everything = with_absolute_paths(recipe).model_dump()
    rays = rays_folder(run.path)
    secrets = SharedSecrets.of_driver()
    trainer = Trainer(
        train_worker,
        train_loop_config={
            "recipe": everything,
            "run": reference(run.path),
            "ray_folder": str(rays),
            "phases": asdict(phases),
            "lineage": lineage,
            "assess": assessed,
            "secrets": secrets,
        },
        backend_config=ProcessGroup(COLLECTIVE_TIMEOUT_S),
        scaling_config=cluster.scaling_config(workers, int(gpus), cpus),
        run_config=ray.train.RunConfig(
            name=rays.name,
            storage_path=str(rays.parent),
            failure_config=ray.train.FailureConfig(max_failures=asked.max_failures),
            worker_runtime_env={
                "env_vars": cluster.training_environment(gpus, cpus, recipe.model.base)
            },
            callbacks=[FailureLog(run)],
        ),
        validation_config=ray.train.ValidationConfig(
            fn=assessment.assess_during_training,
            task_config=ray.train.ValidationTaskConfig(
                {"run": reference(run.path), "recipe": everything, "secrets": secrets}
            ),
            ray_remote_kwargs=cluster.task_options(gpus),
        )
        if assessed
        else None,
    )
    try:
        returned = fit_on_nodes(trainer, run, asked.max_failures)
    finally:
        if rays != run.path:
            shutil.rmtree(rays.parent, ignore_errors=True)
    if "error" in returned:
        raise UserError(returned["error"])


def fit_on_nodes(trainer: Trainer, run: Run, max_failures: int) -> dict[str, str]:
    """Return what the workers returned; those that left a node begin again on others."""
    returned = {LEFT: ""}
    while LEFT in returned:
        try:
            returned = trainer.fit().return_value or {}
        except ray.train.TrainingFailedError as error:
            raise UserError(explain_failure(error, run, max_failures)) from error
        # The controller is on this command's own node, or on the head.
        except (RayActorError, OutOfMemoryError) as error:
            raise UserError(
                f"Ray's controller of the training was lost ({describe_exception(error)}). What is "
                f"saved is in {run.place}; the same command goes on from there, once the cluster "
                "is up"
            ) from error
    return returned


def explain_failure(error: Exception, run: Run, max_failures: int) -> str:
    """Return what a user needs to know of a training that Ray Train gave up."""
    kept = f"What is saved is in {run.place}; the same command goes on from there"
    if os.strerror(errno.ENOSPC) in str(error):
        return f"no room is left on the disk of {run.place}; make some. {kept}"
    return (
        f"training failed more than cluster.max_failures {max_failures} times. {kept}. The last "
        f"error was:\n{error}"
    )


def assesses_during_training(recipe: Recipe, gpus: bool) -> bool:
    """Return whether epochs are judged while training goes on: where that takes no worker's GPU."""
    spare = ray.cluster_resources().get("GPU", 0) > recipe.cluster.workers
    return recipe.select.judge != "none" and (spare or not gpus)


def summarise(run: Run) -> str:
    """Return what the run reached, and what to type next."""
    steps = run.steps()
    if not steps:
        return f"model        {reference(run.export_dir)} ({run.metrics_file} tells of no step)"
    first, last = steps[0], steps[-1]
    tokens = sum(s["supervised_tokens"] for s in steps)
    seconds = sum(s["seconds"] for s in steps)
    perplexity = math.exp(min(last["loss"], 700))
    lines = [
        f"{len(steps)} steps, {last['epoch']} epochs, {tokens:,} supervised tokens in "
        f"{seconds:,.1f} s of steps ({tokens / seconds:,.0f}/s)",
        f"loss {first['loss']:.3f} -> {last['loss']:.3f} (perplexity {perplexity:,.1f}), token "
        f"accuracy {first['token_accuracy']:.1%} -> {last['token_accuracy']:.1%}",
        f"loss curve   {reference(run.path / 'loss.png')}",
        f"model        {reference(run.export_dir)}",
    ]
    if run.epochs_figure.exists():
        lines.insert(3, f"epochs       {reference(run.epochs_figure)}")
    return "\n".join(lines)


def main(step: RecipeCommand) -> None:
    trained = fit(step.recipe)
    print(summarise(trained))
    export = reference(trained.export_dir)
    print(f"next         python -m lima_ray.chat {quote(export)}")
