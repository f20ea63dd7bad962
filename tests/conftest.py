"""A tiny random base and real files, shared by all tests; nothing is downloaded."""

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "")

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import ray
import torch
from torch import distributed as dist

from benchmarks.local_servers.chat_server import ChatServer, serving
from lima_ray import base
from lima_ray.config.paths import PACKAGE
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.data.examples import write_examples
from lima_ray.engine.cpu import compiler
from lima_ray.records.example import Example

if TYPE_CHECKING:
    from served import Hosted

    from lima_ray.engine.engine import Engine

WORDS = ("the", "cat", "sun", "reads", "moon", "writes", "slowly", "green", "river", "why", "how")
C_WORKS = pytest.mark.skipif(not compiler.available(), reason="no C compiler, or LIMA_KERNELS=0")


def dialogues(count: int, seed: int = 0, longest: int = 40) -> list[Example]:
    """Random dialogues of one to three exchanges, lengths spread as real ones are."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        turns = 2 * int(generator.integers(1, 4))
        sizes = generator.integers(2, longest, turns)
        texts = [" ".join(generator.choice(WORDS, n)) + f" {number}." for n in sizes]
        rows.append(Example(tuple(texts), id=f"row-{number}", source="words"))
    return rows


@contextmanager
def ray_cluster(cpus: int) -> Iterator[None]:
    """A Ray cluster on this machine's loopback, with so many logical CPUs."""
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """A process group of this process alone; DeepSpeed remembers the first that it saw."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_RANK", "0")
        yield
    dist.destroy_process_group()


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_examples(dialogues(24), path)
    return path


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory, data_file: Path) -> Path:
    """A random Llama of three layers with grouped-query attention and 320 tokens."""
    path = tmp_path_factory.mktemp("base")
    base.build(str(data_file), path, hidden=64, layers=3, heads=4, kv_heads=2, vocab=320)
    return path


@pytest.fixture(scope="module")
def engine(base_dir: Path) -> "Engine":
    from lima_ray.engine.engine import Engine

    return Engine(base_dir, slots=4)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A second thread only waits for models as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def recipe(tmp_path: Path, base_dir: Path, data_file: Path) -> Recipe:
    """A quick run of the tiny base: three epochs of three steps."""
    tree = {
        "name": "tiny",
        "runs_dir": str(tmp_path),
        "data": {"train": str(data_file), "max_tokens": 256},
        "model": {"base": str(base_dir)},
        "optim": {"epochs": 3, "batch_examples": 8, "learning_rate": 1e-3},
        "train": {"tokens_per_micro_batch": 512, "precision": "fp32"},
        "checkpoint": {"weights_from_epoch": 1},
        "cluster": {"cpus_per_worker": 1, "device": "cpu"},
    }
    return validate_recipe(tree)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """A server that answers unless it is told otherwise."""
    with serving(ChatServer()) as running:
        yield running


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever key the machine has is not sent."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="session")
def long_dir(tmp_path_factory: pytest.TempPathFactory, data_file: Path) -> Path:
    """A tiny export of 8192 tokens' context whose greedy replies last until it ends."""
    from served import export

    path = tmp_path_factory.mktemp("long")
    base.build(str(data_file), path / "base", hidden=64, layers=2, vocab=320, context=8192)
    return export(path / "base", path / "export", eot_scale=0)


@pytest.fixture(scope="session")
def brief_dir(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base as a run exports it, with EOT made likely."""
    from served import export

    return export(base_dir, tmp_path_factory.mktemp("brief"), eot_scale=30)


@pytest.fixture(scope="session")
def talker_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature's base as a run exports it; it speaks English and never says EOT."""
    from served import export

    path = tmp_path_factory.mktemp("talker")
    return export(PACKAGE / "miniature" / "base", path)


@pytest.fixture(scope="session")
def host(talker_dir: Path, brief_dir: Path, long_dir: Path) -> "Iterator[Hosted]":
    """The API over three models, all loaded."""
    from served import hosted, wait_until

    paths = {"talker": talker_dir, "brief": brief_dir, "long": long_dir}
    with hosted(paths, queue=8) as host:
        for name, entry in host.models.entries.items():
            if not entry.served:
                host.loop.call_soon_threadsafe(host.models.begin_loading, name, entry)
            wait_until(lambda entry=entry: entry.served)
        yield host
