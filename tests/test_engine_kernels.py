"""The kernels in C: as PyTorch's formulas, in any company, and not there without a compiler."""

import ast
import multiprocessing
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import C_WORKS
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention
from torch.nn.functional import silu as torch_silu

from lima_ray.config import Sampling
from lima_ray.engine.cpu import kernels
from lima_ray.engine.cpu.kv_slots import LayerCache, prompt_attention
from lima_ray.engine.cpu.llama import KernelLayer
from lima_ray.engine.engine import Engine, Request
from lima_ray.layers import rotate

SHAPES = [(12, 12, 64), (12, 4, 64), (8, 1, 128), (5, 5, 80), (6, 2, 22), (3, 1, 8)]
"""Query heads, key heads and their width."""
CPUS = ("native", "haswell", "x86-64")
"""What the kernels are compiled for: the widest vectors here, AVX2's, and the narrowest."""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache folder, and kernels that are looked for anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.load.cache_clear()
    yield tmp_path / "lima_ray"
    kernels.load.cache_clear()


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for kernels of several CPUs."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=CPUS)
def cpu(
    request: pytest.FixtureRequest, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Kernels compiled for a CPU, where this one can run them."""
    if request.param != "native":
        if platform.machine() != "x86_64":
            pytest.skip(f"this CPU is no {request.param}")
        if request.param == "haswell" and "avx2" not in kernels.describe_cpu():
            pytest.skip("this CPU has no AVX2")
    flags = (f"-march={request.param}" if f.startswith("-march") else f for f in kernels.COMPILE)
    monkeypatch.setattr(kernels, "COMPILE", tuple(flags))
    monkeypatch.setenv("XDG_CACHE_HOME", str(compiled))
    kernels.load.cache_clear()
    yield request.param
    kernels.load.cache_clear()


class Case:
    """Rows of one token whose slots hold some already, with room for 300 or more."""

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
        self.angles = angles_CE.cos(), angles_CE.sin()

    def by_kernels(self, rows: torch.Tensor, batch: int = 0) -> torch.Tensor:
        """Attention of these rows, in this order."""
        places = self.slots_R[rows], self.starts_R[rows]
        queries = kernels.turn(
            self.qkv_R1F[rows].contiguous(), self.angles, *places, self.cache, self.heads
        )
        order = places[1].argsort(descending=True)
        read = int(places[1].sum()) + len(rows)
        return kernels.attend(queries, self.cache, *places, order, read, 0.3, batch or len(rows))

    def held(self) -> list[torch.Tensor]:
        """What the slots hold now."""
        return [slot_2GCE.clone() for slot_2GCE in self.cache.slots_2GCD]

    def by_torch(self, row: int) -> torch.Tensor:
        """The same of one row, by PyTorch; its slot is not touched."""
        slot, start = int(self.slots_R[row]), int(self.starts_R[row])
        qkv_1FE = self.qkv_R1F[row].unflatten(1, (-1, self.width))
        cos, sin = (part[start] for part in self.angles)
        turned = rotate(qkv_1FE[:, : self.heads + self.kv_heads], cos, sin, 1)[0]
        room_2GCE = self.cache.slots_2GCD[slot][:, :, : start + 1].clone()
        room_2GCE[0, :, start] = turned[self.heads :]
        room_2GCE[1, :, start] = qkv_1FE[0, self.heads + self.kv_heads :]
        queries_HTE = turned[: self.heads, None]
        keys_GCE, values_GCE = room_2GCE
        return scaled_dot_product_attention(
            queries_HTE, keys_GCE, values_GCE, scale=0.3, enable_gqa=True
        ).flatten()


@C_WORKS
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("ins", "outs"), [(1, 1), (7, 47), (64, 48), (100, 100), (770, 300)])
def test_a_product_is_that_of_pytorch_and_feels_neither_neighbours_nor_threads(
    ins: int, outs: int, bias: bool, cpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x_BTD, weight_ND = torch.randn(3, 9, ins), torch.randn(outs, ins)
    bias_N = torch.randn(outs) if bias else None
    weights = kernels.pack(weight_ND.T.contiguous().T, bias_N)
    whole_BTN = kernels.multiply(x_BTD, weights)
    expected_BTN = linear(
        x_BTD.double(), weight_ND.double(), None if bias_N is None else bias_N.double()
    )
    torch.testing.assert_close(whole_BTN.double(), expected_BTN, atol=1e-4, rtol=1e-5)
    monkeypatch.setattr(kernels, "WORTH_THREADS_PRODUCTS", 1)
    for threads in (1, 2, 3):
        monkeypatch.setattr(kernels, "threads_allowed", lambda threads=threads: threads)
        assert torch.equal(kernels.multiply(x_BTD, weights), whole_BTN)
        for rows in range(1, 18):
            few_1TD = x_BTD.flatten(0, 1)[None, 27 - rows :]
            expected_TN = whole_BTN.flatten(0, 1)[27 - rows :]
            assert torch.equal(kernels.multiply(few_1TD, weights)[0], expected_TN)
    assert torch.equal(kernels.multiply(x_BTD.transpose(0, 1), weights), whole_BTN.transpose(0, 1))


@C_WORKS
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_that_of_pytorch(shape: tuple[int, int, int], cpu: str) -> None:
    case = Case(*shape)
    expected_RF = torch.stack([case.by_torch(row) for row in range(9)])
    found_B1F = case.by_kernels(torch.arange(9), batch=16)
    torch.testing.assert_close(found_B1F[:9, 0], expected_RF, atol=3e-5, rtol=1e-5)
    assert not found_B1F[9:].any()


@C_WORKS
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_of_attention_feels_neither_neighbours_nor_threads(
    shape: tuple[int, int, int], cpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(*shape)
    monkeypatch.setattr(kernels, "WORTH_THREADS", 1)
    whole_R1F = case.by_kernels(torch.arange(9))
    held = case.held()
    for threads in (1, 2, 3):
        monkeypatch.setattr(kernels, "threads_allowed", lambda threads=threads: threads)
        for rows in ([8], [0, 8, 3], list(range(8, -1, -1))):
            assert torch.equal(case.by_kernels(torch.tensor(rows)), whole_R1F[rows])
        assert all(map(torch.equal, case.held(), held))


@C_WORKS
@pytest.mark.parametrize(("tokens", "start"), [(1, 0), (70, 0), (70, 40)])
def test_a_prompt_is_turned_into_its_slot(tokens: int, start: int) -> None:
    case = Case(6, 2, 22)
    held = case.held()
    qkv_1TF = torch.randn(1, tokens, 10 * 22)
    queries_1THE = kernels.turn(
        qkv_1TF, case.angles, torch.tensor([4]), torch.tensor([start]), case.cache, 6
    )
    qkv_1TFE = qkv_1TF.unflatten(2, (-1, 22))
    cos, sin = (part[start : start + tokens, None] for part in case.angles)
    turned_1TFE = rotate(qkv_1TFE[:, :, :8], cos, sin, 1)
    torch.testing.assert_close(queries_1THE, turned_1TFE[:, :, :6])
    held[4][0, :, start : start + tokens] = turned_1TFE[0, :, 6:].transpose(0, 1)
    held[4][1, :, start : start + tokens] = qkv_1TFE[0, :, 8:].transpose(0, 1)
    torch.testing.assert_close(case.held(), held)


@C_WORKS
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_of_a_prompt_is_that_of_pytorch_however_many_threads(
    shape: tuple[int, int, int], cpu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(*shape)
    heads, _, width = shape
    for tokens, start in ((1, 0), (2, 62), (64, 0), (65, 64), (130, 63), (200, 100)):
        queries_1THE = torch.randn(1, tokens, heads, width)
        keys_1GCE, values_1GCE = case.cache.views[5]
        expected_1THE = prompt_attention(
            queries_1THE.transpose(1, 2), keys_1GCE, values_1GCE, start, 0.3
        )
        # What follows in the slot is another request's, and may be anything.
        keys_1GCE[:, :, start + tokens :] = values_1GCE[:, :, start + tokens :] = float("nan")
        found = []
        for threads in (1, 2, 3):
            monkeypatch.setattr(kernels, "threads_allowed", lambda threads=threads: threads)
            found.append(kernels.attend_prompt(queries_1THE, case.cache, 5, start, 0.3))
        torch.testing.assert_close(found[0], expected_1THE.flatten(2), atol=3e-5, rtol=1e-5)
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
        case.cache.slots_2GCD[5].normal_()


@C_WORKS
@pytest.mark.parametrize("size", [1, 15, 16, 100, 768])
def test_norm_of_a_sum(size: int, cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x_B1D, y_B1D, weight_D = (
        torch.randn(33, 1, size) * 5,
        torch.randn(33, 1, size),
        torch.randn(size),
    )
    sum_B1D = x_B1D + y_B1D
    expected_B1D = rms_norm(sum_B1D, (size,), weight_D, 1e-6)
    whole_B1D = kernels.add_norm(x_B1D.clone(), y_B1D, weight_D, 1e-6)
    torch.testing.assert_close(whole_B1D, expected_B1D, atol=1e-5, rtol=1e-5)
    assert torch.equal(kernels.add_norm(sum_B1D, None, weight_D, 1e-6), whole_B1D)
    monkeypatch.setattr(kernels, "WORTH_THREADS", 1)
    monkeypatch.setattr(kernels, "threads_allowed", lambda: 2)
    assert torch.equal(kernels.add_norm(x_B1D.clone(), y_B1D, weight_D, 1e-6), whole_B1D)
    assert torch.equal(kernels.add_norm(x_B1D[9:10], y_B1D[9:10], weight_D, 1e-6), whole_B1D[9:10])
    assert torch.equal(x_B1D[9], sum_B1D[9])


@C_WORKS
@pytest.mark.parametrize("size", [1, 15, 16, 100, 2048])
def test_silu_of_the_gate_times_up(size: int, cpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    both_B1M = torch.randn(33, 1, 2 * size) * 10
    both_B1M[3, 0, 0], both_B1M[4, 0, 0] = -1000, 1000
    whole_B1M = kernels.silu_mul(both_B1M)
    expected_B1M = torch_silu(both_B1M[..., :size]) * both_B1M[..., size:]
    torch.testing.assert_close(whole_B1M, expected_B1M, atol=1e-6, rtol=1e-5)
    monkeypatch.setattr(kernels, "WORTH_THREADS", 1)
    monkeypatch.setattr(kernels, "threads_allowed", lambda: 2)
    assert torch.equal(kernels.silu_mul(both_B1M), whole_B1M)
    assert torch.equal(kernels.silu_mul(both_B1M[9:10]), whole_B1M[9:10])


@C_WORKS
def test_an_engine_takes_the_kernels_unless_told_otherwise(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [[3 + i, 50, 7 * i + 20] * (i + 1) for i in range(12)]
    greedy = Sampling(temperature=0, max_tokens=90)
    requests = [Request(str(i), row, greedy) for i, row in enumerate(ids)]

    def replies(by_kernels: bool) -> dict[str, Any]:
        engine = Engine(base_dir, slots=9)
        assert engine.steady
        layers = engine.model.get_decoder().layers
        assert all(isinstance(layer, KernelLayer) == by_kernels for layer in layers)
        return {reply.id: reply for reply in engine.generate(requests)}

    mine = replies(True)
    monkeypatch.setenv("LIMA_KERNELS", "0")
    assert replies(False) == mine


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false"])
def test_without_a_compiler_there_are_no_kernels(
    compiler: str,
    base_dir: Path,
    fresh: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CC", compiler)
    monkeypatch.delenv("LIMA_KERNELS", raising=False)
    assert not kernels.available()
    assert "PyTorch's slower operations are used" in caplog.text
    engine = Engine(base_dir, slots=2)
    assert not isinstance(engine.model.get_decoder().layers[0], KernelLayer)
    (reply,) = engine.generate([Request("a", [5, 6], Sampling(max_tokens=9))])
    assert reply.ids
    assert not list(fresh.glob("*"))


@C_WORKS
def test_processes_that_compile_at_once_make_one_file(fresh: Path) -> None:
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=compile_kernels) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0]
    (file,) = fresh.iterdir()
    made = file.stat().st_mtime_ns
    assert kernels.available()
    assert file.stat().st_mtime_ns == made


def compile_kernels() -> None:
    """In a process of its own."""
    assert kernels.available()


@C_WORKS
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_threads_are_those_of_pytorch() -> None:
    script = (
        "from lima_ray.engine.cpu import kernels\n"
        "assert kernels.available()\n"
        "maps = open('/proc/self/maps').read().splitlines()\n"
        "print({m.split()[-1] for m in maps if 'libgomp' in m or 'libiomp' in m})\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert len(ast.literal_eval(out.stdout)) == 1
