"""What choosing an epoch will need, checked before the first step by the code that will need it.

check_selection(recipe)                # what can be seen at once
check_dev_prompts(recipe, tokenizer)   # what needs the base's tokenizer
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lima_ray.config.errors import UserError, join_names
from lima_ray.config.recipe import Recipe
from lima_ray.data import encoding, training_data
from lima_ray.data.examples import read_examples, read_prompts
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import prompt_ids
from lima_ray.generation.scripts import Script, check_prompt_lengths
from lima_ray.judging.asking.reference import check_compared, check_reference
from lima_ray.judging.registry import check_prompts
from lima_ray.model.families import context_length, load_config
from lima_ray.records.example import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def check_selection(recipe: Recipe) -> None:
    """Refuse a selection that no run could make, by what can be seen at once.

    Raises:
        UserError: no dev prompts, prompts that cannot be asked or that the judge cannot judge, no
            endpoint, a reference that lacks replies, or a range that holds no kept epoch.
    """
    select = recipe.select
    check_compared(select)
    if select.judge == "none":
        return
    if not recipe.data.dev:
        raise UserError(
            f"select.judge is {select.judge}, but data.dev names no prompts to judge replies to"
        )
    if select.judge == "endpoint" and not (select.endpoint and select.endpoint_model):
        raise UserError(
            "select.judge endpoint needs --select.endpoint http://HOST:PORT/v1 and "
            "--select.endpoint_model NAME"
        )
    check_range(recipe)
    prompts = read_prompts(recipe.data.dev, "dev")
    check_prompts(prompts, "data.dev", select)
    check_reference(select, prompts, select.samples, "data.dev")
    if recipe.data.heldout:
        read_examples(recipe.data.heldout, "heldout")


def check_range(recipe: Recipe) -> None:
    """Refuse a range of epochs that the run keeps none of."""
    select, epochs = recipe.select, recipe.optim.epochs
    kept = min(recipe.checkpoint.weights_from_epoch, epochs)
    first, last = max(select.first_epoch, kept), min(select.last_epoch, epochs)
    if first <= last:
        return
    if select.first_epoch > select.last_epoch:
        way_out = f"--select.first_epoch {select.last_epoch}"
    elif select.first_epoch > epochs:
        way_out = f"--select.first_epoch {kept}"
    else:
        way_out = f"--checkpoint.weights_from_epoch {select.first_epoch}"
    raise UserError(
        f"select.first_epoch {select.first_epoch} to select.last_epoch {select.last_epoch} "
        f"holds no epoch to choose: of {epochs} epochs (optim.epochs) the run keeps the weights "
        f"of {kept} to {epochs} (checkpoint.weights_from_epoch). Use {way_out}"
    )


def check_dev_prompts(
    recipe: Recipe, tokenizer: "PreTrainedTokenizerFast", model: Path | None = None
) -> None:
    """Refuse a selection that no run could make, by the base's tokenizer; no judge is asked.

    Args:
        model: one that it has trained; none takes its base.

    Raises:
        UserError: prompts without room for a reply, or held-out dialogues without a supervised
            token.
    """
    if recipe.select.judge == "none":
        return
    assert recipe.data.dev
    context = context_length(load_config(str(model or recipe.model.base)))
    check_named_prompts(
        read_prompts(recipe.data.dev, "dev"), "data.dev", tokenizer, context, recipe
    )
    if recipe.data.heldout:
        encode_heldout(recipe, tokenizer)


def check_named_prompts(
    prompts: list[Example],
    field: str,
    tokenizer: "PreTrainedTokenizerFast",
    context: int,
    recipe: Recipe,
) -> None:
    """Refuse prompts that leave no room for a reply."""
    scripts = [Script(row, 0) for row in prompts]
    try:
        check_prompt_lengths(scripts, partial(prompt_ids, tokenizer), context, recipe.sampling)
    except UserError as error:
        raise UserError(f"{field}: {error}") from error


def encode_heldout(recipe: Recipe, tokenizer: "PreTrainedTokenizerFast") -> Rows:
    """Return the held-out dialogues, encoded; refuse them where none has a supervised token."""
    assert recipe.data.heldout
    rows = encoding.encode(read_examples(recipe.data.heldout, "heldout"), tokenizer, recipe.data)
    if not rows.supervised_R.any():
        raise UserError(
            f"data.heldout: no row of {recipe.data.heldout} has a supervised token; their first "
            f"turns fill data.max_tokens {recipe.data.max_tokens}"
        )
    return rows


def check_leaks(recipe: Recipe, prompts: list[Example]) -> None:
    """Refuse dev prompts that a run was trained on."""
    rows, _ = training_data.load_examples(recipe.data, recipe.seed)
    if leaked := training_data.find_leaks(rows, prompts):
        raise UserError(
            f"{len(leaked)} of these dev prompts are among the rows that the run was trained on: "
            f"{join_names([row.id for row, _ in leaked])}; remove them"
        )
