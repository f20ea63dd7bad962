"""Ways to compute the same steps, the fastest first, and which of them fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.model.loading import choose_precision
from lima_ray.planning.hardware import Hardware
from lima_ray.planning.memory import Memory, plan_memory
from lima_ray.planning.sizes import ModelShape, RowLengths, largest_load
from lima_ray.training.zero import resolve_zero_stage

Verdict = Literal["fits", "tight", "does not fit", "unknown"]
TIGHT = 0.87
"""Of a worker's memory, what a plan that errs by 15 % may fill."""
BUDGETS = (16384, 8192, 4096, 2048)
BUSY = 8192
"""Tokens at once that keep a GPU busy: with 2,048 and no checkpointing one H200 computed LLaMA 7B a
third slower than with 16,384 and checkpointing (docs/benchmarks/README.md)."""
Point = dict[str, Any]
"""Fields of the recipe, by dotted name."""


@dataclass(frozen=True)
class Measured:
    """Three steps of a candidate."""

    peak_bytes: float
    """Of the worker that held most."""
    flops_per_s: float
    """Of one worker, recomputation not counted."""


@dataclass(frozen=True)
class Candidate:
    """A way to compute the steps, and what it takes."""

    recipe: Recipe
    """With every `auto` resolved."""
    precision: str
    """`bf16`, `mixed` or `fp32`."""
    memory: Memory
    has: float | None
    """Bytes that each worker's tensors can have; none where it is not known."""
    host_has: float | None
    """Bytes of a GPU node's own memory for each of its workers; none where it is not known."""
    measured: Measured | None = None
    """On such hardware, where it has been."""

    @property
    def peak(self) -> float:
        return self.measured.peak_bytes if self.measured else self.memory.peak

    @property
    def verdict(self) -> Verdict:
        if self.has is None:
            return "unknown"
        if self.peak > self.has or self.memory.host_bytes > (self.host_has or float("inf")):
            return "does not fit"
        return "fits" if self.measured or self.peak <= TIGHT * self.has else "tight"

    def flags(self, recipe: Recipe) -> str:
        """Return the flags that make another recipe compute in this way; none where it does."""
        said = []
        for name, value in self.recipe.train:
            if value == getattr(recipe.train, name):
                continue
            no = "no_" if value is False else ""
            said.append(f"--train.{no}{name}" + ("" if isinstance(value, bool) else f" {value}"))
        return " ".join(said)


def plan_candidates(
    recipe: Recipe, shape: ModelShape, rows: RowLengths | None, hardware: Hardware, free: list[str]
) -> list[Candidate]:
    """Plan the ways to compute a recipe's steps, the fastest first.

    Args:
        free: fields of the recipe that may be chosen; the others are kept.
    """
    candidates: list[Candidate] = []
    for way in ways(recipe, hardware.is_gpu):
        point = {name: value for name, value in way.items() if name in free}
        try:
            made = recipe.override(point)
        except UserError:  # such as to offload weights at a stage that the recipe keeps below 3
            continue
        found = plan_recipe(made, shape, rows, hardware)
        if found.recipe not in [one.recipe for one in candidates]:
            candidates.append(found)
    return candidates


def plan_recipe(
    recipe: Recipe, shape: ModelShape, rows: RowLengths | None, hardware: Hardware
) -> Candidate:
    """Plan a recipe as it is; of what is still `auto`, only the ZeRO stage is resolved."""
    workers, device = recipe.cluster.workers, hardware.device
    recipe = resolve_zero_stage(recipe, workers, device)
    precision = choose_precision(recipe, device)
    load = largest_load(recipe, rows, workers)
    return Candidate(
        recipe,
        precision,
        plan_memory(recipe, shape, load, hardware.is_gpu, precision),
        hardware.bytes_of_worker(workers),
        hardware.host_bytes_of_worker(workers) if hardware.is_gpu else None,
    )


def ways(recipe: Recipe, gpu: bool) -> Iterator[Point]:
    """Yield the fields of all ways, the fastest first.

    Recomputing costs a fifth of the time and ZeRO 3 its traffic between workers, so both come after
    what does without; small micro-batches come after both. Offloading, which is slowest, gains
    nothing on CPUs, where it is the same memory.
    """
    several = recipe.cluster.workers > 1
    budgets = [b for b in BUDGETS if b >= recipe.data.max_tokens] or [recipe.data.max_tokens]
    busy = [b for b in budgets if b >= BUSY] or budgets[:1]
    stages: list[int | str] = ["auto", *([3] if several else [])]
    plain = [(stage, False, False) for stage in stages]
    offloaded = [(stage, True, False) for stage in ((2, 3) if several else (2,))] * gpu
    for some in (busy, [b for b in budgets if b not in busy]):
        for checkpointing in (False, True) if some is busy else (True,):
            for stage, optimizer, params in plain:
                for budget in some:
                    yield point(stage, checkpointing, optimizer, params, budget)
    for optimizer_and_params in (offloaded, [(3, True, True)] * gpu):
        for checkpointing in (False, True):
            for stage, optimizer, params in optimizer_and_params:
                for budget in budgets:
                    yield point(stage, checkpointing, optimizer, params, budget)


def point(
    stage: int | str, checkpointing: bool, optimizer: bool, params: bool, budget: int
) -> Point:
    return {
        "train.zero_stage": stage,
        "train.activation_checkpointing": checkpointing,
        "train.offload_optimizer": optimizer,
        "train.offload_params": params,
        "train.tokens_per_micro_batch": budget,
    }


FIELDS = list(point(2, False, False, False, 0))
"""What may be chosen without changing what is learned."""


def choose(candidates: list[Candidate]) -> Candidate | None:
    """Return the fastest candidate that fits; a tight one where none fits with room to spare."""
    for verdict in ("fits", "tight"):
        found = next((one for one in candidates if one.verdict == verdict), None)
        if found:
            return found
    return None
