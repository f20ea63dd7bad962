"""What judging a run's epochs will take: calls, tokens and money, told before the first call.

    forecast = forecast_selection(run, recipe, epochs)
    if forecast:
        print(forecast.describe())

Replies that are there are counted as they are; others as long as these are in the mean, or as 250
tokens. What the judge has answered about them is not asked again.
"""

from collections.abc import Sequence
from pathlib import Path

from lima_ray.config.recipe import Recipe
from lima_ray.data.examples import read_prompts
from lima_ray.judging.asking.budget import OUTPUT_TOKENS, Estimate, estimate
from lima_ray.judging.asking.judges import selecting_judge
from lima_ray.judging.asking.reference import expected_replies
from lima_ray.judging.asking.run import ASKED_AGAIN
from lima_ray.judging.asking.verdict_journal import VerdictJournal
from lima_ray.judging.assessment import JOURNAL, dev_prompts, is_outdated
from lima_ray.judging.endpoint import questions
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.replies import REPLIES_FILE
from lima_ray.records.example import Example
from lima_ray.records.journal import Journal
from lima_ray.records.reply import Reply
from lima_ray.records.run import Run
from lima_ray.records.verdict import Verdict

CHARACTERS_A_TOKEN = 4
FILLER = "a"


def forecast_selection(run: Run, recipe: Recipe, epochs: Sequence[int]) -> Estimate | None:
    """Return what judging these epochs takes; none where no model behind an endpoint judges.

    Args:
        run: may not be there yet.
        epochs: that will be judged.
    """
    if recipe.select.judge != "endpoint":
        return None
    judge = selecting_judge(recipe.select)
    folders = [run.dev_dir(epoch) for epoch in epochs]
    known = {
        folder: read_known(folder)
        for epoch, folder in zip(epochs, folders, strict=True)
        if run.epoch_dir(epoch).exists() and not is_outdated(run, epoch, recipe)
    }
    assumed = assume_replies(recipe, [one for found in known.values() for one in found])
    items: list[Item] = []
    earlier: list[Verdict] = []
    for folder in folders:
        journal = VerdictJournal(folder / JOURNAL)
        journal.load()
        earlier += journal.verdicts
        replies = known.get(folder, [])
        asked = questions(replies if len(replies) == len(assumed) else assumed, recipe.select)
        items += journal.open_questions(asked, judge.annotator, ASKED_AGAIN)
    return estimate(judge, items, earlier)


def tell_training(recipe: Recipe) -> None:
    """Print what judging all epochs that a training keeps will take."""
    kept = min(recipe.checkpoint.weights_from_epoch, recipe.optim.epochs)
    epochs = range(kept, recipe.optim.epochs + 1)
    if forecast := forecast_selection(Run(recipe.run_dir), recipe, epochs):
        print(f"to choose the epoch, {forecast.describe()}", flush=True)


def read_known(folder: Path) -> list[Reply]:
    """Return the replies of an epoch that are there; a line that a kill cut off is none."""
    file = folder / REPLIES_FILE
    return [Reply.from_json(row, str(file)) for row in Journal(file).records("skip")]


def assume_replies(recipe: Recipe, known: Sequence[Reply]) -> list[Reply]:
    """Return replies to all dev prompts, as long as those that are known."""
    prompts = dev_prompts(recipe)
    rows = read_prompts(prompts.reference, prompts.split)
    return assumed_replies(rows, prompts.samples, known)


def assumed_replies(
    prompts: Sequence[Example], samples: int, known: Sequence[Reply] = ()
) -> list[Reply]:
    length = CHARACTERS_A_TOKEN * OUTPUT_TOKENS
    if known:
        length = sum(len(one.reply) for one in known) // len(known)
    return list(expected_replies(prompts, samples, FILLER * length))
