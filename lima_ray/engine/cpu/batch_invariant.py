"""Batch invariance on a CPU: a sequence's logits are bitwise the same whatever else is computed.

A decoding step runs one token of every active request through the model as one batch. For the same
seed to give the same reply in any batch, a sequence's logits may not depend, in any bit, on how
many others there are, what they hold, or where in the batch it stands. On a CPU:

- PyTorch's matrix products choose their kernel by the number of rows, and one row, or a few odd
  ones, is summed in another order than eight or more. A batch is padded to a multiple of
  `forward.STRIDE`, but for a Llama by the kernels in C, whose order is one for all.
- Attention is computed for each sequence by itself, over exactly its own tokens.
- PyTorch's SiLU treats the last few elements of every thread's share by another formula than the
  rest; `reference.silu` is one formula.

This was measured on x86, and no library promises it: `forward.py` checks it at loading.
"""

import torch
from torch import nn
from transformers.activations import SiLUActivation

from lima_ray.config.sections import WeightFormat
from lima_ray.engine.cpu.linear import linear
from lima_ray.engine.cpu.llama import SlotLlama, is_plain_llama
from lima_ray.engine.cpu.reference import silu


class SiLU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return silu(x)


def make_batch_invariant(model: nn.Module, batch: int, held_as: WeightFormat) -> nn.Module:
    """Return a model with the same weights and batch-invariant layers, which are faster too.

    Weights are repacked one layer at a time, and the old ones freed.

    Args:
        model: of `transformers`, on a CPU, with attention in slots; in fp32, but for a Llama, which
            may be in bf16.
        batch: usual number of sequences in a batch.
        held_as: how linear layers hold their weights.
    """
    if is_plain_llama(model):
        return SlotLlama(model, batch, held_as)  # pyright: ignore[reportArgumentType]
    model = model.float()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:  # a subclass computes something of its own
                setattr(parent, name, linear([child], batch, held_as))
            elif isinstance(child, SiLUActivation | nn.SiLU):
                setattr(parent, name, SiLU())
    return model
