"""The records of a run: one for each start, step and save, written by rank 0."""

import resource
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import distributed as dist

from lima_ray.config.recipe import Recipe
from lima_ray.config.storage.changing_files import Uploads, pull
from lima_ray.model.flops import peak_flops
from lima_ray.records.files import write_jsonl
from lima_ray.records.journal import Journal
from lima_ray.records.run import Run
from lima_ray.training.trackers import numeric_fields, open_tracker, tracker_files


@dataclass(frozen=True)
class StepResult:
    """What a step measured, over all workers."""

    loss: float
    """Mean negative log likelihood of the supervised tokens, in nats."""
    token_accuracy: float
    """Share of supervised tokens that were the likeliest."""
    grad_norm: float
    """Norm of the gradient before clipping."""
    tokens: int
    supervised_tokens: int
    flops: float
    """Floating-point operations, recomputation not counted."""
    seconds: float


class MetricsLog(AbstractContextManager["MetricsLog"]):
    """Rank 0's metrics.jsonl and tracker; on other ranks it writes nothing."""

    def __init__(
        self, run: Run, recipe: Recipe, done: int, device: torch.device, enabled: bool
    ) -> None:
        self.device, self.enabled = device, enabled
        self.uploads = Uploads(*([run.metrics_file, *tracker_files(run)] if enabled else []))
        if not enabled:
            return
        for file in self.uploads.paths:
            pull(file)
        write_jsonl([m for m in run.metrics() if m["step"] <= done], run.metrics_file)
        self.journal = Journal(run.metrics_file)
        self.tracker = open_tracker(recipe, run)
        self.uploads.__enter__()

    def write(self, record: dict[str, Any]) -> None:
        if self.enabled:
            self.journal.append(record)

    def start(
        self, done: int, pids: list[int], computed: dict[str, Any], phases: dict[str, float]
    ) -> None:
        """Append a start's record: steps done before, the workers' process ids, seconds of phases.

        `computed` are `zero_stage` and what `describe_kernels` tells.
        """
        record: dict[str, Any] = {"kind": "start", "step": done, "workers": len(pids)}
        self.write(record | {"pids": pids} | computed | phases | {"time": time.time()})

    def note(self, text: str) -> None:
        self.write({"kind": "note", "step": 0, "text": text, "time": time.time()})

    def step(self, done: int, epoch: int, rate: float, result: StepResult) -> None:
        if not self.enabled:
            return
        record: dict[str, Any] = {
            "kind": "step",
            "step": done,
            "epoch": epoch,
            "learning_rate": rate,
            **asdict(result),
            "supervised_tokens_per_s": result.supervised_tokens / result.seconds,
            "peak_memory_gib": peak_memory_gib(self.device),
            "time": time.time(),
        }
        peak = peak_flops(self.device)
        if peak:
            record["mfu"] = result.flops / result.seconds / (peak * dist.get_world_size())
        self.write(record)
        self.tracker.log(numeric_fields(record), done)

    def save(self, what: str, step: int, written: int, seconds: float) -> None:
        """Append the record of a save, of so many bytes."""
        record = {"kind": "save", "what": what, "step": step, "bytes": written}
        self.write(record | {"seconds": seconds})

    def upload(self) -> None:
        """Have a run's bucket hold every record so far."""
        self.uploads.upload()

    def __exit__(self, *_: object) -> None:
        if self.enabled:
            self.tracker.close()
            self.uploads.__exit__()


def peak_memory_gib(device: torch.device) -> float:
    """Return the peak memory of this process, on the GPU where it trains on one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
