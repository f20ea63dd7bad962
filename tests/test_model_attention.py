"""Packed attention against PyTorch's over a mask, on the CPU and (`-m gpu`) on a GPU."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from lima_ray.model.attention import packed_attention, varlen_attention

LENGTHS = [37, 1, 128, 300]
HEADS, GROUPS, WIDTH = 8, 2, 64
MODULE = torch.nn.Identity()


def inputs(device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """Queries, keys and values of rows of LENGTHS, with gradients."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, heads, sum(LENGTHS), WIDTH, generator=generator)
        .to(device, dtype)
        .requires_grad_()
        for heads in (HEADS, GROUPS, GROUPS)
    ]


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The reference (B, T, H, D): one attention over all tokens, what is not of the row masked."""
    row_T = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    mask_TT = (row_T[:, None] == row_T[None]) & torch.ones(len(row_T), len(row_T)).tril().bool()
    k, v = (x.repeat_interleave(HEADS // GROUPS, dim=1) for x in (k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask_TT.to(q.device)).transpose(1, 2)


def outputs_and_gradients(attend, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """What attention gives, and the gradients of a fixed function of it."""
    out_BTHD = attend(*tensors)
    weight = torch.linspace(-1, 1, out_BTHD.numel(), device=out_BTHD.device).view_as(out_BTHD)
    gradients = torch.autograd.grad((out_BTHD.float() * weight).sum(), tensors)
    return [out_BTHD.detach().float(), *(g.float() for g in gradients)]


def starts(device: str) -> torch.Tensor:
    return torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0)], dtype=torch.int32, device=device)


def test_packed_attention_is_attention_over_each_row() -> None:
    tensors = inputs("cpu", torch.float32)
    ours = outputs_and_gradients(
        lambda q, k, v: packed_attention(MODULE, q, k, v, None, cu_seq_lens_q=starts("cpu"))[0],
        tensors,
    )
    for mine, reference in zip(ours, outputs_and_gradients(masked, tensors), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_varlen_attention_is_attention_over_each_row() -> None:
    tensors = inputs("cuda", torch.bfloat16)
    exact = [t.detach().float().requires_grad_() for t in tensors]
    reference = outputs_and_gradients(masked, exact)
    ours = outputs_and_gradients(
        lambda q, k, v: varlen_attention(
            MODULE, q, k, v, None, cu_seq_lens_q=starts("cuda"), max_length_q=max(LENGTHS)
        )[0],
        tensors,
    )
    for mine, wanted in zip(ours, reference, strict=True):
        assert float((mine - wanted).norm() / wanted.norm()) < 1e-2  # bf16 keeps 8 bits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_varlen_attention_of_one_row_needs_no_starts() -> None:
    q, k, v = (t[:, :, :128].detach() for t in inputs("cuda", torch.bfloat16))
    one = torch.tensor([0, 128], dtype=torch.int32, device="cuda")
    with_starts = varlen_attention(MODULE, q, k, v, None, cu_seq_lens_q=one, max_length_q=128)[0]
    assert torch.equal(varlen_attention(MODULE, q, k, v, None)[0], with_starts)


def test_varlen_attention_refuses_dropout_of_attention_weights() -> None:
    q, k, v = inputs("cpu", torch.float32)
    with pytest.raises(ValueError, match=r"0\.1"):
        varlen_attention(MODULE, q, k, v, None, dropout=0.1)
