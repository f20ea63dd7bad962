"""What a sweep will take, known before anything starts: trainings, operations, hours, bytes."""

import shutil
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lima_ray.config.paths import resolve
from lima_ray.config.recipe import Recipe
from lima_ray.data.examples import read_prompts
from lima_ray.model.flops import BF16_PEAK, step_flops
from lima_ray.results.units import format_duration
from lima_ray.training.zero import OPTIMIZER_BYTES
from tune.training import PreparedTraining

MFU = 0.4
"""Share of a GPU's peak that training is taken to reach."""
PROBE = 512
"""Rows and columns of the matrices that measure a CPU core."""


@dataclass(frozen=True)
class Cost:
    """Of the trainings that are left."""

    trainings: int
    flops: float
    dev_replies: int
    """Replies to dev prompts, over all epochs that are judged."""
    replies: int
    """Replies that measure."""
    kept_bytes: float
    """Weights left in the end."""
    most_bytes: float
    """Weights and resume states at any time."""

    def times(self, count: int) -> "Cost":
        most = self.most_bytes + self.kept_bytes * (count - 1)
        return Cost(
            self.trainings * count,
            self.flops * count,
            self.dev_replies * count,
            self.replies * count,
            self.kept_bytes * count,
            most,
        )


def remaining_cost(trainings: list[PreparedTraining], at_once: int) -> Cost:
    """Add up what is left of a sweep's trainings, so many at a time."""
    left = {one.id: (one, inputs) for one, inputs in trainings if not one.is_trained()}
    flops = kept = running = 0.0
    dev_replies = replies = 0
    for training, prepared in left.values():
        recipe = prepared.recipe
        config, weights = config_and_size(str(training.recipe["model"]["base"]))
        schedule, lengths = prepared.schedule, prepared.rows.lengths_R
        epoch = step_flops(config, lengths, int(prepared.rows.supervised_R.sum()))
        flops += epoch * schedule.steps * recipe.optim.batch_examples / len(lengths)
        first = min(recipe.checkpoint.weights_from_epoch, recipe.optim.epochs)
        width, judged = weight_bytes(recipe), recipe.optim.epochs - first + 1
        if recipe.select.judge != "none":
            dev_replies += judged * reply_count(recipe.data.dev, "dev") * recipe.select.samples
        if not training.by_loss:
            replies += reply_count(training.prompts, "test") * training.samples
        epochs = weights * width * judged
        state = weights * (width + OPTIMIZER_BYTES) * max(2, recipe.checkpoint.keep_states)
        kept += {"all": epochs + state, "chosen": weights * width, "none": 0}[training.keep]
        running = max(running, epochs + state)
    return Cost(len(left), flops, dev_replies, replies, kept, kept + running * at_once)


def weight_bytes(recipe: Recipe) -> int:
    """Return bytes of an exported weight; the larger format's where the cluster decides it."""
    if recipe.checkpoint.weights_dtype != "auto":
        return 2 if recipe.checkpoint.weights_dtype == "bf16" else 4
    bf16 = recipe.train.precision == "bf16" or (
        recipe.train.precision == "auto" and recipe.cluster.device == "gpu"
    )
    return 2 if bf16 and not recipe.model.lora_rank else 4


@lru_cache(maxsize=16)
def config_and_size(base: str) -> tuple[Any, int]:
    """Return a base's configuration, and how many weights it has."""
    config = AutoConfig.from_pretrained(str(resolve(base) or base), trust_remote_code=False)
    with torch.device("meta"):
        loader: Any = AutoModelForCausalLM
        shape = loader.from_config(config, trust_remote_code=False)
    return config, sum(p.numel() for p in shape.parameters())


@lru_cache(maxsize=16)
def reply_count(reference: str | None, split: str) -> int:
    """Count the replies that prompts ask for, one sample of each."""
    rows = read_prompts(reference, split) if reference else []
    return sum(1 + len(row.extra.get("follow_ups", [])) for row in rows)


def arithmetic(cost: Cost, gpu: str | None) -> str:
    """Describe what training alone takes, in GPU hours, or core hours of this machine.

    Args:
        gpu: name of the cluster's GPUs; none where it trains on CPUs.
    """
    if gpu is None:
        speed = core_flops()
        return (
            f"the arithmetic alone is {format_duration(cost.flops / speed)} of one CPU core at "
            f"{speed / 1e9:,.0f} GFLOP/s"
        )
    peak = next((peak for part, peak in BF16_PEAK.items() if part in gpu), None)
    if peak is None:
        return f"no peak of {gpu} is listed"
    spent = cost.flops / (peak * MFU) / 3600
    return f"training alone is {spent:,.2f} GPU hours at {MFU:.0%} of {gpu}'s peak"


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


def free_bytes(path: Path) -> int:
    """Return the bytes free on the disk that a directory is on, or will be."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free
