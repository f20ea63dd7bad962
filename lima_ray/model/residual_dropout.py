"""Residual dropout: on what each sub-layer adds to the residual stream (LIMA section 3)."""

from functools import partial
from typing import Any

from torch import nn

from lima_ray.model.families import find_family


def residual_dropout_rates(layers: int, last: float) -> list[float]:
    """Return each layer's dropout, rising linearly from 0 to `last` (LIMA section 3)."""
    return [last * layer / max(1, layers - 1) for layer in range(layers)]


def add_residual_dropout(model: Any, last: float) -> None:
    """Drop elements of what attention and MLP add to the residual stream, in training only."""
    decoder = model.get_decoder().layers
    adds = find_family(model.config).residual_modules
    for layer, rate in zip(decoder, residual_dropout_rates(len(decoder), last), strict=True):
        if rate:
            # Hooks leave the weights' names alone, so the saved model is a plain one. Recomputed
            # layers draw the same elements, since PyTorch replays their random state.
            for name in adds:
                layer.get_submodule(name).register_forward_hook(partial(_drop, rate))


def _drop(rate: float, sublayer: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
    """Forward hook: dropout on a sub-layer's output, which attention returns first of a tuple."""
    if not sublayer.training:
        return output
    if isinstance(output, tuple):
        return (nn.functional.dropout(output[0], rate), *output[1:])
    return nn.functional.dropout(output, rate)
