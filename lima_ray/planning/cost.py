"""What a training takes beside memory: steps, hours and money, and bytes on disk."""

import shutil
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from lima_ray.config.recipe import Recipe
from lima_ray.data.rows import Rows
from lima_ray.model.export import GROUP_BYTES
from lima_ray.model.flops import named_peak, step_flops
from lima_ray.planning.candidates import Candidate
from lima_ray.planning.hardware import Hardware
from lima_ray.planning.sizes import ModelShape, RowLengths
from lima_ray.training.schedule import Schedule, kept_epochs
from lima_ray.training.zero import resume_state_bytes

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


@dataclass(frozen=True)
class Disk:
    """Bytes of one run."""

    state: int
    """A resume state."""
    states: int
    """Resume states at once, one of them being written."""
    weights: int
    """An epoch's weights; the export is links to one of them."""
    epochs: int
    """Epochs whose weights are kept."""
    scratch: int
    """Beside weights while they are gathered, where they are large."""

    @property
    def most(self) -> int:
        """Bytes at any time."""
        return self.state * self.states + self.weights * self.epochs + self.scratch

    @property
    def kept(self) -> int:
        """Bytes at the end."""
        return self.most - self.scratch


def plan_disk(recipe: Recipe, shape: ModelShape, bf16: bool) -> Disk:
    """Return what a run writes; the few megabytes of rows, tokenizer and metrics are left out."""
    width = 2 if bf16 else 4
    plain = shape.parameters - shape.lora
    weights = plain * exported_width(recipe, bf16)
    adapter = (shape.trained if recipe.model.lora_rank else 0) * width
    return Disk(
        state=resume_state_bytes(shape.trained, width),
        states=max(2, recipe.checkpoint.keep_states),
        weights=weights + adapter,
        epochs=kept_epochs(recipe),
        scratch=weights if weights > GROUP_BYTES else 0,
    )


def exported_width(recipe: Recipe, bf16: bool) -> int:
    """Return bytes of an exported weight."""
    if recipe.checkpoint.weights_dtype != "auto":
        return 2 if recipe.checkpoint.weights_dtype == "bf16" else 4
    return 2 if bf16 and not recipe.model.lora_rank else 4


def free_bytes(path: Path) -> int:
    """Return the bytes free on the disk that a directory is on, or will be."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free
