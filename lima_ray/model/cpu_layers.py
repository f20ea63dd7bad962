"""What makes training on a CPU faster: fewer passes over memory, and products in bf16.

Rotary embedding and RMSNorm cost as much as a good part of the matrix products, since
`transformers` writes each as a chain of small operations whose gradients allocate and fill whole
tensors. Here each is one autograd function with its gradient written out. On a GPU, Liger's
kernels do the same.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable


class Rotate(torch.autograd.Function):
    """Rotate pairs (x1, x2), the halves of the last dimension, by angles given as cos and sin."""

    @staticmethod
    def forward(
        ctx: Any, x_BHTD: torch.Tensor, cos_B1TD: torch.Tensor, sin_B1TD: torch.Tensor
    ) -> torch.Tensor:
        """Rotate; cos and sin repeat over the two halves, as `transformers` makes them."""
        half = x_BHTD.shape[-1] // 2
        ctx.save_for_backward(cos_B1TD[..., :half], sin_B1TD[..., :half])
        return rotate(x_BHTD, cos_B1TD[..., :half], sin_B1TD[..., :half], 1)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        cos_B1TE, sin_B1TE = ctx.saved_tensors
        return rotate(grad_outputs[0], cos_B1TE, sin_B1TE, -1), None, None


def rotate(
    x_BHTD: torch.Tensor, cos_B1TE: torch.Tensor, sin_B1TE: torch.Tensor, sign: int
) -> torch.Tensor:
    """Return x1 cos - x2 sin and x2 cos + x1 sin; a negative sign turns the other way."""
    x1, x2 = x_BHTD.chunk(2, dim=-1)
    out = torch.empty_like(x_BHTD)
    out1, out2 = out.chunk(2, dim=-1)
    torch.mul(x1, cos_B1TE, out=out1).addcmul_(x2, sin_B1TE, value=-sign)
    torch.mul(x2, cos_B1TE, out=out2).addcmul_(x1, sin_B1TE, value=sign)
    return out


def apply_rotary(
    query: torch.Tensor,
    key: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    unsqueeze_dim: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace `apply_rotary_pos_emb`, which still computes all that is not fp32 on a CPU."""
    if query.dtype != torch.float32 or query.device.type != "cpu":
        return original_rotary()(query, key, cos, sin, unsqueeze_dim)
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return Rotate.apply(query, cos, sin), Rotate.apply(key, cos, sin)  # pyright: ignore


@cache
def original_rotary() -> Callable[..., Any]:
    """Return what `apply_rotary` replaces; called before it does."""
    from transformers.models.llama import modeling_llama

    return modeling_llama.apply_rotary_pos_emb


class Normalise(torch.autograd.Function):
    """RMSNorm: x / sqrt(mean(x²) + eps) · weight."""

    @staticmethod
    def forward(ctx: Any, x_BTD: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
        """Compute in two passes: the norm, then the product."""
        square = torch.linalg.vector_norm(x_BTD, dim=-1, keepdim=True).square_()
        scale_BT1 = square.div_(x_BTD.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x_BTD, weight_D, scale_BT1)
        return torch.mul(x_BTD, scale_BT1).mul_(weight_D)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Return scale · (g w - n · mean(g w n)) with n = x · scale, and the sum of g n."""
        gradient_BTD = grad_outputs[0]
        x_BTD, weight_D, scale_BT1 = ctx.saved_tensors
        n_BTD = x_BTD * scale_BT1
        gn_BTD = gradient_BTD * n_BTD
        mean_BT1 = torch.mv(gn_BTD.flatten(0, -2), weight_D) / x_BTD.shape[-1]
        weight_gradient_D = gn_BTD.sum(dim=tuple(range(x_BTD.dim() - 1)))
        x_gradient_BTD = torch.mul(gradient_BTD, weight_D, out=gn_BTD)
        x_gradient_BTD.addcmul_(n_BTD, mean_BT1.view_as(scale_BT1), value=-1).mul_(scale_BT1)
        return x_gradient_BTD, weight_gradient_D, None


def install(model: nn.Module) -> None:
    """Give a Llama these layers; models of other families are left as they are."""
    from transformers.models.llama import modeling_llama

    if not isinstance(model, modeling_llama.LlamaForCausalLM):
        return
    original_rotary()
    modeling_llama.apply_rotary_pos_emb = apply_rotary
    for module in model.modules():
        if isinstance(module, modeling_llama.LlamaRMSNorm):
            module.forward = lambda x, norm=module: Normalise.apply(  # pyright: ignore
                x, norm.weight, norm.variance_epsilon
            )


def multiplies_bf16() -> bool:
    """Return whether this CPU multiplies bf16 itself: AVX512-BF16, AMX; 4 times as fast as fp32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def multiply_in_bf16(model: nn.Module, keep_casts: bool = True) -> None:
    """Let a model of fp32 weights compute matrix products and attention in bf16 while it trains.

    Sums over the products, the norms, the residual stream, gradients of the weights and the loss
    stay fp32. In evaluation everything is fp32, so that what is compared with a saved model is.

    Args:
        keep_casts: keep a weight's bf16 form until the forward ends, for layers that share it.
    """
    forward = model.forward

    @wraps(forward)
    def mixed(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=model.training, cache_enabled=keep_casts
        ):
            return forward(*args, **kwargs)

    model.forward = mixed
    model.precision = "mixed"  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
