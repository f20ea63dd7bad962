"""Steps on up to 64 GPUs, from one GPU's measured step and published interconnects."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.page.gpu import lima
from benchmarks.page.result import RESULTS, Figure, Recording
from benchmarks.scaling.traffic import INFINIBAND, NETWORKS, NVLINK, Network, traffic
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.data.packing import Step
from lima_ray.model.flops import step_flops
from lima_ray.planning.memory import plan_memory
from lima_ray.planning.sizes import (
    ModelShape,
    RowLengths,
    cut,
    load_of_steps,
    read_shape,
)
from lima_ray.results.published.lima import draw_lengths
from lima_ray.training.schedule import plan_epoch

MODELS = {"LLaMA 7B": "huggyllama/llama-7b", "LLaMA 65B": "huggyllama/llama-65b"}
GPUS = (1, 2, 4, 8, 16, 32, 64)
BATCH = 64
"""Rows of a step: LIMA's for its smaller models (section 3), and one for each of 64 GPUs."""
MEASURED_BATCH = 32
STATE_BYTES = 30
"""That AdamW reads and writes for a weight: two averages and an fp32 weight (24), the gradient in
fp32 (4), the weight in bf16 (2)."""
BF16 = 2
CARD_GIB, RESERVED_GIB = 139.8, 3.0
"""Of an H200, and what CUDA and NCCL take."""


@dataclass(frozen=True)
class Speed:
    """What one worker does alone."""

    flops: float
    """Operations of forward and backward a second, without recomputation."""
    update: float
    """Weights that AdamW updates a second."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by what they are for."""

    arithmetic: float
    """Of the slowest worker."""
    update: float
    communication: float

    @property
    def hidden(self) -> float:
        """With all communication behind arithmetic."""
        return max(self.arithmetic, self.communication) + self.update

    @property
    def exposed(self) -> float:
        """With none."""
        return self.arithmetic + self.communication + self.update


def step_time(
    speed: Speed,
    slowest_flops: float,
    parameters: int,
    stage: int,
    workers: int,
    sent_bytes: float,
    bandwidth: float,
) -> StepTime:
    """Return a step's seconds.

    Args:
        slowest_flops: operations of the worker that has most.
        stage: from 1 on each worker updates its part of the weights.
        sent_bytes: by one worker, at `bandwidth` bytes a second.
    """
    part = parameters / (workers if stage else 1)
    return StepTime(slowest_flops / speed.flops, part / speed.update, sent_bytes / bandwidth)


def simulate(recording: Recording) -> None:
    """Add speed, communication and balance of both models by GPUs, stage and network."""
    speed, said = measured_speed()
    for title, base in MODELS.items():
        for workers in GPUS:
            for stage in (2, 3):
                recipe = recipe_of(base, BATCH, workers, stage)
                shape, rows = read_shape(recipe), rows_of(base)
                steps = planned(base, workers)
                load = load_of_steps(list(steps), rows)
                memory = plan_memory(recipe, shape, load, gpu=True, precision="bf16").peak / 2**30
                recording.figures.append(
                    at(f"{title}, planned memory of a GPU", f"ZeRO {stage}", "GiB", workers, memory)
                )
                if memory > CARD_GIB - RESERVED_GIB:
                    continue
                for network in NETWORKS if workers > 8 else NETWORKS[:1]:
                    one = simulate_step(speed, shape, rows, steps, stage, workers, network)
                    recording.figures += figures_of(title, one, rows, stage, workers, network)
        recording.figures += list(balances(title, base))
    recording.notes += [*assumptions(said), beside_published(speed)]


def figures_of(
    title: str, one: StepTime, rows: RowLengths, stage: int, workers: int, network: Network
) -> list[Figure]:
    """Return speed and share of communication; where nodes are not left, of every network."""
    tokens = float(rows.lengths_R.mean()) * BATCH
    whos = [f"ZeRO {stage}, {n.name}" for n in (NETWORKS if workers <= 8 else (network,))]
    speeds, share = (tokens / one.exposed, tokens / one.hidden), one.communication / one.exposed
    return [
        figure
        for who in whos
        for figure in (
            at(f"{title}, training speed", who, "tokens/s of all GPUs", workers, *speeds),
            at(f"{title}, communication if none is hidden", who, "%", workers, 100 * share),
        )
    ]


def at(what: str, who: str, unit: str, workers: int, *samples: float) -> Figure:
    case = f"{workers} GPU{'s' * (workers > 1)}"
    return Figure(what, case, who, unit, samples, x=float(workers), axis="GPUs")


def balances(title: str, base: str) -> Iterator[Figure]:
    """Yield the mean worker's operations over the slowest one's, which bounds the efficiency."""
    config = read_shape(recipe_of(base, BATCH, 1, 3)).config
    for workers in GPUS:
        of_slowest = slowest(config, rows_of(base), planned(base, workers))
        whole = sum(slowest(config, rows_of(base), planned(base, 1)).tolist())
        share = whole / workers / float(of_slowest.sum())
        yield at(f"{title}, balance of rows", "LIMA's lengths", "%", workers, 100 * share)


def simulate_step(
    speed: Speed,
    shape: ModelShape,
    rows: RowLengths,
    steps: tuple[Step, ...],
    stage: int,
    workers: int,
    network: Network,
) -> StepTime:
    """Return the mean step of an epoch."""
    flops = float(slowest(shape.config, rows, steps).mean())
    micro_batches = round(float(np.mean([len(step.ranks[0]) for step in steps])))
    moved = traffic(stage, shape.parameters, micro_batches, "deepspeed")
    sent, bandwidth = moved.sent(workers, BF16), network.bandwidth(workers)
    return step_time(speed, flops, shape.parameters, stage, workers, sent, bandwidth)


def slowest(config: Any, rows: RowLengths, steps: tuple[Step, ...]) -> np.ndarray:
    """Return the operations of the worker that has most, by step."""
    return np.array([max(worker_flops(config, rows, rank) for rank in s.ranks) for s in steps])


def worker_flops(config: Any, rows: Any, rank: tuple[tuple[int, ...], ...]) -> float:
    """Return the operations of one worker's micro-batches."""
    own = [row for batch in rank for row in batch]
    return step_flops(config, rows.lengths_R[own], int(rows.supervised_R[own].sum()))


def measured_speed() -> tuple[Speed, str]:
    """Return one H200's speed on LIMA's lengths with residual dropout, and where it is from."""
    record = json.loads((RESULTS / "gpu-training.json").read_text())
    ceiling = next(one for one in record["results"] if one["what"] == "ceiling")
    case = next(one for one in lima(record) if one["dropout"] and one["checkpointing"])
    shape = read_shape(recipe_of(MODELS["LLaMA 7B"], MEASURED_BATCH, 1, 2))
    update = ceiling["copy_tb_per_s"] * 1e12 / STATE_BYTES
    flops = case["mfu_causal"] * PEAK * case["step_s"]
    arithmetic_s = case["step_s"] - shape.parameters / update
    said = (
        f"one H200: {case['tokens_per_s']:,.0f} tokens/s of LLaMA 7B (whole steps of "
        f"{MEASURED_BATCH} rows, {case['step_s']:.2f} s, checkpointing, residual dropout "
        f"{case['dropout']}), and {ceiling['copy_tb_per_s']:.1f} TB/s of its memory"
    )
    return Speed(flops / arithmetic_s, update), said


PEAK = 989e12
"""That `mfu_causal` is a share of."""


def recipe_of(base: str, batch: int, workers: int, stage: int) -> Recipe:
    return validate_recipe(
        {
            "model": {"base": base, "residual_dropout": 0.3, "liger": True},
            "data": {"train": "GAIR/lima", "max_tokens": 2048},
            "optim": {"batch_examples": batch},
            "train": {
                "precision": "bf16",
                "zero_stage": stage,
                "activation_checkpointing": True,
                "tokens_per_micro_batch": 16384,
            },
            "cluster": {"workers": workers, "device": "gpu"},
        }
    )


@lru_cache
def rows_of(base: str) -> RowLengths:
    return cut(*draw_lengths(), recipe_of(base, BATCH, 1, 3), "drawn from Table 1")


@lru_cache
def planned(base: str, workers: int) -> tuple[Step, ...]:
    """Return the steps of an epoch, as training plans them."""
    return tuple(plan_epoch(recipe_of(base, BATCH, workers, 3), rows_of(base), 0, workers))


def beside_published(speed: Speed) -> str:
    """Compare a 65B's arithmetic, evenly spread, with what others publish."""
    base = MODELS["LLaMA 65B"]
    rows, config = rows_of(base), read_shape(recipe_of(base, BATCH, 1, 3)).config
    each = step_flops(config, rows.lengths_R, int(rows.supervised_R.sum()))
    tokens = speed.flops / each * float(rows.lengths_R.sum())
    return (
        f"were rows spread evenly and nothing sent, a GPU would train {tokens:,.0f} tokens/s of "
        "LLaMA 65B; llm-foundry publishes 1,039 for a 70B on 64 H100 with full rows of 2,048"
    )


def assumptions(measured: str) -> list[str]:
    """Return everything that the simulation takes for true."""
    return [
        f"measured: {measured}",
        f"a step has {BATCH} rows of LIMA's lengths (drawn from Table 1, cut at 2,048), packed as "
        "training packs them; a step is as long as its slowest worker",
        "arithmetic goes at the measured speed at any number of GPUs and in a 65B too",
        f"AdamW moves {STATE_BYTES} bytes a weight at the measured speed of memory",
        "bytes by stage as DeepSpeed 0.19.8 sends them (ZeRO 2: 2P in gradients for each "
        "micro-batch, P in weights for a step; ZeRO 3: 3P for each micro-batch), in bf16",
        f"NVLink carries {NVLINK / 1e9:.0f} GB/s in a ring, a 400G NIC {INFINIBAND / 1e9:.0f}, as "
        "NCCL's maintainers say (github.com/NVIDIA/nccl-tests/issues/212, 290); latency is not "
        "counted",
        "speed goes from no communication hidden behind arithmetic to all of it",
        "a case is left out where the plan's memory exceeds an H200",
    ]
