"""How a CPU holds the weights of linear layers: fp32, bf16, or 8 bits with scales.

One reply at a time is as fast as the weights are read, so half the bytes are twice the tokens.
Whatever the format, a product takes these weights as fp32 and sums in fp32, in one order: bf16
weights of a model that was saved in bf16 change no bit of a reply.
"""

from dataclasses import dataclass
from typing import Self

import torch

from lima_ray.config.sections import WeightFormat

GROUP = 64
"""Successive inputs of an output that share a scale in 8 bits; `kernels.c` has the same number."""


@dataclass(frozen=True)
class HeldWeights:
    """The weights (N, K) of a linear layer in one of the formats."""

    values_NK: torch.Tensor
    """In fp32, bf16 or int8."""
    scales_NG: torch.Tensor | None = None
    """Of int8: what each group of `GROUP` values is multiplied by."""

    @classmethod
    def of(cls, weight_NK: torch.Tensor, held_as: WeightFormat) -> Self:
        """Hold weights in fp32 or bf16, as `WeightFormat` names it."""
        if held_as == "int8":
            return cls.quantised(weight_NK)
        return cls(held(weight_NK, held_as))

    @classmethod
    def quantised(cls, weight_NK: torch.Tensor) -> Self:
        """Round to -127 ... 127 times a scale, which makes the largest of each group exact."""
        outs, ins = weight_NK.shape
        groups_NGI = in_groups(weight_NK.float())
        scales_NG = groups_NGI.abs().amax(dim=2) / 127
        # A group of zeros has the scale 0.
        divisors_NG1 = scales_NG.masked_fill(scales_NG == 0, 1)[:, :, None]
        values_NGI = (groups_NGI / divisors_NG1).round_().to(torch.int8)
        return cls(values_NGI.view(outs, -1)[:, :ins].contiguous(), scales_NG)

    def widened(self) -> torch.Tensor:
        """Return the weights (N, K) in fp32, as products take them."""
        if self.scales_NG is None:
            return self.values_NK.float()
        outs, ins = self.values_NK.shape
        groups_NGI = in_groups(self.values_NK.float()).mul_(self.scales_NG[:, :, None])
        return groups_NGI.view(outs, -1)[:, :ins].contiguous()


def held(weight: torch.Tensor, held_as: WeightFormat) -> torch.Tensor:
    """Return weights in fp32 or bf16; `auto` takes bf16 where it has the same values.

    Tables of embeddings are held so too, in bf16 where linear layers have 8 bits.
    """
    if held_as == "fp32":
        return weight.float()
    rounded = weight.bfloat16()
    same = weight.dtype == torch.bfloat16 or torch.equal(rounded.float(), weight.float())
    return weight.float() if held_as == "auto" and not same else rounded


def in_groups(weight_NK: torch.Tensor) -> torch.Tensor:
    """Return weights as groups (N, G, GROUP), zeros at the end of the last."""
    padding = -weight_NK.shape[1] % GROUP
    return torch.nn.functional.pad(weight_NK, (0, padding)).unflatten(1, (-1, GROUP))
