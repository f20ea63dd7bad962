"""Linear layers for decoding on a CPU, by the fastest matrix product that is there.

Weights are packed once, as the product reads them: by the kernels in C, without a compiler by
oneDNN's private operations, without those not at all. How a row's sum is taken must not depend on
the other rows (`batch_invariant.py`): the kernels promise it, the others are measured.
"""

from collections.abc import Sequence

import torch
from torch import nn

from lima_ray.config.sections import WeightFormat
from lima_ray.engine.cpu import kernels
from lima_ray.engine.cpu.compiler import available
from lima_ray.engine.cpu.threads import threads_if
from lima_ray.engine.cpu.weights import HeldWeights

WORTH_THREADS = 2**22
"""Multiplications of a product by PyTorch from which it is shared among threads."""


class KernelLinear(nn.Module):
    """A linear layer by our kernels: at the memory's speed for few rows, oneDNN's for many."""

    def __init__(self, weights: HeldWeights, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.packed = kernels.pack(weights, bias)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        if x_BTD.dim() == 2:  # experts and routers see rows of tokens, not of texts
            return kernels.multiply(x_BTD[:, None], self.packed)[:, 0]
        return kernels.multiply(x_BTD, self.packed)


class PackedLinear(nn.Module):
    """A linear layer whose weight lies as oneDNN's kernel reads it; 2 to 3 times plain's speed."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, batch: int) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, batch)
        self.bias, self.size = bias, weight.numel()

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        with threads_if(worth_threads(x_BTD, self.size)):
            return torch.ops.mkldnn._linear_pointwise(x_BTD, self.packed, self.bias, "none", [], "")


class PlainLinear(nn.Module):
    """The same where oneDNN's private operations are missing."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), bias

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        with threads_if(worth_threads(x_BTD, self.weight.numel())):
            return nn.functional.linear(x_BTD, self.weight, self.bias)


def worth_threads(x_BTD: torch.Tensor, weights: int) -> bool:
    products = x_BTD.numel() // x_BTD.shape[-1] * weights
    return products >= WORTH_THREADS


def packs() -> bool:
    """Whether this PyTorch has the private operations that `PackedLinear` is made of."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def linear(layers: Sequence[nn.Linear], batch: int, held_as: WeightFormat) -> nn.Module:
    """Unite linear layers that read the same input into one, their outputs side by side.

    All have a bias or none; an input usually has `batch` rows. Without the kernels the weights have
    the values that `held_as` gives them, but take the memory of fp32.
    """
    weights = HeldWeights.of(torch.cat([layer.weight.detach() for layer in layers]), held_as)
    biases = [layer.bias.detach().float() for layer in layers if layer.bias is not None]
    bias = torch.cat(biases) if biases else None
    if available():
        return KernelLinear(weights, bias)
    weight = weights.widened()
    return PackedLinear(weight, bias, batch) if packs() else PlainLinear(weight, bias)
