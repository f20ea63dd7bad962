"""A recipe's training data: read, sampled, encoded, and checked before anything trains on it."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lima_ray.config.errors import UserError, join_names
from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Data
from lima_ray.data.encoding import UnrenderableRows, encode
from lima_ray.data.examples import normalise_dialogue, normalise_prompt, read_examples
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import eot_id, load_tokenizer
from lima_ray.records.example import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SAMPLING_STREAM = 1000
"""Separates the random numbers that sample rows from those of their order in an epoch."""
TrainingData = tuple["PreTrainedTokenizerFast", list[Example], Rows]
"""A tokenizer with EOT, the training rows, and the same rows encoded."""


def check_rows(rows: Rows, examples: list[Example], eot_id: int, prompts: list[Example]) -> None:
    """Refuse data that would train something else than the user means; `rows[i]` is `examples[i]`.

    Raises:
        UserError: rows without a supervised token, replies whose EOT is not learned, or training
            prompts that are also dev or test prompts; the rows are named.
    """
    empty = [e.id for e, n in zip(examples, rows.supervised_R, strict=True) if n == 0]
    if empty:
        raise UserError(
            f"{len(empty)} rows have no supervised token: {join_names(empty)}. What stands before "
            "their first reply that is learned fills data.max_tokens; raise it, shorten them, or "
            "drop them with --data.invalid drop"
        )
    no_eot = []
    for number, row in enumerate(examples):
        ids, mask = rows.row(number)
        learned = int(((ids == eot_id) & mask).sum())
        replies = sum(row.learned[1::2]) if row.learned else len(row.turns) // 2
        if not rows.cut_R[number] and learned < replies:
            no_eot.append(row.id)
    if no_eot:
        raise UserError(
            f"in {len(no_eot)} rows the EOT that ends a reply is not learned: "
            f"{join_names(no_eot)}; the model would never stop"
        )
    leaked = [f"{e.id} (= {', '.join(same)})" for e, same in find_leaks(examples, prompts)]
    if leaked:
        raise UserError(
            f"{len(leaked)} training prompts are also in dev or test: {join_names(leaked)}. Remove "
            "them, or drop them with --data.leaks drop"
        )


def find_leaks(examples: list[Example], prompts: list[Example]) -> list[tuple[Example, list[str]]]:
    """Return training rows whose prompt is a dev or test prompt, with the ids of those."""
    held_out: dict[str, list[str]] = {}
    for prompt in prompts:
        held_out.setdefault(normalise_prompt(prompt), []).append(prompt.id)
    found = [(e, held_out.get(normalise_prompt(e))) for e in examples]
    return [(e, same) for e, same in found if same]


def load_examples(data: Data, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Read a recipe's training rows and its dev and test prompts, leaked rows dropped if asked."""
    read = partial(read_examples, invalid=data.invalid, drop_flag="--data.invalid drop")
    rows = read(data.train, "train")
    train = sample_rows(rows, data.rows, seed, "data.rows")
    if data.added and data.added_rows != 0:
        more = read(data.added, "train")
        train += sample_rows(more, data.added_rows, seed, "data.added_rows")
    prompts: list[Example] = []
    for split, reference in (("dev", data.dev), ("test", data.test)):
        if reference:
            prompts += read(reference, split, dialogues=False)
    if data.leaks == "drop":
        leaked = [e for e, _ in find_leaks(train, prompts)]
        if leaked:
            drop = {id(e) for e in leaked}
            train = [e for e in train if id(e) not in drop]
            print(
                f"dropped {len(leaked)} training rows also in dev or test: "
                f"{join_names([e.id for e in leaked])}"
            )
    if data.heldout:
        check_heldout(train, read_examples(data.heldout, "heldout"), data.heldout)
    return train, prompts


def check_heldout(train: list[Example], heldout: list[Example], reference: str) -> None:
    """Refuse held-out dialogues that are trained on, whose perplexity would say nothing."""
    # Never dropped from training, as leaks may be: `data.heldout` may change when a run goes on.
    trained = {normalise_dialogue(row): row.id for row in train}
    same = [
        f"{row.id} (= {found})"
        for row in heldout
        if (found := trained.get(normalise_dialogue(row))) is not None
    ]
    if same:
        raise UserError(
            f"{len(same)} of the {len(heldout)} held-out dialogues ({reference}) are also trained "
            f"on: {join_names(same)}; remove them there, or name others as data.heldout"
        )


def sample_rows(rows: list[Example], count: int | None, seed: int, field: str) -> list[Example]:
    """Sample rows at random, fewer among those of more; without a count take all, in order."""
    if count is None:
        return rows
    if count > len(rows):
        raise UserError(f"{field} is {count}, but there are {len(rows)} rows; lower it")
    order = np.random.default_rng([seed, SAMPLING_STREAM]).permutation(len(rows))
    return [rows[number] for number in order[:count]]


def load(recipe: Recipe) -> TrainingData:
    train, prompts = load_examples(recipe.data, recipe.seed)
    model = recipe.model
    tokenizer = load_tokenizer(model.base, model.eot_token, model.chat_template)
    try:
        rows = encode(train, tokenizer, recipe.data)
    except UnrenderableRows as error:
        if recipe.data.invalid != "drop":
            raise
        dropped = join_names([train[number].id for number in error.rows])
        print(
            f"dropped {len(error.rows)} rows that the base's chat template cannot hold: {dropped}"
        )
        unrenderable = set(error.rows)
        train = [e for number, e in enumerate(train) if number not in unrenderable]
        rows = encode(train, tokenizer, recipe.data)
    if recipe.data.invalid == "drop" and (rows.supervised_R == 0).any():
        kept = rows.supervised_R > 0
        dropped = join_names([e.id for e, keep in zip(train, kept, strict=True) if not keep])
        print(f"dropped {(~kept).sum()} rows without a supervised token: {dropped}")
        train = [e for e, keep in zip(train, kept, strict=True) if keep]
        rows = encode(train, tokenizer, recipe.data)
    check_rows(rows, train, eot_id(tokenizer), prompts)
    return tokenizer, train, rows
