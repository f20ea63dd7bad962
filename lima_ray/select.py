"""Choose a run's epoch by the quality of its replies, which perplexity does not track.

    python -m lima_ray.select runs/NAME [--select.judge exact] [--select.first_epoch 5]

Each kept epoch answers the dev prompts; a judge (`select.judge`) grades the replies, or compares
each with a reference's in both orders (`select.reference`). The best epoch of the allowed range
becomes `export/` (LIMA section 3 and appendix B). Training does the same by itself, beside the next
epoch's steps, where its recipe names a judge; this step does it for a finished run, or again with
another judge, reference or range. What is assessed already is kept. What a model as judge will take
is told before the first call (--dry_run asks nothing); above --limit_usd a person is asked again.

    runs/NAME/dev/NN/   replies.jsonl, verdicts.jsonl and quality.json of epoch NN
    runs/NAME/epochs.png
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("select"))

import sys
from collections.abc import Callable
from typing import Any

import ray
from transformers import AutoTokenizer

from lima_ray.config import cluster
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.storage.changing_files import push
from lima_ray.config.storage.whole_folders import fetch, fetch_files
from lima_ray.config.storage.working_copy import reference
from lima_ray.data.examples import read_prompts
from lima_ray.judging import preflight
from lima_ray.judging.asking.budget import confirm
from lima_ray.judging.asking.forecast import forecast_selection
from lima_ray.judging.assessment import assess_remotely, is_current
from lima_ray.judging.choice import Selection, SelectionOptions
from lima_ray.judging.registry import check_judge_answers
from lima_ray.model import export_check
from lima_ray.records.quality import Quality, read_qualities
from lima_ray.records.run import Run
from lima_ray.results.figures import draw_epoch_curves
from lima_ray.results.metric_unit import JUDGED, describe_epoch


def choose_epoch(run: Run, recipe: Recipe, report: Callable[[str], None] = print) -> int:
    """Assess what is not assessed yet, export the best epoch of the range, and draw them all.

    Args:
        report: prints a line about each epoch that is assessed here.

    Returns:
        the epoch chosen: of the highest mean grade or win rate; of equals the one more of whose
        replies stopped, then the earliest.

    Raises:
        UserError: no weights at all, or none in the range.
    """
    kept = kept_epochs(run)
    if recipe.select.judge == "none":
        run.export(kept[-1])
        ignored = f"; data.dev {recipe.data.dev} is judged where --select.judge names a judge"
        report(
            f"exported epoch {kept[-1]}, the last: no judge (select.judge none)"
            f"{ignored if recipe.data.dev else ''}"
        )
        return kept[-1]
    done = assessed_epochs(run, recipe)
    for epoch in kept:
        if epoch not in done:
            try:
                done[epoch] = assess_remotely(run, epoch, recipe)
            except UserError as error:
                raise UserError(describe_unjudged(run, epoch, error)) from error
            report(describe_epoch(done[epoch]))
    allowed = [
        q for q in done.values() if recipe.select.first_epoch <= q.epoch <= recipe.select.last_epoch
    ]
    if not allowed:
        raise UserError(
            f"{run.place} keeps the weights of epochs {', '.join(map(str, kept))}; none lies in "
            f"select.first_epoch {recipe.select.first_epoch} to select.last_epoch "
            f"{recipe.select.last_epoch}"
        )
    best = max(allowed, key=lambda q: (q.value, q.stopped, -q.epoch))
    run.export(best.epoch)
    report(describe_choice(best, allowed))
    push(draw_epoch_curves(run, sorted(done.values(), key=lambda q: q.epoch), best.epoch))
    return best.epoch


def assessed_epochs(run: Run, recipe: Recipe) -> dict[int, Quality]:
    """Return what is known of epochs by this judge, on these prompts and weights."""
    return {
        epoch: quality
        for epoch, quality in read_qualities(run, recipe.select.judge_name).items()
        if is_current(run, quality, recipe)
    }


def kept_epochs(run: Run) -> list[int]:
    """Return the epochs to choose from, in order; refuse a run without any."""
    if kept := run.kept_epochs():
        return kept
    raise UserError(
        f"{run.place} holds no weights to choose from; train it first: python -m lima_ray.train"
    )


def describe_choice(best: Quality, allowed: list[Quality]) -> str:
    """Return which epoch is exported, and what decided between equals."""
    noun = JUDGED[best.metric].noun
    numbers = sorted(q.epoch for q in allowed)
    said = f"exported epoch {best.epoch}, of the best {noun} among {numbers[0]} to {numbers[-1]}"
    equal = [q for q in allowed if q.value == best.value and q is not best]
    if not equal:
        return said
    others = ", ".join(f"{q.epoch} ({q.stopped:.0%} stop)" for q in equal)
    why = "more of its replies stop"
    if any(q.stopped == best.stopped for q in equal):
        why = "it is the earliest of which as many stop"
    return f"{said}; equal {noun}s of {others}, and {why}"


def describe_unjudged(run: Run, epoch: int, error: UserError) -> str:
    """Return what to do where training is done and an epoch cannot be judged."""
    return (
        f"epoch {epoch} cannot be judged: {error}\n"
        f"  Training is done and the weights stand in {run.place}. Once that is mended, the "
        "same command goes on with judging; with --select.judge none it exports the last epoch"
    )


def check_export(run: Run, recipe: Recipe) -> str:
    """See that the export is the model trained, in a task on a GPU where the cluster has one."""
    dtype = recipe.checkpoint.weights_dtype
    if ray.is_initialized() and cluster.wants_gpus(recipe.cluster):
        return cluster.run_as_task(export_check.check_export, recipe, run, dtype)
    return export_check.check_export(run, dtype)


def check_choice(run: Run, recipe: Recipe) -> None:
    """Refuse a choice that this finished run could not make; no judge is asked."""
    if recipe.select.judge == "none":
        raise UserError("the run's recipe names no judge: --select.judge exact, or endpoint")
    kept = kept_epochs(run)
    preflight.check_selection(recipe)
    if recipe.data.dev != (own := run.recipe()).data.dev:
        preflight.check_leaks(own, read_prompts(str(recipe.data.dev), "dev"))
    tokenizer_dir, newest = fetch(run.tokenizer_dir), run.epoch_dir(kept[-1])
    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_dir, trust_remote_code=False)
    fetch_files(newest, ["config.json"])
    preflight.check_dev_prompts(recipe, tokenizer, newest)


def tell_cost(run: Run, recipe: Recipe, options: SelectionOptions) -> None:
    """Tell what the judge will take, and have it accepted where it is above the limit."""
    done = assessed_epochs(run, recipe)
    epochs = [epoch for epoch in kept_epochs(run) if epoch not in done]
    forecast = forecast_selection(run, recipe, epochs)
    if forecast:
        print(forecast.describe(), flush=True)
    if forecast and not (options.dry_run or options.yes):
        confirm([forecast], options.limit_usd, sys.stdin.isatty())


def main(given: Selection) -> None:
    run = given.run
    with run.locked():
        check_choice(run, given.recipe)
        tell_cost(run, given.recipe, given.options)
        if given.options.dry_run:
            print("nothing was asked (dry_run)")
            return
        check_judge_answers(given.recipe.select)
        best = choose_epoch(run, given.recipe)
        print(check_export(run, given.recipe))
    export, figure = reference(run.export_dir), reference(run.epochs_figure)
    print(f"epoch {best} is now {export}; all epochs: {figure}")
