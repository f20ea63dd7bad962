"""A plan: what a recipe does as it is, what would be faster or fit, and what `auto` stands for."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lima_ray.config.cluster import connect, wants_gpus
from lima_ray.config.errors import UserError
from lima_ray.config.paths import output_path
from lima_ray.config.recipe import Recipe
from lima_ray.data.rows import Rows
from lima_ray.planning.candidates import FIELDS, Candidate, choose, plan_candidates
from lima_ray.planning.cost import Disk, Duration, free_bytes, plan_disk, plan_duration
from lima_ray.planning.hardware import GIB, THIS_DEVICE, Hardware, cluster_hardware
from lima_ray.planning.measurement import with_measurement
from lima_ray.planning.sizes import ModelShape, RowLengths, read_shape
from lima_ray.training.zero import resolve_zero_stage

ERROR = 1.15
"""By how much a plan may be off; what needs more than that of what there is is refused."""
BUDGET = "train.tokens_per_micro_batch"


@dataclass(frozen=True)
class Plan:
    """Of one recipe on some hardware."""

    recipe: Recipe
    shape: ModelShape
    hardware: Hardware
    rows: RowLengths | None
    own: Candidate
    """The recipe as it would run, each `auto` resolved."""
    candidates: list[Candidate]
    """Other ways to compute the same steps, the fastest first."""
    fastest: Candidate | None
    """The first of them that fits; none where none does."""
    disk: Disk
    disk_free: int

    @property
    def workers(self) -> int:
        return self.recipe.cluster.workers

    def duration(self, candidate: Candidate) -> Duration | None:
        """Return how long the steps take; none where rows are not known."""
        if self.rows is None:
            return None
        return plan_duration(candidate, self.shape, self.rows, self.hardware)

    @property
    def verdict(self) -> str:
        """One line: whether the recipe fits as it is."""
        own, unit = self.own, "GPU" if self.hardware.is_gpu else "worker"
        each = f"on each of {self.workers} {unit}s" if self.workers > 1 else f"on one {unit}"
        if own.has is None:
            return f"{gib(own.peak)} GiB {each}; how much there is is not known"
        amount = f"{gib(own.peak)} of {gib(own.has)} GiB {each}"
        if own.memory.host_bytes > (own.host_has or float("inf")):
            host = f"{gib(own.memory.host_bytes)} of {gib(own.host_has or 0)} GiB of its node"
            return f"does not fit: {host} for each worker, {amount}"
        return f"{own.verdict}: {amount}"

    def as_json(self, dollars_per_gpu_hour: float | None) -> dict[str, Any]:
        """Return everything as plain values; bytes and seconds."""
        return {
            "recipe": self.recipe.name,
            "base": self.recipe.model.base,
            "parameters": self.shape.parameters,
            "trained": self.shape.trained,
            "hardware": asdict(self.hardware),
            "rows": self.rows and {"rows": len(self.rows), "source": self.rows.source},
            "verdict": self.verdict,
            "own": self._candidate(self.own, dollars_per_gpu_hour),
            "fastest": self.fastest and self._candidate(self.fastest, dollars_per_gpu_hour),
            "candidates": [self._candidate(one, dollars_per_gpu_hour) for one in self.candidates],
            "disk": asdict(self.disk) | {"most": self.disk.most, "free": self.disk_free},
        }

    def _candidate(self, one: Candidate, price: float | None) -> dict[str, Any]:
        took = self.duration(one)
        return {
            "verdict": one.verdict,
            "flags": one.flags(self.recipe),
            "train": one.recipe.train.model_dump(),
            "peak_bytes": one.peak,
            "planned_bytes": one.memory.peak,
            "measured_bytes": one.measured and one.measured.peak_bytes,
            "worker_has_bytes": one.has,
            "moment": one.memory.moment,
            "parts": one.memory.parts,
            "host": one.memory.host,
            "steps": took and took.steps,
            "seconds": took and took.seconds,
            "dollars": None if took is None else took.dollars(self.workers, price),
        }


def make_plan(recipe: Recipe, shape: ModelShape, rows: RowLengths | None, on: Hardware) -> Plan:
    """Plan a recipe on some hardware, with what has been measured there."""
    own_ways = plan_ways(recipe, shape, rows, on, recipe.unresolved())
    own = choose(own_ways) or own_ways[0]
    keeps_budget = [f for f in FIELDS if f != BUDGET or f in recipe.unresolved()]
    candidates = plan_ways(recipe, shape, rows, on, keeps_budget)
    if choose(candidates) is None:
        candidates = plan_ways(recipe, shape, rows, on, FIELDS)
    disk = plan_disk(recipe, shape, own.precision == "bf16")
    free = free_bytes(output_path(Path(recipe.runs_dir)))
    return Plan(recipe, shape, on, rows, own, candidates, choose(candidates), disk, free)


def plan_ways(
    recipe: Recipe, shape: ModelShape, rows: RowLengths | None, on: Hardware, free: list[str]
) -> list[Candidate]:
    planned = plan_candidates(recipe, shape, rows, on, free)
    return [with_measurement(one, shape, on) for one in planned]


def describe_way(one: Candidate) -> str:
    """Return how a candidate computes, in words."""
    return f"{way_name(one)}, {one.recipe.train.tokens_per_micro_batch:,} tokens"


def way_name(one: Candidate) -> str:
    train = one.recipe.train
    parts = [f"ZeRO {train.zero_stage}"]
    parts += ["checkpointing"] * bool(train.activation_checkpointing)
    parts += ["AdamW offloaded"] * bool(train.offload_optimizer)
    parts += ["weights offloaded"] * bool(train.offload_params)
    return ", ".join(parts)


def gib(count: float) -> str:
    return f"{count / GIB:,.{1 if count > GIB else 2}f}"


def resolve_auto(recipe: Recipe, rows: Rows) -> tuple[Recipe, str]:
    """Join Ray, and return a recipe with each `auto` of `train` resolved, and a line about it.

    Raises:
        UserError: nothing that `auto` may stand for fits the GPUs; it names the smallest.
    """
    if not recipe.unresolved():
        return recipe, ""
    connect()
    gpus = wants_gpus(recipe.cluster)
    free, workers = recipe.unresolved(), recipe.cluster.workers
    if free == ["train.zero_stage"] and not gpus:
        return resolve_zero_stage(recipe, workers, THIS_DEVICE), ""
    # An elastic run has to fit while workers are missing.
    fewest = min(workers, max(2, recipe.cluster.min_workers or workers))
    planned = recipe.override({"cluster.workers": fewest, "cluster.min_workers": None})
    lengths = RowLengths(rows.lengths_R, rows.supervised_R, "")
    on = cluster_hardware(None, "gpu" if gpus else "cpu")
    ways = plan_ways(planned, read_shape(planned), lengths, on, free)
    chosen = choose(ways) or min(ways, key=lambda one: (one.has is not None) * one.peak)
    if gpus and chosen.has is not None and chosen.peak > ERROR * chosen.has:
        raise UserError(
            f"{', '.join(free)} is auto, and nothing that it may stand for fits: the smallest "
            f"needs {gib(chosen.peak)} of {gib(chosen.has)} GiB of each GPU. Use more "
            "--cluster.workers, or --model.lora_rank 16; python -m lima_ray.plan tells what fits"
        )
    train = chosen.recipe.train
    resolved = recipe.override({name: getattr(train, name.partition(".")[2]) for name in free})
    of = "" if chosen.has is None else f" of {gib(chosen.has)}"
    return resolved, f"auto         {describe_way(chosen)}: {gib(chosen.peak)}{of} GiB a worker"
