"""An epoch assessed: its model replies to the dev prompts, and a judge judges the replies."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lima_ray.config import cluster
from lima_ray.config.errors import UserError
from lima_ray.config.loading import with_absolute_paths
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.config.sections import Metric
from lima_ray.config.storage import changing_files, whole_folders
from lima_ray.config.storage.whole_folders import is_whole
from lima_ray.data.examples import read_prompts
from lima_ray.generation.arguments import GenerationJob
from lima_ray.generation.job import generate, identity
from lima_ray.generation.reply_directory import read_settings
from lima_ray.judging.asking.reference import expected_replies, hash_reference
from lima_ray.judging.perplexity import perplexity
from lima_ray.judging.registry import load_judge
from lima_ray.records.files import write_json, write_jsonl
from lima_ray.records.quality import Quality, problem_file
from lima_ray.records.reply import Reply
from lima_ray.records.run import Run, model_name, open_run
from lima_ray.records.verdict import Verdict
from lima_ray.results import intervals
from lima_ray.results.statistics.verdict_table import points_in_both_orders

JOURNAL = "judgements.jsonl"


def assess(run: Run, epoch: int, recipe: Recipe) -> Quality:
    """Reply to the dev prompts with an epoch's weights, judge, and write quality.json.

    The recipe is the run's, with the `select` and `sampling` sections to use.

    Raises:
        UserError: no weights, no dev prompts, or a judge that does not answer.
    """
    folder, model = run.dev_dir(epoch), whole_folders.fetch(run.epoch_dir(epoch))
    if not model.exists():
        raise UserError(f"{run.path} holds no weights of epoch {epoch}")
    changing_files.pull(folder)
    if is_outdated(run, epoch, recipe):
        changing_files.forget(folder)
    with changing_files.Uploads(folder):  # what a judge has been paid for
        return assess_here(run, epoch, recipe)


def assess_here(run: Run, epoch: int, recipe: Recipe) -> Quality:
    """Do what `assess` does with weights and earlier replies that are on this disk."""
    started = time.perf_counter()
    folder, model = run.dev_dir(epoch), run.epoch_dir(epoch)
    weights = run.lineage(model).get("weights", "")
    replies, verdicts = generate_and_judge(model, dev_prompts(recipe), folder, recipe)
    judged = values_of(recipe.select.metric, verdicts)
    if not judged:
        raise UserError(f"the judge gave no readable verdict on the {len(replies)} replies")
    prompts, values = zip(*judged, strict=True)
    low, high = intervals.mean_interval(values, prompts)
    unanswered = {(v.id, v.sample, v.turn) for v in verdicts if v.status == "unanswered"}
    quality = Quality(
        epoch=epoch,
        value=float(np.mean(values)),
        low=low,
        high=high,
        stopped=float(np.mean([r.stopped for r in replies])),
        replies=len(replies),
        invalid=len(replies) - len(judged) - len(unanswered),
        unanswered=len(unanswered),
        perplexity=perplexity(model, recipe) if recipe.data.heldout else None,
        judge=recipe.select.judge_name,
        seconds=time.perf_counter() - started,
        weights=weights,
        metric=recipe.select.metric,
        reference=reference_of(recipe),
    )
    write_json(folder / "quality.json", asdict(quality))
    problem_file(run, epoch).unlink(missing_ok=True)
    return quality


def values_of(metric: Metric, verdicts: list[Verdict]) -> list[tuple[str, float]]:
    """Return prompt and value of each reply whose verdicts were read."""
    if metric == "grade":
        return [(v.id, v.grade) for v in verdicts if v.grade is not None]
    return [(str(pair[0]), points) for pair, points in points_in_both_orders(verdicts).items()]


def reference_of(recipe: Recipe) -> str:
    """Return a hash of what the dev replies are compared with; empty where they are graded."""
    prompts, reference = dev_prompts(recipe), recipe.select.reference
    if not reference:
        return ""
    rows = read_prompts(prompts.reference, prompts.split)
    return hash_reference(reference, expected_replies(rows, prompts.samples))


@dataclass(frozen=True)
class PromptSet:
    reference: str
    """A file, a directory or a dataset of the hub."""
    split: str = "test"
    samples: int = 1
    """Replies to each prompt."""


def generate_and_judge(
    model: Path, prompts: PromptSet, out: Path, recipe: Recipe
) -> tuple[list[Reply], list[Verdict]]:
    """Have a model reply in this process, and the recipe's judge judge it.

    Returns replies and verdicts, which `out` keeps; what an endpoint answers stands there at once,
    in a journal, so that it is not asked for again.
    """
    job = generation_job(model, prompts, out, recipe)
    replies = generate(job, in_process=True)
    verdicts = load_judge(recipe.select.judge).judge(replies, recipe.select, out / JOURNAL)
    write_jsonl([verdict.to_json() for verdict in verdicts], out / "verdicts.jsonl")
    return replies, verdicts


def generation_job(model: Path, prompts: PromptSet, out: Path, recipe: Recipe) -> GenerationJob:
    return GenerationJob(
        model=str(model),
        name=model_name(model),
        prompts=prompts.reference,
        split=prompts.split,
        out=out,
        samples=prompts.samples,
        sampling=recipe.sampling,
    )


def dev_prompts(recipe: Recipe) -> PromptSet:
    assert recipe.data.dev
    return PromptSet(recipe.data.dev, "dev", recipe.select.samples)


def is_current(run: Run, quality: Quality, recipe: Recipe) -> bool:
    """Return whether what is known of an epoch is of these prompts, weights and reference."""
    same = quality.reference == reference_of(recipe)
    return same and not is_outdated(run, quality.epoch, recipe)


def is_outdated(run: Run, epoch: int, recipe: Recipe) -> bool:
    """Return whether other prompts, sampling or weights made an epoch's dev replies."""
    model, folder = run.epoch_dir(epoch), run.dev_dir(epoch)
    asked = read_settings(folder)
    if asked is None or not is_whole(model):
        return False
    job = generation_job(model, dev_prompts(recipe), folder, recipe)
    now = identity(job, model, read_prompts(job.prompts, job.split))
    return asked != now


def assess_during_training(checkpoint: Any, **kwargs: Any) -> dict[str, float]:
    """Assess an epoch as a Ray task during training: Ray Train's asynchronous validation.

    Args:
        checkpoint: not read; the weights stand in the run.
        kwargs: `run` (path or URL), `recipe` (plain values), `secrets`, `epoch`.
    """
    run, epoch = open_run(kwargs["run"]), kwargs["epoch"]
    recipe = validate_recipe(kwargs["recipe"])
    try:
        kwargs["secrets"].enter_environment()
        quality = assess(run, epoch, recipe)
    except Exception as error:
        known = isinstance(error, UserError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        run.dev_dir(epoch).mkdir(parents=True, exist_ok=True)
        write_json(problem_file(run, epoch), {"epoch": epoch, "error": message})
        changing_files.push(problem_file(run, epoch))
        if not known:
            raise
        return {}
    return {quality.metric: quality.value, "stopped": quality.stopped}


def assess_remotely(run: Run, epoch: int, recipe: Recipe) -> Quality:
    return cluster.run_as_task(assess, recipe, run, epoch, with_absolute_paths(recipe))
