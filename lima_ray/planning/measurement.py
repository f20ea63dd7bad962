"""Three steps of each way to compute, run on the cluster's workers and kept for later plans."""

import ctypes
import gc
import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import psutil
import ray.train
import torch
from ray.train.torch import get_device
from torch import distributed as dist

from lima_ray.config import cluster
from lima_ray.config.cache import cache_folder
from lima_ray.config.errors import UserError
from lima_ray.config.loading import with_absolute_paths
from lima_ray.config.paths import output_path
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.config.secrets.sharing import SharedSecrets
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import load_tokenizer
from lima_ray.planning.candidates import Candidate, Measured
from lima_ray.planning.hardware import Hardware
from lima_ray.planning.sizes import ModelShape, RowLengths
from lima_ray.records.files import read_json, write_json
from lima_ray.training.loop import build_engine, train_step
from lima_ray.training.schedule import plan_epoch
from lima_ray.training.trainer import ProcessGroup, Trainer

STEPS = 3
BUDGET_S = 60.0
"""No way is begun after so long."""
TIMEOUT_S = 600
JEMALLOC_ALL_ARENAS = 4096
SIZES = ("parameters", "trained", "layers", "hidden", "query", "key", "mlp")
DECIDES = ("torch", "transformers", "deepspeed", "peft")
"""Packages whose version decides a measurement."""


def measure_candidates(candidates: list[Candidate], rows: RowLengths) -> dict[int, Measured]:
    """Run three steps of each of some candidates, and return what they took, by their number.

    Args:
        candidates: of one recipe, in the order in which they are run, but those that do not fit.
        rows: lengths of the rows; their tokens are random.

    Raises:
        UserError: workers that cannot be had, or that failed before any candidate was done.
    """
    recipe = candidates[0].recipe
    gpus = cluster.wants_gpus(recipe.cluster)
    cpus = cluster.cpus_per_worker(recipe.cluster, gpus)
    cluster.check_resources(recipe.cluster, gpus, cpus)
    folder = output_path(Path(recipe.runs_dir))
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(mkdtemp(prefix=".plan-", dir=folder))  # where every worker sees it
    try:
        random_rows(rows).save(work / "rows")
        todo = {n: one for n, one in enumerate(candidates) if one.verdict != "does not fit"}
        plain = {n: with_absolute_paths(one.recipe).model_dump() for n, one in todo.items()}
        trainer = Trainer(
            measure_worker,
            train_loop_config={
                "recipes": plain,
                "folder": str(work),
                "secrets": SharedSecrets.of_driver(),
            },
            backend_config=ProcessGroup(TIMEOUT_S),
            scaling_config=cluster.scaling_config(recipe.cluster.workers, int(gpus), cpus),
            run_config=ray.train.RunConfig(
                name="ray",
                storage_path=str(work),
                worker_runtime_env={
                    "env_vars": cluster.training_environment(gpus, cpus, recipe.model.base)
                },
            ),
        )
        failed = ""
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:  # such as a GPU that is full
            failed = str(error)
        done = {n: read_json(work / f"{n}.json") for n in todo}
        measured = {n: Measured(**found) for n, found in done.items() if found}
        if not measured:
            raise UserError(f"no way could be measured; the workers' last error was:\n{failed}")
        return measured
    finally:
        shutil.rmtree(work, ignore_errors=True)


def random_rows(rows: RowLengths) -> Rows:
    """Return rows of these lengths and random tokens, the last ones of each supervised."""
    starts_R1 = np.concatenate([[0], np.cumsum(rows.lengths_R)]).astype(np.int64)
    ends_N = np.repeat(starts_R1[1:], rows.lengths_R)
    supervised_N = np.repeat(rows.supervised_R, rows.lengths_R)
    place_N = np.arange(starts_R1[-1])
    return Rows(
        ids_N=np.random.default_rng(0).integers(3, 200, starts_R1[-1]).astype(np.int32),
        mask_N=ends_N - place_N <= supervised_N,
        starts_R1=starts_R1,
        cut_R=np.zeros(len(rows), dtype=bool),
    )


def measure_worker(config: dict[str, Any]) -> None:
    """Run, as one worker of the group, recipe after recipe until the time is up."""
    config["secrets"].enter_environment()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    folder, started = Path(config["folder"]), time.monotonic()
    rows, device = Rows.load(folder / "rows"), torch.device(get_device())
    import_libraries()
    before = reset_peak(device)
    for number, plain in config["recipes"].items():
        over = torch.tensor([time.monotonic() - started > BUDGET_S], device=device).float()
        dist.broadcast(over, src=0)
        if over.item():
            return
        measured = measure(validate_recipe(plain), rows, device, before)
        if dist.get_rank() == 0:
            write_json(folder / f"{number}.json", asdict(measured))


def measure(recipe: Recipe, rows: Rows, device: torch.device, before: float) -> Measured:
    """Return what three steps of a recipe took, in a process group that is up.

    Args:
        before: bytes that the process had before it measured anything.
    """
    workers = dist.get_world_size()
    reset_peak(device)
    engine = build_engine(recipe, load_tokenizer(recipe.model.base), device)
    plan = (plan_epoch(recipe, rows, 0, workers) * STEPS)[:STEPS]
    results = [train_step(engine, step, rows, 1e-9) for step in plan]
    peak = torch.tensor([peak_bytes(device) - before], dtype=torch.float64, device=device)
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    engine.destroy()
    del engine
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    warm = results[1:]  # the first prepares kernels, and makes AdamW's averages
    seconds = sum(result.seconds for result in warm)
    return Measured(peak.item(), sum(result.flops for result in warm) / seconds / workers)


def import_libraries() -> None:
    """Import what a training imports late, whose memory is not a recipe's."""
    import deepspeed
    from peft import get_peft_model

    del deepspeed, get_peft_model


def reset_peak(device: torch.device) -> float:
    """Begin a new peak, and return the bytes that are not of the training."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return 0.0
    return_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss


def return_freed_memory() -> None:
    """Have the allocator give freed blocks back to the system: jemalloc, or glibc."""
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallctl"):
        allocator.mallctl(f"arena.{JEMALLOC_ALL_ARENAS}.purge".encode(), None, None, None, 0)
    elif hasattr(allocator, "malloc_trim"):
        allocator.malloc_trim(0)


def peak_bytes(device: torch.device) -> float:
    """Return the most bytes since `reset_peak`, on the GPU or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measurement_key(candidate: Candidate, shape: ModelShape, on: Hardware) -> dict[str, Any]:
    """Return what decides the figures of a candidate."""
    recipe = candidate.recipe
    return {
        "family": shape.config.model_type,
        "sizes": [getattr(shape, name) for name in SIZES] + [shape.config.vocab_size],
        "train": recipe.train.model_dump() | {"precision": candidate.precision},
        "model": recipe.model.model_dump(include={"lora_rank", "attention", "liger"}),
        "dropout": recipe.model.residual_dropout > 0,
        "rows": [recipe.data.max_tokens, recipe.optim.batch_examples],
        "workers": recipe.cluster.workers,
        "card": on.card or [f"{node.cores:g} cores" for node in on.nodes],
        "packages": {name: version(name) for name in DECIDES},
    }


def file_of(key: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode())
    return f"plan-{digest.hexdigest()[:16]}.json"


def with_measurement(candidate: Candidate, shape: ModelShape, on: Hardware) -> Candidate:
    """Return a candidate with what was measured of it on such hardware, if anything was."""
    kept = None
    with suppress(OSError, RuntimeError):  # no home, or one that others may write
        kept = read_json(cache_folder() / file_of(measurement_key(candidate, shape, on)))
    if kept is None:
        return candidate
    return replace(candidate, measured=Measured(kept["peak_bytes"], kept["flops_per_s"]))


def keep_measurement(
    candidate: Candidate, shape: ModelShape, on: Hardware, measured: Measured
) -> None:
    key = measurement_key(candidate, shape, on)
    write_json(
        cache_folder() / file_of(key),
        asdict(measured) | {"key": json.loads(json.dumps(key, default=str))},
    )
