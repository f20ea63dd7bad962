"""Layers for decoding on a CPU: fast, and such that a row's result does not feel its neighbours.

`lima_ray/engine/cpu/kv_slots.py` says what may depend on the neighbours, and why it must not.
"""

import torch
from torch import nn
from transformers.activations import SiLUActivation

from lima_ray.engine.cpu.linear import linear


def silu(x: torch.Tensor) -> torch.Tensor:
    """x / (1 + exp(-x)), by one formula for every element."""
    return x / torch.exp(-x).add_(1)


class SiLU(nn.Module):
    """`silu` as a layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As `nn.SiLU`, up to rounding."""
        return silu(x)


def steady_layers(model: nn.Module, rows: int) -> nn.Module:
    """Give a model on a CPU, in fp32, the layers above; `rows` is its usual batch.

    Weights are repacked one layer at a time, and the old ones let go.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:  # a subclass computes something of its own
                setattr(parent, name, linear([child], rows))
            elif isinstance(child, SiLUActivation | nn.SiLU):
                setattr(parent, name, SiLU())
    return model
