"""Steps, hours and money of a training, from what its arithmetic takes."""

import time
from dataclasses import dataclass
from functools import lru_cache

import torch

from lima_ray.config.recipe import Recipe
from lima_ray.data.rows import Rows
from lima_ray.model.flops import named_peak, step_flops
from lima_ray.planning.candidates import Candidate
from lima_ray.planning.hardware import Hardware
from lima_ray.planning.lengths import RowLengths
from lima_ray.planning.shape import ModelShape
from lima_ray.training.schedule import Schedule

UTILISATION = {True: 0.40, False: 0.51}
"""Share of a GPU's bf16 peak, by whether activations are recomputed, whose operations do not count:
whole steps on one H200 in docs/benchmarks/README.md, LLaMA 7B on LIMA's lengths and 8B on rows of
4,096 tokens, causal attention counted once."""
PROBE = 512
"""Rows and columns of the matrices that measure a CPU core."""


@dataclass(frozen=True)
class Duration:
    """How long the optimizer steps take; starting and saving come on top."""

    steps: int
    seconds: float | None
    """Of all of them; none where no speed is known."""
    source: str
    """What the seconds rest on, for people."""

    def dollars(self, workers: int, per_gpu_hour: float | None) -> float | None:
        if self.seconds is None or per_gpu_hour is None:
            return None
        return self.seconds / 3600 * workers * per_gpu_hour


def plan_duration(
    candidate: Candidate, shape: ModelShape, rows: RowLengths, on: Hardware
) -> Duration:
    """Return what the steps of a training take: as measured, or by the arithmetic."""
    recipe, card, workers = candidate.recipe, on.card, candidate.recipe.cluster.workers
    steps = Schedule.of(recipe, len(rows)).steps
    flops = training_flops(recipe, shape, rows)
    if candidate.measured:
        seconds = flops / (candidate.measured.flops_per_s * workers)
        return Duration(steps, seconds, "three steps measured here")
    if not on.is_gpu:
        speed = core_flops()
        told = f"the arithmetic alone, at {speed / 1e9:,.0f} GFLOP/s of a core for each worker"
        return Duration(steps, flops / (speed * workers), told)
    peak = named_peak(card)
    if peak is None:
        return Duration(steps, None, f"no peak of {card} is listed; --measure tells")
    if recipe.train.offload_optimizer or recipe.train.offload_params:
        return Duration(steps, None, "offloading has not been timed; --measure does")
    share = UTILISATION[bool(recipe.train.activation_checkpointing)]
    told = f"{share:.0%} of {card}'s bf16 peak, as one H200 reached; several GPUs were not measured"
    return Duration(steps, flops / (peak * share * workers), told)


def training_flops(recipe: Recipe, shape: ModelShape, rows: RowLengths | Rows) -> float:
    """Count the operations of a whole training, without recomputation."""
    epoch = step_flops(shape.config, rows.lengths_R, int(rows.supervised_R.sum()))
    steps = Schedule.of(recipe, len(rows)).steps
    return epoch * steps * recipe.optim.batch_examples / len(rows)


@lru_cache(maxsize=1)
def core_flops() -> float:
    """Measure the operations a second of one core of this machine, on fp32 matrices."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a = torch.ones(PROBE, PROBE)
        _ = a @ a
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < 0.2:
            _ = a @ a
            count += 1
        return 2 * PROBE**3 * count / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
