"""The KV cache of a model on a CPU: every sequence in a slot that grows and shrinks by itself."""

import torch

from lima_ray.engine.cpu import reference
from lima_ray.engine.cpu.kv_layer import Batch, LayerCache

SMALLEST_CAPACITY = 128
"""Tokens that a slot has room for at first; its room doubles when it needs more."""


class SlotCache:
    """Keys and values of S slots in every layer; each forward pass names the slots that it uses."""

    def __init__(self, slots: int) -> None:
        self.capacities = [SMALLEST_CAPACITY] * slots
        """Tokens that each slot has room for."""
        self.layers: dict[int, LayerCache] = {}

    def reserve(self, slot: int, tokens: int, held: int = 0) -> None:
        """Make room for tokens in a slot that keeps its own; an OSError leaves it as it was."""
        capacity = self.capacities[slot]
        while capacity < tokens:
            capacity *= 2
        if capacity > self.capacities[slot]:
            self.resize(slot, capacity, held)

    def release(self, slot: int) -> None:
        """Free what a slot that no request uses has taken beyond the smallest capacity."""
        if self.capacities[slot] > SMALLEST_CAPACITY:
            self.resize(slot, SMALLEST_CAPACITY, 0)

    @torch.inference_mode()
    def resize(self, slot: int, capacity: int, held: int) -> None:
        """Give a slot other memory in every layer, with the tokens that it holds."""
        grown = {number: layer.empty(capacity) for number, layer in self.layers.items()}
        for number, slot_2GCD in grown.items():
            layer = self.layers[number]
            slot_2GCD[:, :, :held] = layer.slots_2GCD[slot][:, :, :held]
            layer.replace(slot, slot_2GCD)
        self.capacities[slot] = capacity

    def set_batch(self, slots: list[int], starts: list[int], tokens: int = 1) -> None:
        """Set where the next forward pass writes and reads; sequences beyond these are padding.

        Args:
            starts: tokens that each sequence's slot holds already.
            tokens: new ones of each sequence.
        """
        for slot, start in zip(slots, starts, strict=True):
            if start + tokens > self.capacities[slot]:
                self.reserve(slot, start + tokens, start)
        self.batch = Batch.of(slots, starts)

    def layer(self, number: int, heads: int, width: int, like: torch.Tensor) -> LayerCache:
        """Return a layer's keys and values, with room for the new tokens."""
        found = self.layers.get(number)
        if found is None:
            found = LayerCache(self.capacities, heads, width, like.dtype)
            self.layers[number] = found
        return found

    def attend(
        self,
        layer: int,
        query_BHTD: torch.Tensor,
        key_BGTD: torch.Tensor,
        value_BGTD: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Store keys and values, and attend to what the slots hold, for models of `transformers`.

        Args:
            layer: number of the layer.
            query_BHTD: queries: T tokens of one prompt, or one token of B sequences.
            key_BGTD: keys of G heads, each shared by H / G query heads.
            value_BGTD: values, shaped as the keys.
            scaling: factor of the scores.

        Returns:
            outputs (B, T, H, D), zero for padding.
        """
        size, heads, _, width = query_BHTD.shape
        cache = self.layer(layer, key_BGTD.shape[1], width, key_BGTD)
        cache.store(self.batch, key_BGTD, value_BGTD)
        query_BTHD = query_BHTD.transpose(1, 2)
        if size == 1:
            outputs_BTF = reference.attend_prompt(query_BTHD, cache, self.batch, scaling)
        else:
            query_B1HD = query_BTHD[: len(self.batch.slots)]
            outputs_BTF = reference.attend(query_B1HD, cache, self.batch, scaling, size)
        return outputs_BTF.unflatten(2, (heads, width))
