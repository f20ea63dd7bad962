"""Causal attention over packed rows, exactly as long as each row, on any device.

`transformers` turns packed rows into one T x T mask for PyTorch's attention, which then computes
all T² scores and masks most. Here every row attends on its own, without a mask: the kernel's
causal path does half of each row's square and nothing between rows. FlashAttention does the same in
one launch and is used instead where it is installed (GPU).
"""

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

PACKED = "lima_packed"


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
        module: the attention layer; not used.
        query_BHTD: queries, B 1.
        key_BGTD: keys of G heads, each shared by H / G query heads.
        value_BGTD: values, shaped as the keys.
        attention_mask: never given; see `register`.
        scaling: factor of the scores.
        dropout: dropout of the attention weights.
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


def register() -> None:
    """Make `attn_implementation="lima_packed"` known, with no mask built for it."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, lambda *_, **__: None)
