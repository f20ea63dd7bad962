"""Causal attention over packed rows, exactly as long as each row.

`transformers` turns packed rows into one T x T mask for PyTorch's attention, which then computes
all T² scores and masks most. Here no mask is made, and nothing is computed between rows:

- `packed_attention` calls PyTorch's attention for each row, on any device;
- `varlen_attention` is one launch of the FlashAttention that PyTorch brings along, for fp16 and
  bf16 on a GPU.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

PACKED = "lima_packed"
VARLEN = "lima_varlen"
VARLEN_HEAD_MAX = 256
"""Widest head of PyTorch's FlashAttention; its width is a multiple of 8."""


def packed_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend within each packed row.

    Args:
        query_BHTD: queries, B 1.
        key_BGTD: keys of G heads, each shared by H / G query heads.
        value_BGTD: values, shaped as the keys.
        attention_mask: never given; see `register_attention`.
        cu_seq_lens_q: where rows start in the T tokens, and T itself at the end; none is one row.

    Returns:
        outputs (B, T, H, D), and no weights.
    """
    lengths = [query_BHTD.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    grouped = query_BHTD.shape[1] != key_BGTD.shape[1]
    outputs = [
        scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=grouped
        ).transpose(1, 2)
        for q, k, v in zip(
            query_BHTD.split(lengths, dim=2),
            key_BGTD.split(lengths, dim=2),
            value_BGTD.split(lengths, dim=2),
            strict=True,
        )
    ]
    return torch.cat(outputs, dim=1), None


def varlen_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend within each packed row, as `packed_attention` does, in one launch on a GPU.

    Args: those of `packed_attention`, in fp16 or bf16, and
        max_length_q: tokens of the longest row.

    Raises:
        ValueError: dropout of attention weights is asked for, which the kernel has not.
    """
    if dropout:
        raise ValueError(f"varlen attention has no dropout of attention weights, not {dropout}")
    query_THD, key_TGD, value_TGD = (
        x.transpose(1, 2).flatten(0, 1) for x in (query_BHTD, key_BGTD, value_BGTD)
    )
    if cu_seq_lens_q is None:
        max_length_q = query_THD.shape[0]
        cu_seq_lens_q = torch.tensor([0, max_length_q], dtype=torch.int32, device=query_THD.device)
    varlen_attn, known = load_varlen()
    switches: dict[str, object] = {"scale": scaling}
    if "is_causal" in known:  # PyTorch 2.10; later ones spell it as a window
        switches["is_causal"] = True
    else:
        switches["window_size"] = (-1, 0)
    shared = query_THD.shape[1] // key_TGD.shape[1]
    if "enable_gqa" in known:
        switches["enable_gqa"] = shared > 1
    elif shared > 1:
        key_TGD, value_TGD = (x.repeat_interleave(shared, dim=1) for x in (key_TGD, value_TGD))
    output_THD = varlen_attn(
        query_THD,
        key_TGD,
        value_TGD,
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        **switches,
    )
    assert isinstance(output_THD, torch.Tensor)
    return output_THD[None], None


@cache
def load_varlen() -> tuple[Callable[..., Any], frozenset[str]]:
    """Return PyTorch's varlen attention and the names of its arguments.

    Its import brings PyTorch's compiler along, two seconds that a CPU's attention does not need.
    """
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn, frozenset(inspect.signature(varlen_attn).parameters)


def head_width(config: Any) -> int:
    """Return the width of one attention head of a `transformers` configuration."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def register() -> None:
    """Make both known to `transformers` by name."""
    register_attention(PACKED, packed_attention)
    register_attention(VARLEN, varlen_attention)


def register_attention(name: str, function: Callable[..., Any]) -> None:
    """Make an attention known to `transformers` by name, with no mask built for it."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, lambda *_, **__: None)
