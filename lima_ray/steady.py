"""Layers for decoding on a CPU: fast, and such that a row's result does not feel its neighbours.

`lima_ray/slots.py` says what may depend on the neighbours, and why it must not.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers.activations import SiLUActivation

WORTH_THREADS_PRODUCTS = 2**22
"""Multiplications of a matrix product from which it is shared among threads."""


class Allowed(threading.local):
    """Threads that the outermost `threads_if` of a thread found."""

    threads = 0


allowed = Allowed()


@contextmanager
def threads_if(worth: bool) -> Iterator[None]:
    """Keep PyTorch to this thread unless more are worth it; the innermost decides.

    To wait for another thread takes microseconds on idle cores, and on busy ones some milliseconds
    for every small operation.
    """
    before, outermost = torch.get_num_threads(), not allowed.threads
    if outermost:
        allowed.threads = before
    torch.set_num_threads(allowed.threads if worth else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if outermost:
            allowed.threads = 0


def threads_allowed() -> int:
    """Threads that work may take, also inside a `threads_if` that keeps it to one."""
    return allowed.threads or torch.get_num_threads()


class PackedLinear(nn.Module):
    """A linear layer whose weight lies as oneDNN's kernel reads it; 2 to 3 times faster here."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, rows: int) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        self.bias, self.size = bias, weight.numel()

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """x W + b, as `nn.Linear`."""
        with threads_if(worth_threads(x_BTD, self.size)):
            return torch.ops.mkldnn._linear_pointwise(x_BTD, self.packed, self.bias, "none", [], "")


class PlainLinear(nn.Module):
    """The same where oneDNN's private operations are missing."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), bias

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """x W + b."""
        with threads_if(worth_threads(x_BTD, self.weight.numel())):
            return nn.functional.linear(x_BTD, self.weight, self.bias)


def worth_threads(x_BTD: torch.Tensor, weights: int) -> bool:
    """Whether a matrix product is large enough to share it."""
    return x_BTD.shape[0] * x_BTD.shape[1] * weights >= WORTH_THREADS_PRODUCTS


def silu(x: torch.Tensor) -> torch.Tensor:
    """x / (1 + exp(-x)), by one formula for every element."""
    return x / torch.exp(-x).add_(1)


class SiLU(nn.Module):
    """`silu` as a layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As `nn.SiLU`, up to rounding."""
        return silu(x)


def packs() -> bool:
    """Whether this PyTorch has the private operations that `PackedLinear` is made of."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def linear(weights: Sequence[nn.Linear], rows: int) -> nn.Module:
    """One linear layer of several that read the same input, their outputs side by side.

    Args:
        weights: the layers, all with a bias or all without.
        rows: usual number of rows of the input.
    """
    weight = torch.cat([layer.weight.detach() for layer in weights])
    biases = [layer.bias.detach() for layer in weights if layer.bias is not None]
    bias = torch.cat(biases) if biases else None
    return PackedLinear(weight, bias, rows) if packs() else PlainLinear(weight, bias)


def steady_layers(model: nn.Module, rows: int) -> nn.Module:
    """Give a model on a CPU, in fp32, the layers above; `rows` is its usual batch.

    Weights are repacked one layer at a time, and the old ones let go.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, linear([child], rows))
            elif isinstance(child, SiLUActivation | nn.SiLU):
                setattr(parent, name, SiLU())
    return model
