"""What the engine needs of a model's forward pass, on any device."""

from typing import Protocol

import torch

SlotToken = tuple[int, int, int]
"""A slot, the number of tokens that it holds, and the token to add to it."""


class Forward(Protocol):
    """A model with its KV cache in slots: prefills prompts and decodes one token of many slots.

    `cpu/forward.py` and `cuda_graphs.py` have one each.
    """

    chunk: int
    """Tokens of a prompt computed together; where chunks end depends on the prompt alone."""
    batch_invariant: bool
    """Whether a slot's logits are bitwise the same in any batch."""

    def logits(self, batch: list[SlotToken]) -> torch.Tensor:
        """Add a token to each slot named, and return logits (B, V) of what follows it."""
        ...

    def prefill(self, slot: int, start: int, ids: list[int]) -> None:
        """Add a part of a prompt to a slot that holds `start` tokens."""
        ...

    def reserve(self, slot: int, tokens: int) -> None:
        """Make room for a prompt at once; otherwise a slot grows as needed."""
        ...

    def release(self, slot: int) -> None:
        """Free the memory of a slot that no request uses."""
        ...
