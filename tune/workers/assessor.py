"""The assessor: judges epochs beside the training, and chooses, exports and measures its result."""

import gc
import traceback
from typing import Any

from lima_ray import select
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import validate_recipe
from lima_ray.config.secrets.sharing import SharedSecrets
from lima_ray.config.storage.changing_files import Uploads
from lima_ray.config.storage.whole_folders import fetch
from lima_ray.data.examples import read_examples
from lima_ray.judging import assessment
from lima_ray.judging.perplexity import dialogue_losses
from lima_ray.model.export_check import check_export
from lima_ray.records.files import write_jsonl
from lima_ray.records.quality import read_qualities
from lima_ray.records.verdict import Verdict
from tune.measurement import compared
from tune.training import Training
from tune.workers.training_queue import get


class Assessor:
    """A Ray actor that judges epochs and measures trained runs."""

    def run(self, queue: Any, number: int, threads: int, secrets: SharedSecrets) -> None:
        """Assess what the `TrainingQueue` behind a handle gives, until it closes."""
        import torch

        secrets.enter_environment()

        torch.set_num_threads(threads)
        fresh = True
        while (todo := get(queue.next_assessment.remote(number, fresh))) != "closed":
            fresh = False
            if todo == "wait":
                continue
            training = todo.training
            try:
                if todo.epoch is None:
                    choose_and_measure(training)
                    get(queue.training_measured.remote(training.id))
                else:
                    value = judge_epoch(training, todo.epoch)
                    get(queue.epoch_assessed.remote(training.id, todo.epoch, value))
            except UserError as error:
                get(queue.assessment_failed.remote(todo, str(error)))
            except Exception:
                get(queue.assessment_failed.remote(todo, traceback.format_exc()))
            gc.collect()


def judge_epoch(training: Training, epoch: int) -> float:
    """Return the mean value of an epoch's dev replies; one judged before is not judged again."""
    recipe = validate_recipe(training.recipe)
    known = read_qualities(training.look(), recipe.select.judge_name).get(epoch)
    return (known or assessment.assess(training.run, epoch, recipe)).value


def choose_and_measure(training: Training) -> None:
    """Choose a trained run's epoch, export it, measure it, and drop the weights not kept."""
    run, recipe = training.run, validate_recipe(training.recipe)
    run.refresh()
    trained_before = training.is_trained()
    if not trained_before:
        select.choose_epoch(run, recipe, report=lambda _: None)
        check_export(run, recipe.checkpoint.weights_dtype)
    fetch(run.export_dir)
    with Uploads(training.measured):
        if training.by_loss:
            measure_loss(training)
        else:
            measure_replies(training)
    if not trained_before:  # another sweep may want what it has kept
        training.drop_weights()


def measure_replies(training: Training) -> None:
    """Write the verdicts on the exported model's replies to the prompts that measure.

    Raises:
        UserError: the judge did not answer on some; their verdicts are removed, to be asked again.
    """
    recipe = compared(validate_recipe(training.recipe), training.compared_with)
    prompts = assessment.PromptSet(training.prompts, "test", training.samples)
    _, verdicts = assessment.generate_and_judge(
        training.run.export_dir, prompts, training.measured, recipe
    )
    unanswered = [v for v in verdicts if v.status == "unanswered"]
    if unanswered:
        training.verdicts_file.unlink()
        raise UserError(
            f"the judge did not answer on {len(unanswered)} of {len(verdicts)} replies: "
            f"{unanswered[0].explanation}"
        )


def measure_loss(training: Training) -> None:
    """Write the loss of the exported model on each dialogue that measures.

    A dialogue's verdict is its summed loss over the mean number of supervised tokens, so that the
    mean over dialogues is the loss of a token, and its exponential the perplexity.
    """
    losses_R, tokens_R = dialogue_losses(training.run.export_dir, training.heldout())
    rows = read_examples(training.prompts, "heldout")
    verdicts = [
        Verdict(
            id=f"{number:06}-{row.id}",  # ids of held-out rows may repeat
            kind="loss",
            annotator="loss",
            verdict=float(loss / tokens_R.mean()),
            sample=0,
            extra={"tokens": int(tokens)},
        )
        for number, (row, loss, tokens) in enumerate(zip(rows, losses_R, tokens_R, strict=True))
    ]
    training.measured.mkdir(parents=True, exist_ok=True)
    write_jsonl([verdict.to_json() for verdict in verdicts], training.verdicts_file)
