"""Dialogues to token ids and a loss mask, checked before anything trains on them.

    python -m lima_ray.encode [RECIPE] --show 3

prints rows with the supervised tokens marked, the lengths, and how well they pack.

A row is what the chat template renders, so training and serving see the same ids. A row longer than
`max_tokens` is cut by these rules:

1. Its first `max_tokens` tokens are kept; nothing is taken from the middle or the start.
2. A cut inside a reply keeps the reply's beginning and adds no EOT: the model never learns to stop
   where the reply went on.
3. A cut inside or right after a later user turn drops that turn; the row then ends with the reply
   before it.
4. A cut inside the first user turn would leave nothing to learn; such rows are named and refused.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from rich.console import Console
from rich.markup import escape
from safetensors.numpy import load_file, save_file

from lima_ray import example, microbatch
from lima_ray.config import Data, Recipe, Step, parse
from lima_ray.errors import UserError
from lima_ray.example import Example
from lima_ray.tokenizer import eot_id, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SHOWN_ROWS = 10
DRAW = 1000
"""Keeps the random numbers of a draw of rows apart from those of their order in an epoch."""


@dataclass(frozen=True)
class Rows:
    """R encoded rows, their N tokens end to end."""

    ids_N: np.ndarray
    """Token ids, int32."""
    mask_N: np.ndarray
    """True for the tokens whose prediction is learned."""
    starts_R1: np.ndarray
    """Where each row starts in the N tokens, and N itself at the end."""
    cut_R: np.ndarray
    """True for rows that were longer than `max_tokens`."""

    def __len__(self) -> int:
        return len(self.starts_R1) - 1

    @property
    def lengths_R(self) -> np.ndarray:
        """Tokens of each row."""
        return np.diff(self.starts_R1)

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and mask of one row."""
        span = slice(self.starts_R1[number], self.starts_R1[number + 1])
        return self.ids_N[span], self.mask_N[span]

    @cached_property
    def supervised_R(self) -> np.ndarray:
        """Supervised tokens of each row; a row's first token has no prediction and never counts."""
        return np.add.reduceat(self.mask_N.astype(np.int64), self.starts_R1[:-1])

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        save_file(
            {
                "ids": self.ids_N,
                "mask": self.mask_N.astype(np.uint8),
                "starts": self.starts_R1,
                "cut": self.cut_R.astype(np.uint8),
            },
            path,
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        t = load_file(path)
        return cls(t["ids"], t["mask"].astype(bool), t["starts"], t["cut"].astype(bool))


Encoded = tuple["PreTrainedTokenizerFast", list[Example], Rows]
"""A tokenizer with EOT, the training rows, and the same rows encoded."""


def encode(examples: list[Example], tokenizer: "PreTrainedTokenizerFast", data: Data) -> Rows:
    """Encode dialogues; row i is `examples[i]`.

    Raises:
        UserError: no dialogue is left to encode.
    """
    if not examples:
        raise UserError(f"no row of {data.train} is left to train on; the rest was dropped")
    texts = [str(tokenizer.apply_chat_template(e.messages(), tokenize=False)) for e in examples]
    batch = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    eot = eot_id(tokenizer)
    rows = [encode_row(ids, eot, data) for ids in batch]
    lengths = [len(ids) for ids, _ in rows]
    return Rows(
        ids_N=np.concatenate([ids for ids, _ in rows]),
        mask_N=np.concatenate([mask for _, mask in rows]),
        starts_R1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        cut_R=np.array([len(ids) > data.max_tokens for ids in batch]),
    )


def encode_row(ids: list[int], eot_id: int, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Cut one rendered dialogue by the rules above, and mark what is learned.

    Returns:
        ids (int32) and mask (bool) of the tokens kept.
    """
    ids_T = np.array(ids, dtype=np.int32)
    is_eot = ids_T == eot_id
    turn_T = np.cumsum(is_eot) - is_eot
    of_assistant = turn_T % 2 == 1
    kept = min(len(ids_T), data.max_tokens)
    if len(ids_T) > kept and not of_assistant[kept - 1]:
        last_reply = np.flatnonzero(of_assistant[:kept])
        kept = last_reply[-1] + 1 if len(last_reply) else kept
    mask = of_assistant[:kept].copy()
    if data.loss_on == "all" and mask.any():
        mask[:] = True
        mask[0] = False
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
            f"{len(empty)} rows have no supervised token: {names(empty)}. Their first turn alone "
            "fills data.max_tokens; raise it, shorten them, or drop them with --data.invalid drop"
        )
    no_eot = []
    for number, row in enumerate(examples):
        ids, mask = rows.row(number)
        learned = int(((ids == eot_id) & mask).sum())
        if not rows.cut_R[number] and learned < len(row.turns) // 2:
            no_eot.append(row.id)
    if no_eot:
        raise UserError(
            f"in {len(no_eot)} rows the EOT that ends a reply is not learned: {names(no_eot)}; the "
            "model would never stop"
        )
    leaked = [f"{e.id} (= {', '.join(same)})" for e, same in leaks(examples, prompts)]
    if leaked:
        raise UserError(
            f"{len(leaked)} training prompts are also in dev or test: {names(leaked)}. Remove "
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
    """
    rows = example.read(data.train, "train", invalid=data.invalid)
    train = drawn(rows, data.rows, seed, "data.rows")
    if data.added and data.added_rows != 0:
        more = example.read(data.added, "train", invalid=data.invalid)
        train += drawn(more, data.added_rows, seed, "data.added_rows")
    prompts: list[Example] = []
    for split, reference in (("dev", data.dev), ("test", data.test)):
        if reference:
            prompts += example.read(reference, split, dialogues=False, invalid=data.invalid)
    if data.leaks == "drop":
        leaked = [e for e, _ in leaks(train, prompts)]
        if leaked:
            drop = {id(e) for e in leaked}
            train = [e for e in train if id(e) not in drop]
            print(
                f"dropped {len(leaked)} training rows also in dev or test: "
                f"{names([e.id for e in leaked])}"
            )
    return train, prompts


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
    tokenizer = load_tokenizer(recipe.model.base, recipe.model.eot_token)
    rows = encode(train, tokenizer, recipe.data)
    if recipe.data.invalid == "drop" and (rows.supervised_R == 0).any():
        kept = rows.supervised_R > 0
        dropped = names([e.id for e, keep in zip(train, kept, strict=True) if not keep])
        print(f"dropped {(~kept).sum()} rows without a supervised token: {dropped}")
        train = [e for e, keep in zip(train, kept, strict=True) if keep]
        rows = encode(train, tokenizer, recipe.data)
    preflight(rows, train, eot_id(tokenizer), prompts)
    return tokenizer, train, rows


def names(ids: list[str]) -> str:
    """The first few ids, and how many more."""
    more = f" and {len(ids) - SHOWN_ROWS} more" if len(ids) > SHOWN_ROWS else ""
    return ", ".join(ids[:SHOWN_ROWS]) + more


def show(
    recipe: Recipe,
    tokenizer: "PreTrainedTokenizerFast",
    examples: list[Example],
    rows: Rows,
    count: int,
) -> None:
    """Print rows with their supervised tokens marked, the lengths, and how they pack."""
    console = Console(highlight=False, emoji=False)
    for number in np.linspace(0, len(rows) - 1, min(count, len(rows)), dtype=int):
        ids, mask = rows.row(number)
        cut = ", cut" if rows.cut_R[number] else ""
        console.rule(
            f"{escape(examples[number].id)}: {len(ids)} tokens, {mask.sum()} supervised{cut}"
        )
        console.print(marked(ids, mask, tokenizer))
    if count:
        console.rule()
        console.print("[green]⟦supervised⟧[/green] [dim]not supervised[/dim]")
    histogram(console, rows.lengths_R)
    packing(console, recipe, rows)


def marked(ids: np.ndarray, mask: np.ndarray, tokenizer: "PreTrainedTokenizerFast") -> str:
    """One row as text, supervised stretches in brackets and green."""
    edges = np.flatnonzero(np.diff(mask.astype(int))) + 1
    text = ""
    for part, learned in zip(np.split(ids, edges), np.split(mask, edges), strict=True):
        words = escape(str(tokenizer.decode(part.tolist())))
        text += f"[green]⟦{words}⟧[/green]" if learned[0] else f"[dim]{words}[/dim]"
    return text


def histogram(console: Console, lengths_R: np.ndarray, bars: int = 10, width: int = 40) -> None:
    """Print how long the rows are."""
    counts, edges = np.histogram(lengths_R, bins=bars, range=(0, int(lengths_R.max())))
    console.print("\ntokens a row")
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "█" * round(width * count / counts.max())
        console.print(f"{int(low):6}-{int(high):<6} {count:6} [cyan]{bar}[/cyan]")


def packing(console: Console, recipe: Recipe, rows: Rows) -> None:
    """Print how the plan fills its micro-batches, and what padding would have cost."""
    lengths = rows.lengths_R
    plan = microbatch.plan_epoch(
        lengths,
        seed=recipe.seed,
        epoch=0,
        workers=recipe.cluster.workers,
        batch_examples=recipe.optim.batch_examples,
        tokens_per_micro_batch=recipe.train.tokens_per_micro_batch,
    )
    sums = [
        [int(lengths[list(rank[m])].sum()) for rank in step.ranks]
        for step in plan
        for m in range(len(step.ranks[0]))
    ]
    lockstep, busy = np.array([max(s) for s in sums]), np.array(sums).sum()
    padded = sum(len(step.rows) * int(lengths[step.rows].max()) for step in plan)
    supervised = int(rows.mask_N.sum())
    console.print(
        f"\n{len(rows):,} rows, {lengths.sum():,} tokens, {supervised:,} supervised "
        f"({supervised / lengths.sum():.0%}), {int(rows.cut_R.sum())} cut at "
        f"{recipe.data.max_tokens:,}\n"
        f"{len(plan)} steps an epoch of {recipe.optim.batch_examples} examples on "
        f"{recipe.cluster.workers} workers, {len(sums) / len(plan):.1f} micro-batches a step, "
        f"{np.array(sums).mean():,.0f} of {recipe.train.tokens_per_micro_batch:,} tokens each\n"
        f"workers busy {busy / (lockstep.sum() * recipe.cluster.workers):.1%} of the time; "
        f"no padding (padding each step to its longest row would compute "
        f"{padded / busy:.1f} times the tokens)"
    )


class EncodeStep(Step):
    """Options of this step."""

    show: int = 3
    """Rows to print with their supervised tokens marked."""


def main(argv: list[str] | None = None) -> None:
    """`python -m lima_ray.encode [RECIPE]`."""
    step = parse(EncodeStep, "python -m lima_ray.encode", __doc__, argv)
    show(step.recipe, *prepare(step.recipe), step.show)


if __name__ == "__main__":
    from lima_ray.command_line import run

    run("encode")
