"""What encoded rows look like: some of them with what is learned marked, lengths, and packing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe, did_you_mean
from lima_ray.config.terminal import printable
from lima_ray.data import packing
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import describe_template
from lima_ray.records.example import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def show_rows(
    recipe: Recipe,
    tokenizer: "PreTrainedTokenizerFast",
    examples: list[Example],
    rows: Rows,
    what: str,
) -> None:
    """Print rows, supervised tokens marked, lengths and packing; `what` is `encode --show`'s."""
    console = Console(highlight=False, emoji=False)
    shown = choose_rows(what, examples, rows)
    for number in shown:
        ids, mask = rows.row(number)
        name = escape(printable(examples[number].id))
        cut = ", cut" if rows.cut_R[number] else ""
        console.rule(f"{name}: {len(ids)} tokens, {mask.sum()} supervised{cut}")
        console.print(highlight_supervised(ids, mask, tokenizer))
    if len(shown):
        console.rule()
        console.print("[green]⟦supervised⟧[/green] [dim]not supervised[/dim]")
    console.print(escape(describe_template(tokenizer)), soft_wrap=True)
    print_histogram(console, rows.lengths_R)
    print_packing(console, recipe, rows)


def choose_rows(what: str, examples: list[Example], rows: Rows) -> Sequence[int]:
    kind, _, count = what.partition(":")
    if what.isdigit():
        return np.linspace(0, len(rows) - 1, min(int(what), len(rows)), dtype=int).tolist()
    if kind in ("longest", "cut") and (not count or count.isdigit()):
        longest = np.argsort(-rows.lengths_R, kind="stable").tolist()
        if kind == "cut":
            longest = [number for number in longest if rows.cut_R[number]]
        return longest[: int(count or 3)]
    found = [
        n for n, row in enumerate(examples) if what == row.id or matches_place(row.place, what)
    ]
    if not found:
        raise UserError(
            f"--show {what}: none of the {len(examples)} rows that are trained on has this id or "
            f"stands there{did_you_mean(what, [row.id for row in examples])}"
        )
    return found


def matches_place(place: str, what: str) -> bool:
    """Return whether a row's place is the one meant: `rows.jsonl:17`, or `:17` alone."""
    before = place.removesuffix(what)
    return before != place and (what[0] in ":[" or before[-1:] in ("", "/"))


def highlight_supervised(
    ids: np.ndarray, mask: np.ndarray, tokenizer: "PreTrainedTokenizerFast"
) -> str:
    """Return one row as text, supervised spans in brackets and green."""
    edges = np.flatnonzero(np.diff(mask.astype(int))) + 1
    text = ""
    for part, learned in zip(np.split(ids, edges), np.split(mask, edges), strict=True):
        words = escape(printable(str(tokenizer.decode(part.tolist()))))
        text += f"[green]⟦{words}⟧[/green]" if learned[0] else f"[dim]{words}[/dim]"
    return text


def print_histogram(
    console: Console, lengths_R: np.ndarray, bars: int = 10, width: int = 40
) -> None:
    counts, edges = np.histogram(lengths_R, bins=bars, range=(0, int(lengths_R.max())))
    console.print("\ntokens a row")
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "█" * round(width * count / counts.max())
        console.print(f"{int(low):6}-{int(high):<6} {count:6} [cyan]{bar}[/cyan]")


def print_packing(console: Console, recipe: Recipe, rows: Rows) -> None:
    """Print how the plan fills its micro-batches, and what padding would have cost."""
    lengths = rows.lengths_R
    plan = packing.plan_epoch(
        lengths,
        seed=recipe.seed,
        epoch=0,
        workers=recipe.cluster.workers,
        batch_examples=recipe.optim.batch_examples,
        tokens_per_micro_batch=recipe.token_budget,
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
        f"{np.array(sums).mean():,.0f} of {recipe.token_budget:,} tokens each\n"
        f"workers busy {busy / (lockstep.sum() * recipe.cluster.workers):.1%} of the time; "
        f"no padding (padding each step to its longest row would compute "
        f"{padded / busy:.1f} times the tokens)"
    )
