"""The models of a replica: loaded by name, promoted and rolled back under way, let go when idle.

    models = ModelPool(EngineSettings(slots=32))
    await models.configure(catalogue("runs/NAME/export"))
    served = await models.get("NAME")        # the engine's loop, its revision

The first model is loaded at once; others when they are first asked for, which refuses until they
are there (503, Retry-After). `configure` again promotes: a changed model is loaded beside the old
one, takes over between two requests, and the old one ends its replies. Where the new one cannot be
loaded the old one goes on, and the listing says why.
"""

import asyncio
import logging
import os
import shlex
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lima_ray.config.errors import UserError
from lima_ray.engine.engine import Engine
from lima_ray.records.lineage import hash_base
from lima_ray.web.requests import HttpError
from serve.engines.catalogue import examples_of, fetched_model
from serve.engines.engine_loop import EngineLoop
from serve.engines.settings import EngineSettings
from serve.engines.vllm_loop import VllmEngine, VllmLoop
from serve.engines.vllm_process import on_this_node

LOADING_RETRY_S = 3
OWNER = "lima_ray"
AnyEngine = Engine | VllmEngine
log = logging.getLogger("ray.serve")


@dataclass(eq=False)
class LoadedModel:
    path: str
    revision: str
    loop: EngineLoop | VllmLoop
    loaded: int
    """When, in Unix seconds."""

    @property
    def engine(self) -> AnyEngine:
        assert self.loop.engine
        return self.loop.engine


@dataclass(eq=False)
class PoolEntry:
    """A name, what it stands for, and what of it is in memory."""

    path: str
    served: LoadedModel | None = None
    loading: asyncio.Task[None] | None = None
    problem: str | None = None
    """Why the model at `path` is not loaded."""
    used_s: float = 0.0
    examples: list[str] = field(default_factory=list)


class ModelPool:
    """Names, and engines for those of them that are in use."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.entries: dict[str, PoolEntry] = {}
        self.draining: set[asyncio.Task[None]] = set()
        self.created = int(time.time())
        if settings.threads or not settings.gpus:
            torch.set_num_threads(settings.threads or cores())

    @property
    def default(self) -> str:
        """Return the name that is loaded first."""
        return next(iter(self.entries))

    @property
    def problem(self) -> str | None:
        """Return what is wrong with an engine in memory; the replica should then be replaced."""
        loaded = [entry.served for entry in self.entries.values() if entry.served]
        return next((problem for s in loaded if (problem := s.loop.problem)), None)

    @property
    def ready(self) -> bool:
        """Whether the default model answers."""
        return bool(self.entries) and self.entries[self.default].served is not None

    async def configure(self, paths: dict[str, str]) -> None:
        """Serve these models, the first at once.

        The first call waits for it, or refuses; later ones return while a changed model loads.
        """
        before, first = self.entries, not self.entries
        self.entries = {name: before.get(name) or PoolEntry(path) for name, path in paths.items()}
        for name, entry in before.items():
            if name not in paths and entry.served:
                self.drain_model(entry.served)
        for name, path in paths.items():
            entry = self.entries[name]
            stale = entry.served is not None and entry.path != path
            if entry.path != path:
                entry.path, entry.problem = path, None
            if stale or (name == self.default and entry.served is None):
                self.begin_loading(name, entry)
            entry.examples = await asyncio.to_thread(examples_of, path)
        borrowed = self.entries[self.default].examples
        for entry in self.entries.values():
            entry.examples = entry.examples or borrowed
        if first:
            entry = self.entries[self.default]
            assert entry.loading
            await entry.loading
            if entry.problem:
                raise UserError(entry.problem)

    async def get(self, name: str) -> LoadedModel:
        """Return the model of a name, in memory; HttpError while it is loading or cannot be."""
        entry = self.entries.get(name)
        if entry is None:
            known = ", ".join(self.entries)
            raise HttpError(
                404, f"no model {name!r} here; there are {known}", "model", "model_not_found"
            )
        entry.used_s = time.monotonic()
        if entry.served:
            return entry.served
        if entry.problem:
            problem, entry.problem = entry.problem, None
            raise HttpError(503, problem, "model", "model_unavailable")
        self.begin_loading(name, entry)
        raise HttpError(
            503,
            f"{name} is being loaded; try again in {LOADING_RETRY_S} s",
            "model",
            "model_loading",
            {"Retry-After": str(LOADING_RETRY_S)},
        )

    def begin_loading(self, name: str, entry: PoolEntry) -> None:
        """Load what an entry stands for, unless that is under way."""
        if entry.loading is None or entry.loading.done():
            entry.loading = asyncio.create_task(self.load(name, entry))

    async def load(self, name: str, entry: PoolEntry) -> None:
        """Load an entry's model, again where another was named meanwhile, and let it take over."""
        path = ""
        while path != entry.path:
            path = entry.path
            served, problem = await self.loaded(name, path)
            if served and self.entries.get(name) is entry and entry.path == path:
                old, entry.served, entry.problem = entry.served, served, None
                if old:
                    self.drain_model(old)
                self.evict_idle(entry)
            elif served:
                self.drain_model(served)
            elif entry.path == path:
                entry.problem = problem
                log.error("%s stays as it was: %s", name, problem)

    async def loaded(self, name: str, path: str) -> tuple[LoadedModel | None, str | None]:
        """Return a model with a new engine, or why there is none."""
        try:
            here = await asyncio.to_thread(fetched_model, path)
            revision = await asyncio.to_thread(hash_base, here)
            loop = self.loop_for(name, here)
            await loop.loaded()
        except Exception as error:
            return None, f"{name} cannot be loaded from {path}: {error}"
        return LoadedModel(path, revision, loop, int(time.time())), None

    def loop_for(self, name: str, path: str) -> EngineLoop | VllmLoop:
        settings = self.settings
        if settings.engine == "slots":
            cpu = None if settings.gpus else torch.device("cpu")
            load = partial(Engine, Path(path), settings.slots, cpu, settings.weights)
            return EngineLoop(name, load, settings.queue, settings.stuck_after_s)
        process = on_this_node(settings.vllm_python, settings.vllm_packages.split(), settings.gpus)
        flags = shlex.split(settings.vllm_args)
        return VllmLoop(name, path, process, flags, settings.slots, settings.queue)

    def evict_idle(self, newest: PoolEntry) -> None:
        """Evict models that are idle for longest, until no more than `keep_loaded` are left."""
        others = [e for name, e in self.entries.items() if name != self.default]
        loaded = [(e, served) for e in others if (served := e.served)]
        idle = [(e, s) for e, s in loaded if e is not newest and not s.loop.in_flight]
        idle.sort(key=lambda pair: pair[0].used_s)
        for entry, served in idle[: max(0, len(loaded) + 1 - self.settings.keep_loaded)]:
            self.drain_model(served)
            entry.served = None

    def drain_model(self, served: LoadedModel) -> None:
        """Let a model finish its replies, then end its engine."""
        task = asyncio.create_task(served.loop.drain())
        self.draining.add(task)
        task.add_done_callback(self.draining.discard)

    def state(self) -> dict[str, dict[str, Any]]:
        """Return what each name stands for, and whether that is what answers."""
        return {
            name: {
                "path": entry.path,
                "revision": entry.served.revision if entry.served else None,
                "settled": entry.served is None or entry.served.path == entry.path,
                "problem": entry.problem,
            }
            for name, entry in self.entries.items()
        }

    def listing(self) -> list[dict[str, Any]]:
        return [self.describe(name, entry) for name, entry in self.entries.items()]

    def describe(self, name: str, entry: PoolEntry) -> dict[str, Any]:
        """Return one model; `revision` and `max_model_len` are known once it is loaded."""
        served = entry.served
        loading = entry.loading is not None and not entry.loading.done()
        return {
            "id": name,
            "object": "model",
            "created": served.loaded if served else self.created,
            "owned_by": OWNER,
            "revision": served.revision if served else None,
            "max_model_len": served.engine.context if served else None,
            "batch_invariant": served.engine.batch_invariant if served else None,
            "default": name == self.default,
            "loaded": served is not None,
            "loading": loading,
            "problem": entry.problem,
            "examples": entry.examples,
        }


def cores() -> int:
    return len(os.sched_getaffinity(0))
