"""The kernels' library: made once, by one compiler, switched off, or not there."""

import ast
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import C_WORKS

from lima_ray.config.sections import Sampling
from lima_ray.engine.cpu import compiler, kernels, reference
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Request


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache folder, and kernels that are looked for anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler.load.cache_clear()
    yield tmp_path / "lima_ray"
    compiler.load.cache_clear()


@C_WORKS
def test_an_engine_uses_the_kernels_unless_switched_off(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [[3 + i, 50, 7 * i + 20] * (i + 1) for i in range(12)]
    greedy = Sampling(temperature=0, context=90)
    requests = [Request(str(i), row, greedy) for i, row in enumerate(ids)]

    def replies(by_kernels: bool) -> dict[str, Any]:
        engine = Engine(base_dir, slots=9)
        assert engine.batch_invariant
        layers = engine.model.get_decoder().layers
        assert all((layer.operations is kernels) == by_kernels for layer in layers)
        return {reply.id: reply for reply in engine.generate(requests)}

    mine = replies(True)
    monkeypatch.setenv("LIMA_KERNELS", "0")
    assert replies(False) == mine


@pytest.mark.parametrize("command", ["/nowhere/cc", "false"])
def test_without_a_compiler_there_are_no_kernels(
    command: str,
    base_dir: Path,
    fresh: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CC", command)
    monkeypatch.delenv("LIMA_KERNELS", raising=False)
    assert not compiler.available()
    assert "PyTorch's slower operations are used" in caplog.text
    engine = Engine(base_dir, slots=2)
    assert engine.model.get_decoder().layers[0].operations is reference
    (reply,) = engine.generate([Request("a", [5, 6], Sampling(context=9))])
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
    assert compiler.available()
    assert file.stat().st_mtime_ns == made


def compile_kernels() -> None:
    """In a process of its own."""
    assert compiler.available()


@C_WORKS
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_threads_are_those_of_pytorch() -> None:
    script = (
        "from lima_ray.engine.cpu import compiler\n"
        "assert compiler.available()\n"
        "maps = open('/proc/self/maps').read().splitlines()\n"
        "print({m.split()[-1] for m in maps if 'libgomp' in m or 'libiomp' in m})\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert len(ast.literal_eval(out.stdout)) == 1
