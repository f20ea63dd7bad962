"""A key-value cache of slots under a model's own forward, in which no row feels its neighbours.

A decoding step runs one token of every active request through the model as one batch of rows. For
the same seed to give the same reply in any company, a row's logits may not depend, in any bit, on
how many other rows there are, what they hold, or where in the batch the row stands. On a CPU:

- PyTorch's matrix products choose their kernel by the number of rows, and one row, or a few odd
  ones, is summed in another order than eight or more. A batch is filled up to a multiple of
  `STRIDE` rows, but for a Llama by our own kernels, whose order is one for all.
- Attention is computed for each row by itself, over exactly its own tokens.
- PyTorch's SiLU treats the last few elements of every thread's share by another formula than the
  rest; `batch_invariant.py` has another.

This is what was seen on x86, and no library promises it: `forward.py` looks. On a GPU,
`lima_ray/engine/cuda_graphs.py` has another cache.
"""

import mmap
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from lima_ray.engine.cpu.threads import threads_allowed, threads_if

STRIDE = 8
"""Rows in a batch are a multiple of this, unless the model takes any number."""
SMALLEST_CAPACITY = 128
"""Tokens that a slot has room for at first; its room doubles when it needs more."""
WORTH_THREADS_KEYS = 2**21
"""Elements of all rows' keys from which a layer's attention is shared among threads."""
Row = tuple[int, int, int]
"""A slot, the tokens that it holds already, and the token to read into it."""


class LayerCache:
    """Keys and values of S slots in one layer, in memory of each slot's own."""

    def __init__(self, capacities: list[int], heads: int, width: int, dtype: torch.dtype) -> None:
        self.heads, self.width, self.dtype = heads, width, dtype
        self.slots_2GCD = [self.empty(capacity) for capacity in capacities]
        self.views = [self.split(slot_2GCD) for slot_2GCD in self.slots_2GCD]
        """Keys and values (1, G, C, D) of each slot: views made once, not each step."""
        self.addresses_S = torch.tensor([slot.data_ptr() for slot in self.slots_2GCD])
        self.capacities_S = torch.tensor(capacities)

    def empty(self, capacity: int) -> torch.Tensor:
        """Room (2, G, C, D) for a slot's tokens.

        It is mapped by itself: memory that no token reaches is never taken, and all of it goes
        back to the system with the tensor, which an allocator's own pool would keep.
        """
        count = 2 * self.heads * capacity * self.width
        memory = mmap.mmap(-1, count * self.dtype.itemsize)
        return torch.frombuffer(memory, dtype=self.dtype, count=count).view(
            2, self.heads, capacity, self.width
        )

    def split(self, slot_2GCD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A slot's keys and values."""
        keys_1GCD, values_1GCD = slot_2GCD.split(1)
        return keys_1GCD, values_1GCD

    def put(self, slot: int, slot_2GCD: torch.Tensor) -> None:
        """Give a slot other memory."""
        self.slots_2GCD[slot], self.views[slot] = slot_2GCD, self.split(slot_2GCD)
        self.addresses_S[slot], self.capacities_S[slot] = slot_2GCD.data_ptr(), slot_2GCD.shape[2]


class SlotCache:
    """Keys and values of S slots in every layer; each forward names the slots that its rows use."""

    def __init__(self, slots: int) -> None:
        self.capacities = [SMALLEST_CAPACITY] * slots
        """Tokens that each slot has room for."""
        self.layers: dict[int, LayerCache] = {}

    def reserve(self, slot: int, tokens: int, held: int = 0) -> None:
        """Make room for so many tokens in a slot, and keep those that it holds.

        Raises:
            OSError: no memory; the slot is then as it was.
        """
        capacity = self.capacities[slot]
        while capacity < tokens:
            capacity *= 2
        if capacity > self.capacities[slot]:
            self.resize(slot, capacity, held)

    def release(self, slot: int) -> None:
        """Give back what a slot that nobody uses has taken beyond the smallest room."""
        if self.capacities[slot] > SMALLEST_CAPACITY:
            self.resize(slot, SMALLEST_CAPACITY, 0)

    @torch.inference_mode()
    def resize(self, slot: int, capacity: int, held: int) -> None:
        """Give a slot other memory in every layer, with the tokens that it holds."""
        grown = {number: layer.empty(capacity) for number, layer in self.layers.items()}
        for number, slot_2GCD in grown.items():
            layer = self.layers[number]
            slot_2GCD[:, :, :held] = layer.slots_2GCD[slot][:, :, :held]
            layer.put(slot, slot_2GCD)
        self.capacities[slot] = capacity

    def aim(self, slots: list[int], starts: list[int], tokens: int = 1) -> None:
        """Say where the next forward's tokens go; rows beyond these only fill up the batch.

        Args:
            slots: slot of each row.
            starts: tokens that each row's slot holds already.
            tokens: new ones of each row.
        """
        for slot, start in zip(slots, starts, strict=True):
            if start + tokens > self.capacities[slot]:
                self.reserve(slot, start + tokens, start)
        self.rows = list(zip(slots, starts, strict=True))
        self.tokens = sum(starts) + len(starts)
        self.slots_B, self.starts_B = torch.tensor(slots), torch.tensor(starts)
        self.order_B = self.starts_B.argsort(descending=True)

    def layer(self, number: int, heads: int, width: int, like: torch.Tensor) -> LayerCache:
        """A layer's keys and values, with room for the new tokens."""
        found = self.layers.get(number)
        if found is None:
            found = LayerCache(self.capacities, heads, width, like.dtype)
            self.layers[number] = found
        return found

    def store(self, number: int, key_BGTD: torch.Tensor, value_BGTD: torch.Tensor) -> LayerCache:
        """Write a layer's new keys and values, and return all that it holds."""
        _, heads, tokens, width = key_BGTD.shape
        layer = self.layer(number, heads, width, key_BGTD)
        new_2BGTD = torch.stack((key_BGTD, value_BGTD))
        places = [layer.slots_2GCD[slot].narrow(2, start, tokens) for slot, start in self.rows]
        torch._foreach_copy_(places, list(new_2BGTD.unbind(1)[: len(places)]))
        return layer

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
        views = self.store(layer, key_BGTD, value_BGTD).views
        batch, heads, _, width = query_BHTD.shape
        if batch == 1:
            ((slot, start),) = self.rows
            return prompt_attention(query_BHTD, *views[slot], start, scaling)
        # The heads that share a key stand where positions would: all of them see the whole row.
        query_BGHD = query_BHTD.reshape(batch, key_BGTD.shape[1], -1, width)
        rows = len(self.rows)
        outputs = attend_rows(self, views, query_BGHD, scaling)
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
    keys_1GCD: torch.Tensor,
    values_1GCD: torch.Tensor,
    start: int,
    scaling: float | None,
) -> torch.Tensor:
    """Attention of a prompt's next T tokens to the `start` before them and to those up to each."""
    tokens = query_1HTD.shape[2]
    mask_TL = None
    if start:
        place_L = torch.arange(start + tokens, device=query_1HTD.device)
        mask_TL = place_L <= place_L[start:, None]
    outputs_1HTD = scaled_dot_product_attention(
        query_1HTD,
        keys_1GCD[:, :, : start + tokens],
        values_1GCD[:, :, : start + tokens],
        mask_TL,
        is_causal=not start,
        scale=scaling,
        enable_gqa=query_1HTD.shape[1] != keys_1GCD.shape[1],
    )
    return outputs_1HTD.transpose(1, 2)
