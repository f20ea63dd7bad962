"""An epoch assessed: its model replies to the dev prompts, and a judge grades the replies."""

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lima_ray.config import cluster
from lima_ray.config.errors import UserError
from lima_ray.config.loading import with_absolute_paths
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.data.examples import read_prompts
from lima_ray.generation.arguments import GenerationJob
from lima_ray.generation.job import generate, identity
from lima_ray.generation.reply_directory import read_settings
from lima_ray.judging.perplexity import perplexity
from lima_ray.judging.registry import load_judge
from lima_ray.records.files import write_json, write_jsonl
from lima_ray.records.quality import Quality, problem_file
from lima_ray.records.reply import Reply
from lima_ray.records.run import Run, model_name
from lima_ray.records.verdict import Verdict
from lima_ray.results import intervals


def assess(run: Run, epoch: int, recipe: Recipe) -> Quality:
    """Reply to the dev prompts with an epoch's weights, judge, and write quality.json.

    The recipe is the run's, with the `select` and `sampling` sections to use.

    Raises:
        UserError: no weights, no dev prompts, or a judge that does not answer.
    """
    started = time.perf_counter()
    folder = run.dev_dir(epoch)
    model = run.epoch_dir(epoch)
    if not model.exists():
        raise UserError(f"{run.path} holds no weights of epoch {epoch}")
    weights = run.lineage(model).get("weights", "")
    if is_outdated(run, epoch, recipe):
        shutil.rmtree(folder)
    replies, verdicts = generate_and_judge(model, dev_prompts(recipe), folder, recipe)
    graded = [(v.id, v.grade) for v in verdicts if v.grade is not None]
    if not graded:
        raise UserError(f"the judge gave no readable verdict on the {len(verdicts)} replies")
    prompts, grades = zip(*graded, strict=True)
    low, high = intervals.mean_interval(grades, prompts)
    quality = Quality(
        epoch=epoch,
        grade=float(np.mean(grades)),
        low=low,
        high=high,
        stopped=float(np.mean([r.stopped for r in replies])),
        replies=len(replies),
        invalid=len(verdicts) - len(graded),
        perplexity=perplexity(model, recipe) if recipe.data.heldout else None,
        judge=recipe.select.judge_name,
        seconds=time.perf_counter() - started,
        weights=weights,
    )
    write_json(folder / "quality.json", asdict(quality))
    problem_file(run, epoch).unlink(missing_ok=True)
    return quality


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

    Returns replies and verdicts, in the same order, which `out` keeps.
    """
    job = generation_job(model, prompts, out, recipe)
    replies = generate(job, in_process=True)
    verdicts = load_judge(recipe.select.judge).judge(replies, recipe.select)
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


def is_outdated(run: Run, epoch: int, recipe: Recipe) -> bool:
    """Return whether other prompts, sampling or weights made an epoch's dev replies."""
    model, folder = run.epoch_dir(epoch), run.dev_dir(epoch)
    asked = read_settings(folder)
    if asked is None or not model.exists():
        return False
    job = generation_job(model, dev_prompts(recipe), folder, recipe)
    now = identity(job, model, read_prompts(job.prompts, job.split))
    return asked != now


def assess_during_training(checkpoint: Any, **kwargs: Any) -> dict[str, float]:
    """Assess an epoch as a Ray task during training: Ray Train's asynchronous validation.

    Args:
        checkpoint: not read; the weights stand in the run.
        kwargs: `run` (path), `recipe` (plain values), `epoch`.
    """
    run, epoch = Run(Path(kwargs["run"])), kwargs["epoch"]
    recipe = validate_recipe(kwargs["recipe"])
    try:
        quality = assess(run, epoch, recipe)
    except Exception as error:
        known = isinstance(error, UserError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        run.dev_dir(epoch).mkdir(parents=True, exist_ok=True)
        write_json(problem_file(run, epoch), {"epoch": epoch, "error": message})
        if not known:
            raise
        return {}
    return {"grade": quality.grade, "stopped": quality.stopped}


def assess_remotely(run: Run, epoch: int, recipe: Recipe) -> Quality:
    return cluster.run_as_task(assess, recipe, run, epoch, with_absolute_paths(recipe))
