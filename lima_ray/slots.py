"""A key-value cache of slots under a model's own forward, in which no row feels its neighbours.

A decoding step runs one token of every active request through the model as one batch of rows. For
the same seed to give the same reply in any company, a row's logits may not depend, in any bit, on
how many other rows there are, what they hold, or where in the batch the row stands. On a CPU:

- PyTorch's matrix products choose their kernel by the number of rows, and one row, or a few odd
  ones, is summed in another order than eight or more. A batch is filled up to a multiple of
  `STRIDE` rows, but for a Llama by our own kernels, whose order is one for all.
- Attention is computed for each row by itself, over exactly its own tokens.
- PyTorch's SiLU treats the last few elements of every thread's share by another formula than the
  rest; `lima_ray/steady.py` has another.

This is what was seen on x86, and no library promises it: `lima_ray/rows.py` looks. On a GPU,
`lima_ray/graphs.py` has another cache.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from lima_ray.threads import threads_allowed, threads_if

STRIDE = 8
"""Rows in a batch are a multiple of this, unless the model takes any number."""
SMALLEST_CAPACITY = 128
"""Tokens that every slot has room for at first; the room doubles when one needs more."""
WORTH_THREADS_KEYS = 2**21
"""Elements of all rows' keys from which a layer's attention is shared among threads."""
Row = tuple[int, int, int]
"""A slot, the tokens that it holds already, and the token to read into it."""


class SlotCache:
    """Keys and values of S slots in every layer; each forward names the slots that its rows use."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.layers_2SGCD: dict[int, torch.Tensor] = {}
        self.slots_of: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        """Keys and values (1, G, C, D) of each slot, by layer: views made once, not each step."""

    def aim(self, slots: list[int], starts: list[int]) -> None:
        """Say where the next forward's tokens go; rows beyond these only fill up the batch.

        Args:
            slots: slot of each row.
            starts: tokens that each row's slot holds already.
        """
        self.rows = list(zip(slots, starts, strict=True))
        self.longest = max(starts)
        self.tokens = sum(starts) + len(starts)
        self.slots_B, self.starts_B = torch.tensor(slots), torch.tensor(starts)
        self.order_B = self.starts_B.argsort(descending=True)

    def store(self, layer: int, key_BGTD: torch.Tensor, value_BGTD: torch.Tensor) -> torch.Tensor:
        """Write a layer's new keys and values, and return those of all slots (2, S, G, C, D)."""
        new_2BGTD = torch.stack((key_BGTD, value_BGTD))
        _, heads, tokens, width = key_BGTD.shape
        all_2SGCD = self.with_room(layer, tokens, heads, width, key_BGTD)
        if tokens > 1:
            ((slot, start),) = self.rows
            all_2SGCD[:, slot, :, start : start + tokens] = new_2BGTD[:, 0]
        else:
            new_B2GD = new_2BGTD[:, : len(self.rows), :, 0].transpose(0, 1)
            all_2SGCD[:, self.slots_B, :, self.starts_B] = new_B2GD
        return all_2SGCD

    def with_room(
        self, layer: int, tokens: int, heads: int, width: int, like: torch.Tensor
    ) -> torch.Tensor:
        """A layer's keys and values (2, S, G, C, D), with room for so many new tokens a row."""
        old = self.layers_2SGCD.get(layer)
        capacity = SMALLEST_CAPACITY if old is None else old.shape[3]
        if old is not None and self.longest + tokens <= capacity:
            return old
        while capacity < self.longest + tokens:
            capacity *= 2
        # Memory that no token reaches is never taken.
        grown = like.new_empty(2, self.slots, heads, capacity, width)
        if old is not None:
            grown[:, :, :, : old.shape[3]] = old
        self.layers_2SGCD[layer] = grown
        keys_SGCD, values_SGCD = grown
        self.slots_of[layer] = list(zip(keys_SGCD.split(1), values_SGCD.split(1), strict=True))
        return grown

    def attend(
        self,
        layer: int,
        query_BHTD: torch.Tensor,
        key_BGTD: torch.Tensor,
        value_BGTD: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """Attend to what the rows' slots hold: T tokens of one prompt, or one token of B rows.

        Args:
            layer: number of the layer.
            query_BHTD: queries.
            key_BGTD: keys of G heads, each shared by H / G query heads.
            value_BGTD: values, shaped as the keys.
            scaling: factor of the scores.

        Returns:
            outputs (B, T, H, D), zero for filling rows.
        """
        keys_SGCD, values_SGCD = self.store(layer, key_BGTD, value_BGTD)
        batch, heads, _, width = query_BHTD.shape
        if batch == 1:
            return prompt_attention(query_BHTD, keys_SGCD, values_SGCD, self.rows[0], scaling)
        # The heads that share a key stand where positions would: all of them see the whole row.
        query_BGHD = query_BHTD.reshape(batch, key_BGTD.shape[1], -1, width)
        rows = len(self.rows)
        outputs = attend_rows(self, self.slots_of[layer], query_BGHD, scaling)
        if batch > rows:
            outputs.append(torch.zeros_like(query_BGHD[rows:]))
        return torch.cat(outputs).view(batch, 1, heads, width)


def slot_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    slot_cache: Any = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attention to what the cache's slots hold, as `transformers` calls an attention.

    Args:
        module: the attention layer; its `layer_idx` is used.
        query_BHTD: queries.
        key_BGTD: keys.
        value_BGTD: values.
        attention_mask: not used; the cache knows what each row sees.
        scaling: factor of the scores.
        slot_cache: with an `attend`, such as `SlotCache`, aimed at the rows' slots.

    Returns:
        outputs (B, T, H, D), and no weights.
    """
    assert slot_cache is not None, "the engine passes slot_cache to every forward"
    layer: Any = module
    return slot_cache.attend(layer.layer_idx, query_BHTD, key_BGTD, value_BGTD, scaling), None


def attend_rows(
    cache: SlotCache,
    views: list[tuple[torch.Tensor, torch.Tensor]],
    query_BGHD: torch.Tensor,
    scaling: float | None,
) -> list[torch.Tensor]:
    """Attention (1, G, H, D) of each row by itself, the rows shared among this thread and others.

    Each row's kernel lets go of Python's lock, so threads that take rows run beside each other, and
    unlike the threads within a kernel they wait for each other once, not once for each row.
    """
    queries = query_BGHD.split(1)
    outputs: list[torch.Tensor | None] = [None] * len(cache.rows)

    @torch.inference_mode()
    def attend_some(places: list[int]) -> None:
        for place in places:
            slot, start = cache.rows[place]
            key_1GCD, value_1GCD = views[slot]
            outputs[place] = scaled_dot_product_attention(
                queries[place],
                key_1GCD.narrow(2, 0, start + 1),
                value_1GCD.narrow(2, 0, start + 1),
                scale=scaling,
            )

    worth = cache.tokens * query_BGHD.shape[1] * query_BGHD.shape[3] >= WORTH_THREADS_KEYS
    threads = min(threads_allowed(), len(cache.rows)) if worth else 1
    by_length = cache.order_B.tolist()
    shares = [by_length[number::threads] for number in range(threads)]
    others = [helpers().submit(attend_some, share) for share in shares[1:]]
    with threads_if(worth and threads == 1):
        attend_some(shares[0])
    for other in others:
        other.result()
    return [output for output in outputs if output is not None]


@lru_cache
def helpers() -> ThreadPoolExecutor:
    """Threads that take rows, made when first needed."""
    return ThreadPoolExecutor(initializer=torch.set_num_threads, initargs=(1,))


def prompt_attention(
    query_1HTD: torch.Tensor,
    keys_SGCD: torch.Tensor,
    values_SGCD: torch.Tensor,
    row: tuple[int, int],
    scaling: float | None,
) -> torch.Tensor:
    """Attention of a prompt's next T tokens to all that its slot holds up to each of them."""
    slot, start = row
    tokens = query_1HTD.shape[2]
    mask_TL = None
    if start:
        place_L = torch.arange(start + tokens, device=query_1HTD.device)
        mask_TL = place_L <= place_L[start:, None]
    outputs_1HTD = scaled_dot_product_attention(
        query_1HTD,
        keys_SGCD[slot : slot + 1, :, : start + tokens],
        values_SGCD[slot : slot + 1, :, : start + tokens],
        mask_TL,
        is_causal=not start,
        scale=scaling,
        enable_gqa=query_1HTD.shape[1] != keys_SGCD.shape[1],
    )
    return outputs_1HTD.transpose(1, 2)
