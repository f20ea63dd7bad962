"""Steps of random Llamas on this machine's cores: by workers, rows, row length and size."""

import ctypes
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from process_group import in_process_group

from benchmarks.scaling.collectives import Collectives
from lima_ray import base
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.data.tokenizer import load_tokenizer
from lima_ray.model.flops import step_flops
from lima_ray.planning.measurement import peak_bytes, random_rows, reset_peak
from lima_ray.planning.sizes import RowLengths, cut, read_shape
from lima_ray.results.published.lima import draw_lengths
from lima_ray.training.loop import build_engine, train_step
from lima_ray.training.schedule import plan_epoch

BUDGET = 1024
"""Tokens of a micro-batch."""
BATCH, LONGEST = 16, 512
"""Rows of the steps that workers share, and where their lengths are cut."""
STAGES = (0, 2)
HIDDENS = (128, 256, 384, 512)
ROWS = (4, 8, 16, 32)
LENGTHS = (64, 128, 256, 512, 1024)
USUAL_HIDDEN, USUAL_ROWS, USUAL_LENGTH = 256, 8, 256
MMAP_FROM = 65536
"""Bytes from which a freed block goes back to the system, so that peaks are of tensors in use."""


@dataclass(frozen=True)
class WorkerSteps:
    """What one worker measured of steps that all shared."""

    stage: int
    seconds: tuple[float, ...]
    communicating_s: tuple[float, ...]
    """In collectives, waiting for the others included."""
    sent: float
    """Elements in a step, as `Collectives.sent` counts."""
    flops: float
    """Of the slowest worker in a step."""
    parameters: int
    micro_batches: int
    bandwidth: float
    """Bytes a second of a ring that all-reduces as many elements, with nothing else to do."""


@dataclass(frozen=True)
class Point:
    """One worker's step at one size."""

    varied: str
    value: float
    cpu_s: tuple[float, ...]
    peak: float
    """Bytes over what the process held before."""


def build_bases(folder: Path, hiddens: Sequence[int]) -> dict[int, str]:
    """Build a random Llama for each width, of as many layers as it has heads."""
    generator = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = ["".join(generator.choice(letters, 6)) for _ in range(4000)]
    (folder / "words.txt").write_text("\n".join(words))
    for hidden in hiddens:
        text, out = str(folder / "words.txt"), folder / str(hidden)
        base.build(text, out, hidden, layers=hidden // 64, vocab=2048)
    return {hidden: str(folder / str(hidden)) for hidden in hiddens}


def recipe_of(folder: str, rows: int, longest: int, workers: int = 1, stage: int = 0) -> Recipe:
    return validate_recipe(
        {
            "data": {"max_tokens": longest},
            "model": {"base": folder, "residual_dropout": 0.0},
            "optim": {"batch_examples": rows},
            "train": {
                "precision": "fp32",
                "tokens_per_micro_batch": BUDGET,
                "zero_stage": stage,
                "activation_checkpointing": False,
            },
            "cluster": {"workers": workers, "device": "cpu"},
        }
    )


def measure_workers(folder: str, workers: int, steps: int) -> list[WorkerSteps]:
    """Return what each worker measured of each stage, stage by stage."""
    found = in_process_group(workers, steps_of_worker, folder, workers, steps)
    return [one for of_rank in found for one in of_rank]


def steps_of_worker(folder: str, workers: int, steps: int) -> list[WorkerSteps]:
    collectives = Collectives()
    collectives.install()
    prompts_R, replies_R = (lengths[:: len(lengths) // BATCH][:BATCH] for lengths in draw_lengths())
    rows = random_rows(cut(prompts_R, replies_R, recipe_of(folder, BATCH, LONGEST), ""))
    results = []
    for stage in STAGES:
        recipe = recipe_of(folder, BATCH, LONGEST, workers, stage)
        [step] = plan_epoch(recipe, rows, 0, workers)
        engine = build_engine(recipe, load_tokenizer(folder), torch.device("cpu"))
        seconds, communicating, sent = [], [], 0.0
        for _ in range(steps + 1):
            dist.barrier()
            collectives.reset()
            seconds.append(train_step(engine, step, rows, 1e-9).seconds)
            communicating.append(collectives.seconds)
            sent = collectives.sent
        own = [[row for batch in rank for row in batch] for rank in step.ranks]
        config, supervised = engine.module.config, rows.supervised_R
        flops = max(step_flops(config, rows.lengths_R[r], int(supervised[r].sum())) for r in own)
        parameters = read_shape(recipe).parameters
        engine.destroy()
        del engine
        gc.collect()
        results.append(
            WorkerSteps(
                stage=stage,
                seconds=tuple(seconds[1:]),  # the first prepares kernels
                communicating_s=tuple(communicating[1:]),
                sent=sent,
                flops=flops,
                parameters=parameters,
                micro_batches=len(step.ranks[0]),
                bandwidth=ring_bandwidth(parameters, workers),
            )
        )
    return results


def ring_bandwidth(elements: int, workers: int) -> float:
    """Measure an all-reduce of fp32 elements with idle cores."""
    if workers == 1:
        return float("inf")
    gradients = torch.zeros(elements)
    took = []
    for _ in range(4):
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(gradients)
        took.append(time.perf_counter() - started)
    return 2 * elements * 4 * (workers - 1) / workers / median(took[1:])


def measure_points(bases: dict[int, str], steps: int) -> list[Point]:
    """Return one worker's steps at every size, all in one process."""
    return in_process_group(1, points_of_worker, bases, steps)[0]


def points_of_worker(bases: dict[int, str], steps: int) -> list[Point]:
    # M_MMAP_THRESHOLD, by its number in glibc's malloc.h.
    ctypes.CDLL(None).mallopt(-3, MMAP_FROM)
    return [measure_point(*one, steps) for one in sizes(bases)]


def sizes(bases: dict[int, str]) -> Iterator[tuple[str, float, str, int, int]]:
    """Yield what is varied, its value, the base, rows and row length; the first is for warm-up."""
    usual = bases[USUAL_HIDDEN]
    yield "", 0.0, usual, USUAL_ROWS, USUAL_LENGTH
    for rows in ROWS:
        yield "rows", float(rows), usual, rows, USUAL_LENGTH
    for length in LENGTHS:
        yield "row length", float(length), usual, USUAL_ROWS, length
    for folder in bases.values():
        parameters = read_shape(recipe_of(folder, USUAL_ROWS, USUAL_LENGTH)).parameters
        yield "parameters", parameters / 1e6, folder, USUAL_ROWS, USUAL_LENGTH


def measure_point(
    varied: str, value: float, folder: str, rows: int, length: int, steps: int
) -> Point:
    recipe = recipe_of(folder, rows, length)
    lengths_R = np.full(rows, length)
    encoded: Any = random_rows(RowLengths(lengths_R, lengths_R // 2, ""))
    [step] = plan_epoch(recipe, encoded, 0, 1)
    gc.collect()
    device = torch.device("cpu")
    before = reset_peak(device)
    engine = build_engine(recipe, load_tokenizer(folder), device)
    used = []
    for _ in range(steps + 1):
        started = time.process_time()
        train_step(engine, step, encoded, 1e-9)
        used.append(time.process_time() - started)
    peak = peak_bytes(device) - before
    engine.destroy()
    if varied:
        print(f"{varied} {value:,.4g}: {median(used[1:]):.2f} s of CPU, {peak / 2**20:,.0f} MiB")
    return Point(varied, value, tuple(used[1:]), peak)
