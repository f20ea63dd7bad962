"""Replies to attribute: chosen by their ids, and encoded as rows that learn the reply alone."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lima_ray.config.errors import UserError, join_names
from lima_ray.config.sections import Data
from lima_ray.data.encoding import UnrenderableRows, encode
from lima_ray.data.rows import Rows
from lima_ray.model.families import context_length, load_config
from lima_ray.records.example import Example
from lima_ray.records.reply import Reply

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def choose_replies(replies: list[Reply], ids: tuple[str, ...]) -> list[Reply]:
    """Return the replies to some prompts, or all; refuse ids that are not there."""
    there = {reply.id for reply in replies}
    missing = [id for id in ids if id not in there]
    if missing:
        raise UserError(
            f"no reply has the id {join_names(missing)}; there are {join_names(sorted(there), 5)}"
        )
    return [reply for reply in replies if not ids or reply.id in ids]


def encode_replies(
    replies: list[Reply], tokenizer: "PreTrainedTokenizerFast", weights: Path
) -> tuple[list[Reply], Rows]:
    """Return the replies that have a token to learn, and those encoded; tell which are left out.

    A reply that did not stop has no EOT. Of a dialogue longer than the model's context the first
    tokens count.

    Raises:
        UserError: no reply is left.
    """
    replies = leave_out(replies, [not r.reply.strip() for r in replies], "hold no text")
    data = Data(max_tokens=context_length(load_config(str(weights))), loss_on="replies")
    try:
        rows = encode([as_row(reply) for reply in replies], tokenizer, data)
    except UnrenderableRows as error:
        bad = set(error.rows)
        out = [number in bad for number in range(len(replies))]
        replies = leave_out(replies, out, "do not fit the chat template")
        rows = encode([as_row(reply) for reply in replies], tokenizer, data)
    rows = without_missing_eot(rows, replies)
    empty = (rows.supervised_R == 0).tolist()
    if any(empty):
        replies = leave_out(replies, empty, "have no token within the model's context")
        rows = encode([as_row(reply) for reply in replies], tokenizer, data)
        rows = without_missing_eot(rows, replies)
    return replies, rows


def as_row(reply: Reply) -> Example:
    """Return a reply and what it replies to as a row that learns the reply alone."""
    turns = (*reply.conversations, reply.reply)
    learned = (False,) * len(reply.conversations) + (True,)
    return Example(turns, reply.id, reply.source, reply.system, learned)


def without_missing_eot(rows: Rows, replies: list[Reply]) -> Rows:
    """Return the rows, in which replies that did not stop learn no EOT."""
    mask_N = rows.mask_N.copy()
    for number, reply in enumerate(replies):
        if not reply.stopped and not rows.cut_R[number]:
            mask_N[rows.starts_R1[number + 1] - 1] = False
    return replace(rows, mask_N=mask_N)


def leave_out(replies: list[Reply], out: list[bool], why: str) -> list[Reply]:
    """Return the other replies, and tell which are left out; refuse where none remains."""
    ids = [reply.id for reply, left in zip(replies, out, strict=True) if left]
    if len(ids) == len(replies):
        raise UserError(f"all {len(ids)} replies {why}: {join_names(ids)}")
    if ids:
        print(f"{len(ids)} replies {why} and are left out: {join_names(ids)}")
    return [reply for reply, left in zip(replies, out, strict=True) if not left]
