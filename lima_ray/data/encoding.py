"""Dialogues to token ids and a loss mask, by the rules that stand in lima_ray/encode.py."""

from typing import TYPE_CHECKING

import numpy as np

from lima_ray.config.errors import SHOWN_ERRORS, UserError
from lima_ray.config.sections import Data
from lima_ray.data.chat_template import encode_dialogues
from lima_ray.data.rows import Rows
from lima_ray.records.example import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class UnrenderableRows(UserError):
    """Rows that the base's chat template cannot hold."""

    def __init__(self, message: str, rows: list[int]) -> None:
        super().__init__(message)
        self.rows = rows
        """Their numbers."""


def encode(examples: list[Example], tokenizer: "PreTrainedTokenizerFast", data: Data) -> Rows:
    """Encode dialogues; row i is `examples[i]`.

    Raises:
        UserError: no dialogue is left to encode.
        UnrenderableRows: the chat template cannot render some.
    """
    if not examples:
        raise UserError(f"no row of {data.train} is left to train on; the rest was dropped")
    batch = encode_dialogues(tokenizer, [e.messages() for e in examples])
    problems = {number: b for number, b in enumerate(batch) if isinstance(b, str)}
    if problems:
        named = [f"{examples[number].id}: {said}" for number, said in problems.items()]
        shown = "\n  ".join(named[:SHOWN_ERRORS])
        raise UnrenderableRows(
            f"the base's chat template cannot hold {len(problems)} of {len(examples)} rows; mend "
            "or remove them (--data.invalid drop), or take LIMA's form (--model.chat_template "
            f"paper):\n  {shown}",
            list(problems),
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
    """Cut one rendered dialogue by the rules, and mark what is learned.

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
