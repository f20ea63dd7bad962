"""The API over real engines, on a real socket of the loopback, in a thread of this process."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import uvicorn
from browser import free_port
from transformers import AutoModelForCausalLM

from lima_ray.data.tokenizer import eot_id, load_tokenizer
from lima_ray.model.loading import add_tokens, save_tokenizer_and_config
from lima_ray.web.limits import RequestLimit
from serve.api.routes import build_api
from serve.engines.engine_loop import EngineLoop
from serve.engines.pool import ModelPool
from serve.engines.settings import EngineSettings

START_S = 60.0


@dataclass
class Hosted:
    """A server under test."""

    url: str
    models: ModelPool
    loop: asyncio.AbstractEventLoop
    headers: dict[str, str] = field(default_factory=dict)

    def engine_loop(self, name: str | None = None) -> EngineLoop:
        """The loop of a model in memory, the default one without a name."""
        served = self.models.entries[name or self.models.default].served
        assert served and isinstance(served.loop, EngineLoop)
        return served.loop

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(START_S)

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=60, **options)


@contextmanager
def hosted(
    paths: Mapping[str, Path | str],
    keys: frozenset[str] = frozenset(),
    body_bytes: int = 2**20,
    of_client: int = 10_000,
    names: frozenset[str] | None = None,
    start_s: float = START_S,
    **settings: Any,
) -> Iterator[Hosted]:
    """Serve models until the block ends, as a replica does."""
    port, started = free_port(), threading.Event()
    found: dict[str, Any] = {}

    async def main() -> None:
        limits = {"/v1": RequestLimit("the API", 10_000, of_client, body_bytes)}
        models = ModelPool(EngineSettings(**{"threads": 1, "slots": 4, **settings}))
        await models.configure({name: str(path) for name, path in paths.items()})
        config = uvicorn.Config(
            build_api(models, keys, limits, names=names),
            "127.0.0.1",
            port,
            lifespan="off",
            log_level="critical",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        found.update(models=models, loop=asyncio.get_running_loop(), server=server)
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        started.set()
        await serving
        for entry in models.entries.values():
            if entry.served:
                entry.served.loop.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(start_s), "the server does not start"
    try:
        yield Hosted(f"http://127.0.0.1:{port}", found["models"], found["loop"])
    finally:
        found["server"].should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server does not end"


def export(base: Path, path: Path, eot_scale: float = 1) -> Path:
    """A base as a run exports it, its EOT's row of the output layer scaled.

    Args:
        base: a model without EOT.
        path: the directory to write.
        eot_scale: how many times longer the row is; a long one makes EOT come soon.
    """
    tokenizer = load_tokenizer(str(base))
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    add_tokens(model, len(tokenizer))
    model.lm_head.weight.data[eot_id(tokenizer)] *= eot_scale
    model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(path)
    save_tokenizer_and_config(model, tokenizer, path, model.dtype)
    return path


def wait_until(holds: Callable[[], Any], timeout_s: float = 20, what: str = "") -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline, what or f"not true within {timeout_s:g} s"
        time.sleep(0.005)
    return found
