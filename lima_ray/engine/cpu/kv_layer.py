"""The KV cache of one layer, in slots, and where the tokens of one forward pass go in them."""

import mmap
from dataclasses import dataclass
from typing import Self

import torch


@dataclass(frozen=True)
class Batch:
    """The slot and the position of each sequence of a forward pass; padding has neither."""

    slots: list[int]
    starts: list[int]
    """Tokens that each sequence's slot holds already."""
    slots_B: torch.Tensor
    starts_B: torch.Tensor
    order_B: torch.Tensor
    """The sequences, those with most tokens first, so that threads that share them end together."""
    read: int
    """Tokens that one new token of every sequence attends to, all together."""

    @classmethod
    def of(cls, slots: list[int], starts: list[int]) -> Self:
        starts_B = torch.tensor(starts)
        order_B = starts_B.argsort(descending=True)
        return cls(slots, starts, torch.tensor(slots), starts_B, order_B, sum(starts) + len(starts))


class LayerCache:
    """Keys and values of S slots in one layer, in memory of each slot's own."""

    def __init__(self, capacities: list[int], heads: int, width: int, dtype: torch.dtype) -> None:
        self.heads, self.width, self.dtype = heads, width, dtype
        self.slots_2GCD = [self.empty(capacity) for capacity in capacities]
        self.views = [self.split(slot_2GCD) for slot_2GCD in self.slots_2GCD]
        """Keys and values (1, G, C, D) of each slot: views made once, not each step."""
        self.addresses_S = torch.tensor([slot.data_ptr() for slot in self.slots_2GCD])
        """Address of each slot's keys (G, C, D); its values follow them."""
        self.capacities_S = torch.tensor(capacities)

    def empty(self, capacity: int) -> torch.Tensor:
        """Return room (2, G, C, D) for a slot's tokens."""
        count = 2 * self.heads * capacity * self.width
        # Mapped by itself: memory that no token reaches is never taken, and all of it goes back to
        # the system with the tensor, which an allocator's own pool would keep.
        memory = mmap.mmap(-1, count * self.dtype.itemsize)
        return torch.frombuffer(memory, dtype=self.dtype, count=count).view(
            2, self.heads, capacity, self.width
        )

    def split(self, slot_2GCD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keys_1GCD, values_1GCD = slot_2GCD.split(1)
        return keys_1GCD, values_1GCD

    def replace(self, slot: int, slot_2GCD: torch.Tensor) -> None:
        self.slots_2GCD[slot], self.views[slot] = slot_2GCD, self.split(slot_2GCD)
        self.addresses_S[slot], self.capacities_S[slot] = slot_2GCD.data_ptr(), slot_2GCD.shape[2]

    def store(self, batch: Batch, key_BGTD: torch.Tensor, value_BGTD: torch.Tensor) -> None:
        """Write new keys and values into the slots of a batch; padding is left out."""
        tokens = key_BGTD.shape[2]
        new_2BGTD = torch.stack((key_BGTD, value_BGTD))
        places = [
            self.slots_2GCD[slot].narrow(2, start, tokens)
            for slot, start in zip(batch.slots, batch.starts, strict=True)
        ]
        torch._foreach_copy_(places, list(new_2BGTD.unbind(1)[: len(places)]))
