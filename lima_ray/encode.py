"""Dialogues to token ids and a loss mask, checked before anything trains on them.

    python -m lima_ray.encode [RECIPE] --show 3

prints rows with the supervised tokens marked, the lengths, and how well they pack; longest, cut, an
id or rows.jsonl:17 instead of a number picks others.

A row is what the chat template renders, so training and serving see the same ids; each token
belongs to a turn (lima_ray/template.py), and a reply's are learned. A row longer than `max_tokens`
is cut by these rules:

1. Its first `max_tokens` tokens are kept; nothing is taken from the middle or the start.
2. A cut inside a reply keeps the reply's beginning and adds no EOT: the model never learns to stop
   where the reply went on.
3. A cut inside or right after a later user turn drops that turn; the row then ends with the reply
   before it.
4. A cut inside the first user turn would leave nothing to learn; such rows are named and refused.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lima_ray import example
from lima_ray.config import Data, Recipe, Step, parse
from lima_ray.encoded import Rows
from lima_ray.errors import UserError, listed
from lima_ray.example import SHOWN_ERRORS, Example
from lima_ray.inspection import show
from lima_ray.template import encode_dialogues
from lima_ray.tokenizer import eot_id, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DRAW = 1000
"""Keeps the random numbers of a draw of rows apart from those of their order in an epoch."""


Encoded = tuple["PreTrainedTokenizerFast", list[Example], Rows]
"""A tokenizer with EOT, the training rows, and the same rows encoded."""


def encode(examples: list[Example], tokenizer: "PreTrainedTokenizerFast", data: Data) -> Rows:
    """Encode dialogues; row i is `examples[i]`.

    Raises:
        UserError: no dialogue is left to encode, or the chat template cannot render some.
    """
    if not examples:
        raise UserError(f"no row of {data.train} is left to train on; the rest was dropped")
    batch = encode_dialogues(tokenizer, [e.messages() for e in examples])
    problems = [f"{e.id}: {b}" for e, b in zip(examples, batch, strict=True) if isinstance(b, str)]
    if problems:
        shown = "\n  ".join(problems[:SHOWN_ERRORS])
        raise UserError(
            f"the base's chat template cannot hold {len(problems)} of {len(examples)} rows; mend "
            f"or remove them, or take LIMA's form (--model.chat_template paper):\n  {shown}"
        )
    batch = [b for b in batch if not isinstance(b, str)]
    rows = [encode_row(*b, data, e.learned) for b, e in zip(batch, examples, strict=True)]
    lengths = [len(ids) for ids, _ in rows]
    return Rows(
        ids_N=np.concatenate([ids for ids, _ in rows]),
        mask_N=np.concatenate([mask for _, mask in rows]),
        starts_R1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        cut_R=np.array([len(ids) > data.max_tokens for ids, _ in batch]),
    )


def encode_row(
    ids: list[int], turns: list[int], data: Data, learned: tuple[bool, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Cut one rendered dialogue by the rules above, and mark what is learned.

    Args:
        ids: of the whole dialogue.
        turns: the turn of each.
        data: its `max_tokens` and `loss_on`.
        learned: for each turn whether it may be learned; empty where all may.

    Returns:
        ids (int32) and mask (bool) of the tokens kept.
    """
    ids_T, turn_T = np.array(ids, dtype=np.int32), np.array(turns)
    of_assistant = turn_T % 2 == 1
    kept = min(len(ids_T), data.max_tokens)
    if len(ids_T) > kept and not of_assistant[kept - 1]:
        last_reply = np.flatnonzero(of_assistant[:kept])
        kept = last_reply[-1] + 1 if len(last_reply) else kept
    mask = of_assistant[:kept].copy()
    if data.loss_on == "all" and mask.any():
        mask[:] = True
        mask[0] = False
    if learned:
        mask &= np.array(learned)[turn_T[:kept]]
    return ids_T[:kept], mask


def preflight(rows: Rows, examples: list[Example], eot_id: int, prompts: list[Example]) -> None:
    """Refuse data that would train something else than the user means.

    Args:
        rows: the encoded training rows, `rows[i]` of `examples[i]`.
        examples: the training dialogues.
        eot_id: id of the EOT token.
        prompts: dev and test prompts.

    Raises:
        UserError: rows without a supervised token, replies whose EOT is not learned, or training
            prompts that are also dev or test prompts; the rows are named.
    """
    empty = [e.id for e, n in zip(examples, rows.supervised_R, strict=True) if n == 0]
    if empty:
        raise UserError(
            f"{len(empty)} rows have no supervised token: {listed(empty)}. What stands before "
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
            f"in {len(no_eot)} rows the EOT that ends a reply is not learned: {listed(no_eot)}; "
            "the model would never stop"
        )
    leaked = [f"{e.id} (= {', '.join(same)})" for e, same in leaks(examples, prompts)]
    if leaked:
        raise UserError(
            f"{len(leaked)} training prompts are also in dev or test: {listed(leaked)}. Remove "
            "them, or drop them with --data.leaks drop"
        )


def leaks(examples: list[Example], prompts: list[Example]) -> list[tuple[Example, list[str]]]:
    """Training rows whose prompt is a dev or test prompt, with the ids of those."""
    held_out: dict[str, list[str]] = {}
    for prompt in prompts:
        held_out.setdefault(example.normal_prompt(prompt), []).append(prompt.id)
    found = [(e, held_out.get(example.normal_prompt(e))) for e in examples]
    return [(e, same) for e, same in found if same]


def load_examples(data: Data, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """Read a recipe's training rows and its dev and test prompts, leaked rows dropped if asked to.

    Args:
        data: which rows, and how many of them.
        seed: of the draw where not all are taken.

    Returns:
        training examples, dev and test prompts.

    Raises:
        UserError: rows that are not usable, or a held-out dialogue that is trained on.
    """
    read = partial(example.read, invalid=data.invalid, drop_flag="--data.invalid drop")
    rows = read(data.train, "train")
    train = drawn(rows, data.rows, seed, "data.rows")
    if data.added and data.added_rows != 0:
        more = read(data.added, "train")
        train += drawn(more, data.added_rows, seed, "data.added_rows")
    prompts: list[Example] = []
    for split, reference in (("dev", data.dev), ("test", data.test)):
        if reference:
            prompts += read(reference, split, dialogues=False)
    if data.leaks == "drop":
        leaked = [e for e, _ in leaks(train, prompts)]
        if leaked:
            drop = {id(e) for e in leaked}
            train = [e for e in train if id(e) not in drop]
            print(
                f"dropped {len(leaked)} training rows also in dev or test: "
                f"{listed([e.id for e in leaked])}"
            )
    if data.heldout:
        check_heldout(train, example.read(data.heldout, "heldout"), data.heldout)
    return train, prompts


def check_heldout(train: list[Example], heldout: list[Example], reference: str) -> None:
    """Refuse held-out dialogues that are trained on, whose perplexity would say nothing.

    Never dropped from training, as leaks may be: `data.heldout` may change when a run goes on.
    """
    trained = {example.normal_dialogue(row): row.id for row in train}
    same = [
        f"{row.id} (= {found})"
        for row in heldout
        if (found := trained.get(example.normal_dialogue(row))) is not None
    ]
    if same:
        raise UserError(
            f"{len(same)} of the {len(heldout)} held-out dialogues ({reference}) are also trained "
            f"on: {listed(same)}; remove them there, or name others as data.heldout"
        )


def drawn(rows: list[Example], count: int | None, seed: int, field: str) -> list[Example]:
    """So many rows at random; those of a smaller count are among those of a larger one.

    Args:
        rows: to draw from.
        count: how many; none takes all, in order.
        seed: of the draw.
        field: the recipe's, for the error.

    Raises:
        UserError: there are not so many.
    """
    if count is None:
        return rows
    if count > len(rows):
        raise UserError(f"{field} is {count}, but there are {len(rows)} rows; lower it")
    order = np.random.default_rng([seed, DRAW]).permutation(len(rows))
    return [rows[number] for number in order[:count]]


def prepare(recipe: Recipe) -> Encoded:
    """Read, encode and check a recipe's data."""
    train, prompts = load_examples(recipe.data, recipe.seed)
    model = recipe.model
    tokenizer = load_tokenizer(model.base, model.eot_token, model.chat_template)
    rows = encode(train, tokenizer, recipe.data)
    if recipe.data.invalid == "drop" and (rows.supervised_R == 0).any():
        kept = rows.supervised_R > 0
        dropped = listed([e.id for e, keep in zip(train, kept, strict=True) if not keep])
        print(f"dropped {(~kept).sum()} rows without a supervised token: {dropped}")
        train = [e for e, keep in zip(train, kept, strict=True) if keep]
        rows = encode(train, tokenizer, recipe.data)
    preflight(rows, train, eot_id(tokenizer), prompts)
    return tokenizer, train, rows


class EncodeStep(Step):
    """Options of this step."""

    show: str = "3"
    """Rows to print with their supervised tokens marked: so many from all over, longest, cut (with
    :N so many), an id, or a place such as rows.jsonl:17."""


def main(argv: list[str] | None = None) -> None:
    """`python -m lima_ray.encode [RECIPE]`."""
    step = parse(EncodeStep, "python -m lima_ray.encode", __doc__, argv)
    show(step.recipe, *prepare(step.recipe), step.show)


if __name__ == "__main__":
    from lima_ray.command_line import run

    run("encode")
