"""The forward pass of a model in slots on a CPU, and the check that it is batch-invariant.

No library promises that (`batch_invariant.py`), so a forward measures it when it is made: which
batch sizes give the same logits to the bit, and whether a sequence's place in the batch matters.
"""

from typing import Any

import torch

from lima_ray.engine.cpu.kv_slots import SlotCache
from lima_ray.engine.cpu.threads import threads_if
from lima_ray.engine.forward import SlotToken

STRIDE = 8
"""Sequences in a batch are padded to a multiple of this, unless the model takes any number."""


class CpuForward:
    """Prefills prompts into slots and decodes one token of many slots on a CPU."""

    chunk = 128

    def __init__(self, model: Any, slots: int) -> None:
        """Measure which batch sizes of a model of `make_batch_invariant` are invariant."""
        self.model, self.slots = model, slots
        self.cache = SlotCache(slots)
        self.batch_sizes, self.batch_invariant = self.measure_invariance()

    def logits(self, batch: list[SlotToken], size: int = 0) -> torch.Tensor:
        """Add a token to each slot named, and return logits (B, V) of what follows it.

        Args:
            size: sequences to compute, padding included; 0 takes the smallest invariant size.
        """
        size = size or next(size for size in self.batch_sizes if size >= len(batch))
        slots, starts, tokens = (list(column) for column in zip(*batch, strict=True))
        padding = [0] * (size - len(batch))
        self.cache.set_batch(slots, starts)
        output = self.run(
            self.model, [[t] for t in tokens + padding], [[s] for s in starts + padding]
        )
        return output.logits[: len(batch), 0]

    def prefill(self, slot: int, start: int, ids: list[int]) -> None:
        self.cache.set_batch([slot], [start], len(ids))
        self.run(self.model.get_decoder(), [ids], [list(range(start, start + len(ids)))])

    def reserve(self, slot: int, tokens: int) -> None:
        self.cache.reserve(slot, tokens)

    def release(self, slot: int) -> None:
        self.cache.release(slot)

    def run(self, model: Any, ids: list[list[int]], positions: list[list[int]]) -> Any:
        """Run the model, or its decoder alone, on tokens of the cache's batch.

        Operations that are worth more threads than one take them by themselves.
        """
        with threads_if(len(ids[0]) > 1):
            return model(
                input_ids=torch.tensor(ids),
                position_ids=torch.tensor(positions),
                use_cache=False,
                slot_cache=self.cache,
            )

    @torch.inference_mode()
    def measure_invariance(self) -> tuple[list[int], bool]:
        """Return the batch sizes whose logits equal those of the largest bitwise, and whether
        places do too.

        Every slot gets one token, in the largest batch, in smaller ones, and in the largest with
        the sequences moved on by a place. Of a model that promises it for any size, those up to a
        `STRIDE` and its multiples are measured.
        """
        any_size = getattr(self.model, "any_batch_size", False)
        largest = self.slots if any_size else -(-self.slots // STRIDE) * STRIDE
        small = range(1, min(STRIDE, largest)) if any_size else ()
        sizes = [*small, *range(STRIDE, largest, STRIDE)]
        vocab = self.model.config.vocab_size
        batch = [(slot, 0, slot * 7919 % vocab) for slot in range(self.slots)]
        expected_BV = self.logits(batch, largest)
        invariant = [
            size
            for size in sizes
            if torch.equal(self.logits(batch[:size], size), expected_BV[:size])
        ]
        if any_size and invariant == sizes:
            invariant = list(range(1, largest))
        moved_BV = self.logits(batch[1:] + batch[:1], largest)
        return [*invariant, largest], torch.equal(moved_BV, expected_BV.roll(-1, 0))
