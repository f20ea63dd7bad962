"""The CPU's operations, in C and by PyTorch: plain formulas, batch-invariant, bounds checked."""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import C_WORKS
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention
from torch.nn.functional import silu as torch_silu

from lima_ray.config.sections import WeightFormat
from lima_ray.engine.cpu import compiler, kernels, reference
from lima_ray.engine.cpu.kv_layer import Batch, LayerCache
from lima_ray.engine.cpu.weights import HeldWeights
from lima_ray.model.cpu_layers import rotate

SHAPES = [(12, 12, 64), (12, 4, 64), (8, 1, 128), (5, 5, 80), (6, 2, 22), (3, 1, 8)]
"""Query heads, key heads and their width."""
CPUS = ("native", "haswell", "x86-64")
"""What the kernels are compiled for: the widest vectors here, AVX2's, and the narrowest."""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for kernels of several CPUs."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=[*CPUS, "reference"])
def operations(
    request: pytest.FixtureRequest, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The kernels compiled for a CPU, where this one can run them, or their reference."""
    if request.param == "reference":
        yield reference
        return
    if not compiler.available():
        pytest.skip("no C compiler, or LIMA_KERNELS=0")
    if request.param != "native":
        if platform.machine() != "x86_64":
            pytest.skip(f"this CPU is no {request.param}")
        if request.param == "haswell" and "avx2" not in compiler.describe_cpu():
            pytest.skip("this CPU has no AVX2")
    flags = (f"-march={request.param}" if f.startswith("-march") else f for f in compiler.COMPILE)
    monkeypatch.setattr(compiler, "COMPILE", tuple(flags))
    monkeypatch.setenv("XDG_CACHE_HOME", str(compiled))
    compiler.load.cache_clear()
    yield kernels
    compiler.load.cache_clear()


def share(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Make every operation worth so many threads."""
    for module in (kernels, reference):
        monkeypatch.setattr(module, "threads_allowed", lambda: threads)
    monkeypatch.setattr(kernels, "WORTH_THREADS", 1)
    monkeypatch.setattr(kernels, "WORTH_THREADS_PRODUCTS", 1)
    monkeypatch.setattr(reference, "WORTH_THREADS_KEYS", 1)


class LayerCase:
    """Sequences of one new token whose slots hold some already, with room for 300 or more."""

    def __init__(self, heads: int, kv_heads: int, width: int, rows: int = 9) -> None:
        torch.manual_seed(0)
        self.heads, self.kv_heads, self.width = heads, kv_heads, width
        capacities = [300 + 7 * slot for slot in range(rows + 3)]
        self.cache = LayerCache(capacities, kv_heads, width, torch.float32)
        for slot_2GCE in self.cache.slots_2GCD:
            slot_2GCE.normal_()
        self.slots_R = torch.randperm(rows + 3)[:rows]
        self.starts_R = torch.tensor([0, 1, 62, 63, 64, 65, 130, 200, 299])[:rows]
        self.qkv_R1F = torch.randn(rows, 1, (heads + 2 * kv_heads) * width) * 2
        angles_CE = torch.rand(300, width // 2) * 6
        self.angles_CE = torch.cat((angles_CE.cos(), angles_CE.sin()), dim=1)

    def attend(self, operations: Any, rows: torch.Tensor, size: int = 0) -> torch.Tensor:
        """Attention of these sequences, in this order."""
        batch = Batch.of(self.slots_R[rows].tolist(), self.starts_R[rows].tolist())
        qkv_B1F = self.qkv_R1F[rows].contiguous()
        queries = operations.rotate_into_slots(
            qkv_B1F, self.angles_CE, self.cache, batch, self.heads
        )
        return operations.attend(queries, self.cache, batch, 0.3, size or len(rows))

    def held(self) -> list[torch.Tensor]:
        return [slot_2GCE.clone() for slot_2GCE in self.cache.slots_2GCD]

    def by_torch(self, row: int) -> torch.Tensor:
        """The same of one sequence, by plain formulas; its slot is not touched."""
        slot, start = int(self.slots_R[row]), int(self.starts_R[row])
        qkv_1FE = self.qkv_R1F[row].unflatten(1, (-1, self.width))
        cos, sin = self.angles_CE[start].chunk(2)
        rotated = rotate(qkv_1FE[:, : self.heads + self.kv_heads], cos, sin, 1)[0]
        room_2GCE = self.cache.slots_2GCD[slot][:, :, : start + 1].clone()
        room_2GCE[0, :, start] = rotated[self.heads :]
        room_2GCE[1, :, start] = qkv_1FE[0, self.heads + self.kv_heads :]
        queries_HTE = rotated[: self.heads, None]
        keys_GCE, values_GCE = room_2GCE
        return scaled_dot_product_attention(
            queries_HTE, keys_GCE, values_GCE, scale=0.3, enable_gqa=True
        ).flatten()


@pytest.mark.parametrize("operations", CPUS, indirect=True)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("held_as", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(("ins", "outs"), [(1, 1), (7, 47), (64, 48), (100, 100), (770, 300)])
def test_a_product_is_that_of_pytorch_for_any_batch_and_threads(
    ins: int,
    outs: int,
    held_as: WeightFormat,
    bias: bool,
    operations: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    x_BTD, weight_ND = torch.randn(3, 9, ins), torch.randn(outs, ins)
    bias_N = torch.randn(outs) if bias else None
    held = HeldWeights.of(weight_ND.T.contiguous().T, held_as)
    weights, weight_ND = operations.pack(held, bias_N), held.widened()
    whole_BTN = operations.multiply(x_BTD, weights)
    in_fp32 = operations.pack(HeldWeights(weight_ND), bias_N)
    assert torch.equal(operations.multiply(x_BTD, in_fp32), whole_BTN)
    expected_BTN = linear(
        x_BTD.double(), weight_ND.double(), None if bias_N is None else bias_N.double()
    )
    torch.testing.assert_close(whole_BTN.double(), expected_BTN, atol=1e-4, rtol=1e-5)
    for threads in (1, 2, 3):
        share(monkeypatch, threads)
        assert torch.equal(operations.multiply(x_BTD, weights), whole_BTN)
        for rows in range(1, 18):
            few_1TD = x_BTD.flatten(0, 1)[None, 27 - rows :]
            expected_TN = whole_BTN.flatten(0, 1)[27 - rows :]
            assert torch.equal(operations.multiply(few_1TD, weights)[0], expected_TN)
    assert torch.equal(
        operations.multiply(x_BTD.transpose(0, 1), weights), whole_BTN.transpose(0, 1)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_that_of_pytorch(shape: tuple[int, int, int], operations: Any) -> None:
    case = LayerCase(*shape)
    expected_RF = torch.stack([case.by_torch(row) for row in range(9)])
    found_B1F = case.attend(operations, torch.arange(9), size=16)
    torch.testing.assert_close(found_B1F[:9, 0], expected_RF, atol=3e-5, rtol=1e-5)
    assert not found_B1F[9:].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_the_same_for_any_batch_and_threads(
    shape: tuple[int, int, int], operations: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = LayerCase(*shape)
    whole_R1F = case.attend(operations, torch.arange(9))
    held = case.held()
    for threads in (1, 2, 3):
        share(monkeypatch, threads)
        for rows in ([8], [0, 8, 3], list(range(8, -1, -1))):
            assert torch.equal(case.attend(operations, torch.tensor(rows)), whole_R1F[rows])
        assert all(map(torch.equal, case.held(), held))


@pytest.mark.parametrize(("tokens", "start"), [(1, 0), (70, 0), (70, 40)])
def test_a_prompt_is_rotated_into_its_slot(tokens: int, start: int, operations: Any) -> None:
    case = LayerCase(6, 2, 22)
    held = case.held()
    qkv_1TF = torch.randn(1, tokens, 10 * 22)
    batch = Batch.of([4], [start])
    queries_1THE = operations.rotate_into_slots(qkv_1TF, case.angles_CE, case.cache, batch, 6)
    qkv_1TFE = qkv_1TF.unflatten(2, (-1, 22))
    cos, sin = case.angles_CE[start : start + tokens, None].chunk(2, dim=-1)
    rotated_1TFE = rotate(qkv_1TFE[:, :, :8], cos, sin, 1)
    torch.testing.assert_close(queries_1THE, rotated_1TFE[:, :, :6])
    held[4][0, :, start : start + tokens] = rotated_1TFE[0, :, 6:].transpose(0, 1)
    held[4][1, :, start : start + tokens] = qkv_1TFE[0, :, 8:].transpose(0, 1)
    torch.testing.assert_close(case.held(), held)


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_of_a_prompt_is_that_of_pytorch_however_many_threads(
    shape: tuple[int, int, int], operations: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = LayerCase(*shape)
    heads, _, width = shape
    for tokens, start in ((1, 0), (2, 62), (64, 0), (65, 64), (130, 63), (200, 100)):
        queries_1THE = torch.randn(1, tokens, heads, width)
        keys_1GCE, values_1GCE = case.cache.views[5]
        batch = Batch.of([5], [start])
        expected_1TF = plain_prompt_attention(queries_1THE, keys_1GCE, values_1GCE, start)
        # What follows in the slot is another request's, and may be anything.
        keys_1GCE[:, :, start + tokens :] = values_1GCE[:, :, start + tokens :] = float("nan")
        found = []
        for threads in (1, 2, 3):
            share(monkeypatch, threads)
            found.append(operations.attend_prompt(queries_1THE, case.cache, batch, 0.3))
        torch.testing.assert_close(found[0], expected_1TF, atol=3e-5, rtol=1e-5)
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
        case.cache.slots_2GCD[5].normal_()


def plain_prompt_attention(
    queries_1THE: torch.Tensor, keys_1GCE: torch.Tensor, values_1GCE: torch.Tensor, start: int
) -> torch.Tensor:
    """Attention (1, T, H · E) of each token to those up to it, one by one."""
    outputs = []
    for token, query_1HE in enumerate(queries_1THE.unbind(1)):
        end = start + token + 1
        outputs.append(
            scaled_dot_product_attention(
                query_1HE[:, :, None],
                keys_1GCE[:, :, :end],
                values_1GCE[:, :, :end],
                scale=0.3,
                enable_gqa=True,
            ).flatten(1)
        )
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("size", [1, 15, 16, 100, 768])
def test_norm_of_a_sum(size: int, operations: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x_B1D, y_B1D, weight_D = (
        torch.randn(33, 1, size) * 5,
        torch.randn(33, 1, size),
        torch.randn(size),
    )
    sum_B1D = x_B1D + y_B1D
    expected_B1D = rms_norm(sum_B1D, (size,), weight_D, 1e-6)
    whole_B1D = operations.add_norm(x_B1D.clone(), y_B1D, weight_D, 1e-6)
    torch.testing.assert_close(whole_B1D, expected_B1D, atol=1e-5, rtol=1e-5)
    assert torch.equal(operations.add_norm(sum_B1D, None, weight_D, 1e-6), whole_B1D)
    share(monkeypatch, 2)
    assert torch.equal(operations.add_norm(x_B1D.clone(), y_B1D, weight_D, 1e-6), whole_B1D)
    assert torch.equal(
        operations.add_norm(x_B1D[9:10], y_B1D[9:10], weight_D, 1e-6), whole_B1D[9:10]
    )
    assert torch.equal(x_B1D[9], sum_B1D[9])


@pytest.mark.parametrize("size", [1, 15, 16, 100, 2048])
def test_silu_of_the_gate_times_up(
    size: int, operations: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    both_B1M = torch.randn(33, 1, 2 * size) * 10
    both_B1M[3, 0, 0], both_B1M[4, 0, 0] = -1000, 1000
    whole_B1M = operations.silu_mul(both_B1M)
    expected_B1M = torch_silu(both_B1M[..., :size]) * both_B1M[..., size:]
    torch.testing.assert_close(whole_B1M, expected_B1M, atol=1e-6, rtol=1e-5)
    share(monkeypatch, 2)
    assert torch.equal(operations.silu_mul(both_B1M), whole_B1M)
    assert torch.equal(operations.silu_mul(both_B1M[9:10]), whole_B1M[9:10])


@C_WORKS
def test_what_c_cannot_read_is_refused() -> None:
    x_B1D, weight_D = torch.randn(4, 1, 16), torch.randn(16)
    refused = "the kernel was given"
    for strange in (x_B1D.double(), x_B1D.bfloat16(), x_B1D.expand(4, 3, 16), x_B1D.to("meta")):
        with pytest.raises(ValueError, match=f"{refused} {strange.dtype} on {strange.device}.*"):
            kernels.add_norm(strange, None, weight_D, 1e-6)
    with pytest.raises(ValueError, match=r"shape \(3, 1, 16\).* of shape \(4, 1, 16\)"):
        kernels.add_norm(x_B1D, x_B1D[:3], weight_D, 1e-6)
    with pytest.raises(ValueError, match=r"strides \(32, 32, 1\)"):
        kernels.silu_mul(torch.randn(4, 1, 32)[..., :16])
    with pytest.raises(ValueError, match=refused):
        kernels.pack(HeldWeights(torch.randn(8, 16).half()), None)
    with pytest.raises(ValueError, match="int8 without scales"):
        kernels.pack(HeldWeights(torch.ones(8, 16, dtype=torch.int8)), None)
    with pytest.raises(ValueError, match=r"shape \(8, 2\).* of shape \(8, 1\)"):
        kernels.pack(HeldWeights(torch.ones(8, 16, dtype=torch.int8), torch.ones(8, 2)), None)
    weights = kernels.pack(HeldWeights(torch.randn(8, 16)), None)
    with pytest.raises(ValueError, match="given 15 inputs; the weights take 16"):
        kernels.multiply(x_B1D[..., :15], weights)
    with pytest.raises(ValueError, match=refused):
        kernels.multiply(x_B1D.double(), weights)


@C_WORKS
def test_attention_that_c_cannot_read_is_refused() -> None:
    case = LayerCase(6, 2, 22)
    batch, qkv_R1F = Batch.of([3, 4], [0, 7]), torch.randn(2, 1, 10 * 22)
    with pytest.raises(ValueError, match="given 1 sequences of 220 features; 2 of 6"):
        kernels.rotate_into_slots(qkv_R1F[:1], case.angles_CE, case.cache, batch, 6)
    with pytest.raises(ValueError, match="given 2 sequences of 198 features"):
        kernels.rotate_into_slots(qkv_R1F[..., :198], case.angles_CE, case.cache, batch, 6)
    for strange in (case.angles_CE.T, case.angles_CE[:, 1:], case.angles_CE.double()):
        with pytest.raises(ValueError, match="the kernel was given torch"):
            kernels.rotate_into_slots(qkv_R1F, strange, case.cache, batch, 6)
    half = LayerCache([128] * 5, 2, 22, torch.bfloat16)
    with pytest.raises(ValueError, match=r"a KV cache of torch\.bfloat16"):
        kernels.rotate_into_slots(qkv_R1F, case.angles_CE, half, batch, 6)
    with pytest.raises(ValueError, match="shape"):
        kernels.attend(torch.randn(3, 1, 6, 22), case.cache, batch, 0.3, 3)
    with pytest.raises(ValueError, match="strides"):
        kernels.attend(torch.randn(2, 1, 22, 6).transpose(2, 3), case.cache, batch, 0.3, 2)
    with pytest.raises(ValueError, match="shape"):
        kernels.attend_prompt(torch.randn(1, 9, 6, 20), case.cache, Batch.of([3], [0]), 0.3)
