"""The models of a replica: loaded by name, promoted and rolled back under way, let go when idle.

    models = Models(Settings(slots=32))
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
from typing import Any, Literal

import torch
from pydantic import Field

from lima_ray import example
from lima_ray.config import Section, durable, resolve
from lima_ray.engine import Engine
from lima_ray.errors import UserError
from lima_ray.generate import name_of
from lima_ray.lineage import check_base, hash_base
from lima_ray.run import Run
from lima_ray.web.requests import HttpError
from serve.engines.engine_loop import EngineLoop
from serve.engines.vllm_loop import VllmEngine, VllmLoop
from serve.engines.vllm_process import on_this_node

LOADING_RETRY_S = 3
SHOWN_EXAMPLES = 4
LONGEST_EXAMPLE = 200
OWNER = "lima_ray"
AnyEngine = Engine | VllmEngine
log = logging.getLogger("ray.serve")


class Settings(Section):
    """How a replica serves its models."""

    slots: int = Field(default=32, ge=1)
    """Replies that each model decodes at once."""
    queue: int = Field(default=64, ge=0)
    """Requests of each model that may wait for a slot; more are answered 429."""
    keep_loaded: int = Field(default=3, ge=1)
    """Models held in memory; beyond that the one idle for longest is let go. The default stays, and
    so does the newest."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of a replica; 0 takes the machine's cores."""
    stream_every_s: float = Field(default=0.1, ge=0)
    """Time between two pieces of a stream, but for the first and the last; 0 sends each token by
    itself, which takes a third of a busy CPU."""
    stuck_after_s: float = Field(default=120, gt=0)
    """A decoding step that takes longer counts as hung, and the replica is replaced."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of a replica; with vLLM, of each model in memory. 0 decodes on the CPU."""
    engine: Literal["slots", "vllm"] = "slots"
    """slots is our own; vllm runs vLLM's server, in an environment of its own."""
    vllm_packages: str = "vllm==0.33.0"
    """What pip installs into vLLM's environment (Ray's runtime_env, once a node)."""
    vllm_python: str | None = None
    """Interpreter of an environment that has vLLM, instead of vllm_packages."""
    vllm_args: str = ""
    """Further flags of vLLM's server, such as "--dtype float32 --enforce-eager"."""


@dataclass(eq=False)
class Served:
    """A model in memory."""

    path: str
    revision: str
    loop: EngineLoop | VllmLoop
    loaded: int
    """When, in Unix seconds."""

    @property
    def engine(self) -> AnyEngine:
        """Its engine, for tokens and bounds."""
        assert self.loop.engine
        return self.loop.engine


@dataclass(eq=False)
class Entry:
    """A name, what it stands for, and what of it is in memory."""

    path: str
    served: Served | None = None
    loading: asyncio.Task[None] | None = None
    problem: str | None = None
    """Why the model at `path` is not loaded."""
    used_s: float = 0.0
    examples: list[str] = field(default_factory=list)


def catalogue(model: str | dict[str, str]) -> dict[str, str]:
    """Names and absolute paths of the models to serve, the default one first.

    A run (or the export in it) brings along its epochs, by `NAME-05`, and its base, by `base`.

    Args:
        model: a directory of a run or a model; several as `NAME=DIR,NAME=DIR`, or as a mapping.

    Raises:
        UserError: what is no model, and why.
    """
    if isinstance(model, str) and "=" in model:
        pairs = [pair.partition("=") for pair in model.split(",")]
        model = {name.strip(): path.strip() for name, _, path in pairs}
    if isinstance(model, dict):
        if not model or not all(model) or not all(model.values()):
            raise UserError(f"model is {model!r}; several models are given as NAME=DIR,NAME=DIR")
        paths = {name: model_at(path) for name, path in model.items()}
    else:
        path = model_at(model)
        paths = {name_of(path): path} | relatives(path)
    for path in paths.values():
        check_base(str(path))
    return {name: str(path) for name, path in paths.items()}


def model_at(reference: str) -> Path:
    """The directory of a model, which for a run is its export's."""
    path = resolve(reference) or durable(Path(reference))
    if not path.is_dir():
        raise UserError(f"no model at {reference}: {path} is no directory")
    if (path / "recipe.yaml").exists():
        path = path / "export"
        if not path.is_dir():
            raise UserError(f"{reference} has no export yet; training has not ended")
    return path


def relatives(path: Path) -> dict[str, Path]:
    """The other models of an export's run: its kept epochs and its base."""
    run = Run(path.parent)
    if path.name != "export" or not run.recipe_file.exists():
        return {}
    found = {name_of(run.epoch_dir(e)): run.epoch_dir(e) for e in run.kept_epochs()}
    base = resolve(run.recipe().model.base)
    return found | ({"base": base} if base else {})


class Models:
    """Names, and engines for those of them that are in use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.entries: dict[str, Entry] = {}
        self.draining: set[asyncio.Task[None]] = set()
        self.created = int(time.time())
        if settings.threads or not settings.gpus:
            torch.set_num_threads(settings.threads or cores())

    @property
    def default(self) -> str:
        """The name that is loaded first."""
        return next(iter(self.entries))

    @property
    def problem(self) -> str | None:
        """What is wrong with an engine in memory; a replica with one should be replaced."""
        loaded = [entry.served for entry in self.entries.values() if entry.served]
        return next((problem for s in loaded if (problem := s.loop.problem)), None)

    @property
    def ready(self) -> bool:
        """Whether the default model answers."""
        return bool(self.entries) and self.entries[self.default].served is not None

    async def configure(self, paths: dict[str, str]) -> None:
        """Serve these models, the first at once.

        At the first call this waits for it; later ones return while a changed model is loading.

        Raises:
            UserError: at the first call, the default model cannot be loaded.
        """
        before, first = self.entries, not self.entries
        self.entries = {name: before.get(name) or Entry(path) for name, path in paths.items()}
        for name, entry in before.items():
            if name not in paths and entry.served:
                self.retire(entry.served)
        for name, path in paths.items():
            entry = self.entries[name]
            stale = entry.served is not None and entry.path != path
            if entry.path != path:
                entry.path, entry.problem = path, None
            if stale or (name == self.default and entry.served is None):
                self.begin_loading(name, entry)
            entry.examples = examples_of(Path(path))
        borrowed = self.entries[self.default].examples
        for entry in self.entries.values():
            entry.examples = entry.examples or borrowed
        if first:
            entry = self.entries[self.default]
            assert entry.loading
            await entry.loading
            if entry.problem:
                raise UserError(entry.problem)

    async def get(self, name: str) -> Served:
        """The model of a name, in memory.

        Raises:
            HttpError: no such name; or it is being loaded, or cannot be.
        """
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

    def begin_loading(self, name: str, entry: Entry) -> None:
        """Load what an entry stands for, unless that is under way."""
        if entry.loading is None or entry.loading.done():
            entry.loading = asyncio.create_task(self.load(name, entry))

    async def load(self, name: str, entry: Entry) -> None:
        """Load an entry's model, again where another was named meanwhile, and let it take over."""
        path = ""
        while path != entry.path:
            path = entry.path
            served, problem = await self.loaded(name, path)
            if served and self.entries.get(name) is entry and entry.path == path:
                old, entry.served, entry.problem = entry.served, served, None
                if old:
                    self.retire(old)
                self.let_go(entry)
            elif served:
                self.retire(served)
            elif entry.path == path:
                entry.problem = problem
                log.error("%s stays as it was: %s", name, problem)

    async def loaded(self, name: str, path: str) -> tuple[Served | None, str | None]:
        """A model with a new engine, or why there is none."""
        try:
            revision = await asyncio.to_thread(hash_base, path)
            loop = self.loop_for(name, path)
            await loop.loaded()
        except Exception as error:
            return None, f"{name} cannot be loaded from {path}: {error}"
        return Served(path, revision, loop, int(time.time())), None

    def loop_for(self, name: str, path: str) -> EngineLoop | VllmLoop:
        """What will answer for a model, not loaded yet."""
        settings = self.settings
        if settings.engine == "slots":
            cpu = None if settings.gpus else torch.device("cpu")
            load = partial(Engine, Path(path), settings.slots, cpu)
            return EngineLoop(name, load, settings.queue, settings.stuck_after_s)
        process = on_this_node(settings.vllm_python, settings.vllm_packages.split(), settings.gpus)
        flags = shlex.split(settings.vllm_args)
        return VllmLoop(name, path, process, flags, settings.slots, settings.queue)

    def let_go(self, newest: Entry) -> None:
        """Drop models that are idle for longest, until no more than are to be kept are left."""
        others = [e for name, e in self.entries.items() if name != self.default]
        loaded = [(e, served) for e in others if (served := e.served)]
        idle = [(e, s) for e, s in loaded if e is not newest and not s.loop.in_flight]
        idle.sort(key=lambda pair: pair[0].used_s)
        for entry, served in idle[: max(0, len(loaded) + 1 - self.settings.keep_loaded)]:
            self.retire(served)
            entry.served = None

    def retire(self, served: Served) -> None:
        """Let a model finish its replies, then end its engine."""
        task = asyncio.create_task(served.loop.drain())
        self.draining.add(task)
        task.add_done_callback(self.draining.discard)

    def state(self) -> dict[str, dict[str, Any]]:
        """What each name stands for, and whether that is what answers (or would be loaded)."""
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
        """The models as GET /v1/models tells them."""
        return [self.listed(name, entry) for name, entry in self.entries.items()]

    def listed(self, name: str, entry: Entry) -> dict[str, Any]:
        """One model; `revision` and `max_model_len` are known once it is loaded."""
        served = entry.served
        loading = entry.loading is not None and not entry.loading.done()
        return {
            "id": name,
            "object": "model",
            "created": served.loaded if served else self.created,
            "owned_by": OWNER,
            "revision": served.revision if served else None,
            "max_model_len": served.engine.context if served else None,
            "steady": served.engine.steady if served else None,
            "default": name == self.default,
            "loaded": served is not None,
            "loading": loading,
            "problem": entry.problem,
            "examples": entry.examples,
        }


def examples_of(path: Path) -> list[str]:
    """Prompts to try on a model: the first of some sources of its run's test or dev rows.

    Anyone may read them, so they are never taken from the training rows.
    """
    run = next((Run(p) for p in path.parents[:2] if Run(p).recipe_file.exists()), None)
    if run is None:
        return []
    data = run.recipe().data
    prompts = data.test or data.dev
    if prompts is None:
        return []
    try:
        rows = example.read(prompts, "test", dialogues=False)
    except UserError:  # the rows need not be where the model is served
        return []
    short = [row for row in rows if len(row.prompt) <= LONGEST_EXAMPLE]
    by_source = {row.source: row.prompt for row in reversed(short)}
    prompts = [*reversed(by_source.values()), *(row.prompt for row in short)]
    return list(dict.fromkeys(prompts))[:SHOWN_EXAMPLES]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
