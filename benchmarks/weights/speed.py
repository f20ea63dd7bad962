"""Tokens a second of the engine in each format, of `generate` and of llama.cpp, in turn."""

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import servers
from benchmarks.bare import engine_of, generate_of
from benchmarks.load import Answer, Ask, body, measures, send_all
from lima_ray.config.sections import WeightFormat
from lima_ray.engine.cpu.linear import KernelLinear
from lima_ray.engine.engine import Engine

PROMPT = "The history of the city number {} begins with a river, a market and a wall that"


@dataclass(frozen=True)
class Contender:
    answer: Callable[[list[Ask], int], list[Answer]]
    """Answers so many requests, so many of them at once."""
    cpu_s: Callable[[], float] = time.process_time
    one_by_one: bool = False
    """More at once are one after another."""


def speeds(
    model: Path,
    formats: tuple[WeightFormat, ...],
    at_once: tuple[int, ...],
    rounds: int,
    tokens: int,
    llama_server: Path | None = None,
    gguf: tuple[Path, ...] = (),
) -> Iterator[str]:
    """Yield a line for each contender, with the memory of its weights.

    Args:
        model: directory of a Llama.
        llama_server: llama.cpp's server, which answers over HTTP.
        gguf: files of the same model for it.
    """
    contenders: dict[str, Contender] = {}
    figures: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    with ExitStack() as running:
        for name in formats:
            engine = Engine(model, slots=max(at_once), weights=name)
            size = weight_bytes(engine.model) / 2**20
            contenders[f"engine, {name}, {size:.0f} MiB"] = Contender(engine_of(engine))
            gc.collect()  # of the model that the layers were packed from
        generate = Contender(generate_of(model), one_by_one=True)
        contenders["transformers' generate, fp32, one by one"] = generate
        for file in gguf:
            if not llama_server:
                raise SystemExit("--gguf needs --llama_server, which reads them")
            port = servers.free_port()
            server = servers.llama(llama_server, file.absolute(), port)
            log = file.with_suffix(".log")
            up = running.enter_context(servers.running(server, port, log, gpu=False))
            name = f"llama.cpp, {file.stem}, {file.stat().st_size / 2**20:.0f} MiB"
            contenders[name] = Contender(asking(up), up.cpu_s)
        for number in range(rounds + 1):  # the first warms up
            for name, contender in contenders.items():
                for count in at_once:
                    asks = [Ask(PROMPT.format(n), 0, tokens) for n in range(count)]
                    asks = asks[:1] if contender.one_by_one else asks
                    before_s = contender.cpu_s()
                    found = measures(asks, contender.answer(asks, count))
                    if found["errors"]:
                        raise SystemExit(f"{name}: {found['errors'][0]}")
                    found["per_cpu_s"] = found["tokens"] / (contender.cpu_s() - before_s)
                    if number:
                        figures[name, count].append(found)
    for name in contenders:
        cells = []
        for count in at_once:
            speed, cpu = (
                median(f[k] for f in figures[name, count]) for k in ("tokens_per_s", "per_cpu_s")
            )
            cells.append(f"{count} at once {speed:,.0f} ({cpu:,.0f})")
        yield f"{name}: {', '.join(cells)}"


def asking(up: servers.Running) -> Callable[[list[Ask], int], list[Answer]]:
    """Requests to llama.cpp's server, which keeps no prompt of an earlier round."""

    def answer(asks: list[Ask], concurrency: int) -> list[Answer]:
        bodies = [body("bench", ask, False, {"cache_prompt": False}) for ask in asks]
        return asyncio.run(send_all(f"{up.url}/v1", "", bodies, concurrency, False, 300))

    return answer


def weight_bytes(model: Any) -> int:
    """Return the memory of an engine's linear layers and its table of embeddings."""
    packed = [m.packed for m in model.modules() if isinstance(m, KernelLinear)]
    tensors = [t for p in packed for t in (p.panels, p.scales) if t is not None]
    return sum(t.nbytes for t in (*tensors, model.get_input_embeddings().weight))
