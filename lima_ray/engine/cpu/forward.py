"""Forwards of a model in slots on a CPU, in which no row feels its neighbours.

`kv_slots.py` says what a row might feel. No library promises that it does not, so a forward
looks when it is made: which batch sizes give the same rows to the bit, and whether places do.
"""

from typing import Any

import torch

from lima_ray.engine.cpu.kv_slots import STRIDE, Row, SlotCache
from lima_ray.engine.cpu.threads import threads_if


class SteadyForward:
    """Reads tokens into slots and tells what follows."""

    chunk = 128
    """Tokens of a prompt computed together; where chunks end depends on the prompt alone."""

    def __init__(self, model: Any, slots: int) -> None:
        """See which batches are steady.

        Args:
            model: in fp32, of `lima_ray.engine.loading.load`.
            slots: how many there are.
        """
        self.model, self.slots = model, slots
        self.cache = SlotCache(slots)
        self.batches, self.steady = self.steady_batches()

    def logits(self, rows: list[Row], batch: int = 0) -> torch.Tensor:
        """Read a token into each slot named, and return logits (R, V) of what follows it.

        Args:
            rows: what to read.
            batch: rows to compute, filling ones included; 0 takes the smallest steady batch.
        """
        batch = batch or next(size for size in self.batches if size >= len(rows))
        slots, starts, tokens = (list(column) for column in zip(*rows, strict=True))
        filling = [0] * (batch - len(rows))
        self.cache.aim(slots, starts)
        output = self.run(
            self.model, [[t] for t in tokens + filling], [[s] for s in starts + filling]
        )
        return output.logits[: len(rows), 0]

    def read(self, slot: int, start: int, ids: list[int]) -> None:
        """Read a part of a prompt into a slot that holds `start` tokens."""
        self.cache.aim([slot], [start], len(ids))
        self.run(self.model.get_decoder(), [ids], [list(range(start, start + len(ids)))])

    def reserve(self, slot: int, tokens: int) -> None:
        """Make room for a prompt at once; otherwise it grows, and is copied, as it is needed."""
        self.cache.reserve(slot, tokens)

    def release(self, slot: int) -> None:
        """Give back the memory of a slot that nobody uses."""
        self.cache.release(slot)

    def run(self, model: Any, ids: list[list[int]], positions: list[list[int]]) -> Any:
        """Run the model, or its decoder alone, on rows of tokens in the slots aimed at.

        What is worth more threads than one takes them by itself.
        """
        with threads_if(len(ids[0]) > 1):
            return model(
                input_ids=torch.tensor(ids),
                position_ids=torch.tensor(positions),
                use_cache=False,
                slot_cache=self.cache,
            )

    @torch.inference_mode()
    def steady_batches(self) -> tuple[list[int], bool]:
        """Batch sizes whose rows equal those of the largest bitwise, and whether places do too.

        Every slot reads one token, in the largest batch, in smaller ones, and in the largest with
        the rows moved on by a place. A model that promises it for any size is looked at in those up
        to a `STRIDE` and its multiples.
        """
        any_size = getattr(self.model, "any_batch", False)
        largest = self.slots if any_size else -(-self.slots // STRIDE) * STRIDE
        small = range(1, min(STRIDE, largest)) if any_size else ()
        sizes = [*small, *range(STRIDE, largest, STRIDE)]
        vocab = self.model.config.vocab_size
        rows = [(slot, 0, slot * 7919 % vocab) for slot in range(self.slots)]
        expected_BV = self.logits(rows, largest)
        steady = [
            size
            for size in sizes
            if torch.equal(self.logits(rows[:size], size), expected_BV[:size])
        ]
        if any_size and steady == sizes:
            steady = list(range(1, largest))
        moved_BV = self.logits(rows[1:] + rows[:1], largest)
        return [*steady, largest], torch.equal(moved_BV, expected_BV.roll(-1, 0))
