"""Projected gradients of single rows: how each row's loss would change every linear layer.

The gradient of a linear layer's weight by a row's loss is the sum, over the row's tokens, of
(gradient of the output)(input)ᵀ. Both factors are projected by fixed random matrices before they
are multiplied, so no weight's gradient is ever stored, and one backward pass of a packed
micro-batch gives the gradient of each of its rows (LoGra: Choe et al. 2024, arXiv 2405.13954). It
is the gradient of LoRA-like adapters whose outer factors are those random ones and stay fixed. Dot
products keep their value in expectation (Johnson and Lindenstrauss).
"""

import zlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from lima_ray.config.errors import UserError, join_names
from lima_ray.data.packing import MicroBatch
from lima_ray.data.rows import Rows
from lima_ray.model.loss import forward_packed


@dataclass
class ProjectedLayer:
    """One linear layer: its random matrices, and what the last backward pass gave."""

    input_IW: torch.Tensor | None
    """Projects inputs to W values; none keeps them whole, where there are no more than that."""
    output_OW: torch.Tensor | None
    """Projects gradients of outputs."""
    values: int
    """Of a row's projected gradient."""
    gradients_BV: torch.Tensor | None = field(default=None)
    """Of each row of the micro-batch, (B, values)."""


class RowGradients(AbstractContextManager["RowGradients"]):
    """Computes rows' projected gradients; inside the context the model's weights are frozen."""

    def __init__(self, model: Any, values: int, seed: int = 0) -> None:
        """Choose the layers, and draw their matrices.

        Args:
            model: as `load_packed` returns it.
            values: of a row's gradient at most, shared equally among the layers; at least one each.
            seed: of the matrices.
        """
        self.model = model
        linear = linear_layers(model)
        width = max(1, isqrt(values // len(linear)))
        self.layers = {
            name: project_layer(layer, name, width, seed) for name, layer in linear.items()
        }
        self.values = sum(layer.values for layer in self.layers.values())
        self.lengths: list[int] = []
        self.hooks: list[Any] = []

    def __enter__(self) -> "RowGradients":
        self.model.requires_grad_(False)
        for name, layer in linear_layers(self.model).items():
            self.hooks.append(layer.register_forward_hook(partial(self._after_forward, name)))
        # With frozen weights nothing else would ask for gradients.
        embeddings = self.model.get_input_embeddings()
        ask = embeddings.register_forward_hook(lambda *given: given[-1].requires_grad_(True))
        self.hooks.append(ask)
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()

    def compute(self, batch: MicroBatch, rows: Rows) -> np.ndarray:
        """Return the gradient of each row's summed loss, (B, values) in float32.

        Every layer's part has the length 1 over the root of the number of layers, so that the dot
        product of two rows is the mean of their cosines in the layers.
        """
        parts = self.compute_layers(batch, rows)
        units = [nn.functional.normalize(part, dim=1) for part in parts]
        return (torch.cat(units, dim=1) / len(units) ** 0.5).cpu().numpy()

    def compute_layers(self, batch: MicroBatch, rows: Rows) -> list[torch.Tensor]:
        """Return each layer's gradients as they are, (B, its values), in the order of `layers`.

        Raises:
            UserError: a row's tokens do not all pass a layer, or a gradient is not finite.
        """
        self.lengths = [int(rows.lengths_R[number]) for number in batch]
        loss_sum, _ = forward_packed(self.model, batch, rows)
        loss_sum.backward()
        found = [layer.gradients_BV for layer in self.layers.values()]
        missing = [name for name, one in zip(self.layers, found, strict=True) if one is None]
        if missing:
            raise UserError(f"{missing[0]} has no gradient; use --method text for this model")
        for layer in self.layers.values():
            layer.gradients_BV = None
        parts = [one for one in found if one is not None]
        if not all(torch.isfinite(part).all() for part in parts):
            raise UserError(
                f"a gradient of rows {join_names([str(number) for number in batch])} is not "
                "finite; use --method text"
            )
        return parts

    def _after_forward(
        self, name: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        """Project a layer's input, and see that its gradient follows in the backward pass."""
        tokens = sum(self.lengths)
        if output.numel() != tokens * output.shape[-1]:
            raise UserError(
                f"{name} does not see every token of a row once; use --method text for this model"
            )
        layer = self.layers[name]
        input_TW = project(inputs[0].detach().reshape(tokens, -1), layer.input_IW)

        def after_backward(gradient: torch.Tensor) -> None:
            output_TW = project(gradient.reshape(tokens, -1), layer.output_OW)
            parts = zip(output_TW.split(self.lengths), input_TW.split(self.lengths), strict=True)
            layer.gradients_BV = torch.stack([(o.T @ i).flatten() for o, i in parts])

        output.register_hook(after_backward)


def linear_layers(model: Any) -> dict[str, nn.Linear]:
    """Return the linear layers of attention and MLP by name, without the vocabulary's matrix."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def project_layer(layer: nn.Linear, name: str, width: int, seed: int) -> ProjectedLayer:
    """Draw a layer's matrices, on its device; the same for the same name and seed everywhere."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    device = layer.weight.device
    input_IW = draw_signs(layer.in_features, width, generator, device)
    output_OW = draw_signs(layer.out_features, width, generator, device)
    values = min(width, layer.in_features) * min(width, layer.out_features)
    return ProjectedLayer(input_IW, output_OW, values)


def draw_signs(
    size: int, width: int, generator: np.random.Generator, device: torch.device
) -> torch.Tensor | None:
    """Return random signs over the square root of the width, (size, width); none if not fewer."""
    if width >= size:
        return None
    signs = 2 * generator.integers(0, 2, (size, width), dtype=np.int8) - 1
    return torch.from_numpy(signs).to(device, torch.float32) / width**0.5


def project(values_TD: torch.Tensor, matrix_DW: torch.Tensor | None) -> torch.Tensor:
    return values_TD.float() if matrix_DW is None else values_TD.float() @ matrix_DW
