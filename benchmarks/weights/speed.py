"""Tokens a second of the engine in each format, and of `generate`, in turn in one process."""

import gc
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bare import engine_of, generate_of
from benchmarks.load import Ask, measures
from lima_ray.config.sections import WeightFormat
from lima_ray.engine.cpu.linear import KernelLinear
from lima_ray.engine.engine import Engine

PROMPT = "The history of the city number {} begins with a river, a market and a wall that"


def speeds(
    model: Path,
    formats: tuple[WeightFormat, ...],
    at_once: tuple[int, ...],
    rounds: int,
    tokens: int,
) -> Iterator[str]:
    """Yield a line for each contender, the engine's with the memory of its weights."""
    contenders: dict[str, Any] = {}
    for name in formats:
        engine = Engine(model, slots=max(at_once), weights=name)
        size = weight_bytes(engine.model) / 2**20
        contenders[f"engine, {name}, {size:.0f} MiB"] = engine_of(engine)
        gc.collect()  # of the model that the layers were packed from
    contenders["transformers' generate, fp32, one by one"] = generate_of(model)
    figures: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for number in range(rounds + 1):  # the first warms up
        for name, answer in contenders.items():
            for count in at_once:
                asks = [Ask(PROMPT.format(n), 0, tokens) for n in range(count)]
                if "generate" in name:
                    asks = asks[:1]  # more at once are one after another
                before_s = time.process_time()
                found = measures(asks, answer(asks, count))
                found["per_cpu_s"] = found["tokens"] / (time.process_time() - before_s)
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


def weight_bytes(model: Any) -> int:
    """Return the memory of an engine's linear layers and its table of embeddings."""
    packed = [m.packed for m in model.modules() if isinstance(m, KernelLinear)]
    tensors = [t for p in packed for t in (p.panels, p.scales) if t is not None]
    return sum(t.nbytes for t in (*tensors, model.get_input_embeddings().weight))
