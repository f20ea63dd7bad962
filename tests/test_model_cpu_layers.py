"""The CPU layers equal those of `transformers`, forward and backward."""

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, rotate_half

from lima_ray.model.cpu_layers import Normalise, Rotate, apply_rotary

torch.manual_seed(0)


@pytest.mark.parametrize("heads", [1, 4])
def test_rotary_equals_the_plain_formula(heads: int) -> None:
    q = torch.randn(1, 7, heads, 16, dtype=torch.double).transpose(1, 2).requires_grad_()
    k = torch.randn(1, 2, 7, 16, dtype=torch.double, requires_grad=True)
    angle = torch.randn(1, 7, 8, dtype=torch.double).repeat(1, 1, 2)
    cos, sin = angle.cos(), angle.sin()
    ours = [Rotate.apply(x, cos[:, None], sin[:, None]) for x in (q, k)]
    plain = [x * cos[:, None] + rotate_half(x) * sin[:, None] for x in (q, k)]
    weights = [torch.randn_like(x) for x in plain]
    for x, mine, theirs, weight in zip((q, k), ours, plain, weights, strict=True):
        torch.testing.assert_close(mine, theirs)
        (gradient,) = torch.autograd.grad((mine * weight).sum(), x)
        (expected,) = torch.autograd.grad((theirs * weight).sum(), x)
        torch.testing.assert_close(gradient, expected)
    single = apply_rotary(q.float(), k.float(), cos.float(), sin.float())
    for mine, theirs in zip(single, plain, strict=True):
        torch.testing.assert_close(mine, theirs.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 5, 24), (3, 24), (2, 3, 1, 24)])
def test_rms_norm_equals_transformers(shape: tuple[int, ...]) -> None:
    norm = LlamaRMSNorm(24, eps=1e-5)
    norm.weight.data = torch.rand(24) + 0.5
    x = torch.randn(*shape, requires_grad=True)
    ours, plain = Normalise.apply(x, norm.weight, 1e-5), norm(x)
    torch.testing.assert_close(ours, plain)
    weight = torch.randn_like(plain)
    mine = torch.autograd.grad((ours * weight).sum(), (x, norm.weight))
    expected = torch.autograd.grad((plain * weight).sum(), (x, norm.weight))
    for a, b in zip(mine, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    double = (
        torch.randn(2, 6, dtype=torch.double, requires_grad=True),
        torch.rand(6, dtype=torch.double, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda x, weight: Normalise.apply(x, weight, 1e-5), double)
