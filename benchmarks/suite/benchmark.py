"""Every benchmark as the suite runs it, with its limit."""

from dataclasses import dataclass
from pathlib import Path

WORK = Path("runs/bench")
"""Of models, runs and logs, below the checkout."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as the suite runs it."""

    name: str
    words: tuple[str, ...]
    """The module and its arguments."""
    limit_s: int
    """When it is ended."""
    always: bool = True
    """Whether it runs without being named."""
    anew: bool = False
    """Whether what an earlier run left in its folder goes first, so that all of it is timed."""


def benchmarks(posts: str, lima: str, vllm_python: str) -> list[Benchmark]:
    """Return all, in the order in which they run; the limits of `always` make half an hour."""
    short = ("--rounds", "2", "--steps", "2", "--forms", "padded", "single")
    serve = ("--sizes", "mid", "--concurrency", "1", "8", "--shapes", "ragged", "--ways", "stream")
    contenders = ("--rounds", "2", "--only", "engine", "serve", "transformers", "vllm")
    sweep = ("--trials", "4", "--work", f"{WORK}/sweep")
    zero = ("--cases", "zero,checkpointing", "--hidden", "512", "--layers", "8")
    recorded = "docs/benchmarks/gpu-training.json"
    return [
        Benchmark(
            "train",
            (
                *("benchmarks.train", *short, "--precisions", "fp32", "mixed"),
                *("--out", f"{WORK}/train", *given("--lima", lima)),
            ),
            520,
        ),
        Benchmark(
            "serve",
            (
                *("benchmarks.serve", "--work", f"{WORK}/serve", *serve, *contenders),
                *given("--vllm_python", vllm_python),
            ),
            420,
        ),
        Benchmark(
            "startup", ("benchmarks.startup", "--rounds", "2", "--out", f"{WORK}/startup"), 80
        ),
        Benchmark("sweep", ("benchmarks.sweep", *sweep), 200),
        Benchmark(
            "miniature",
            ("benchmarks.miniature", "--seeds", "0", "--runs_dir", f"{WORK}/miniature"),
            160,
            anew=True,
        ),
        Benchmark("scaling-workers", ("benchmarks.scaling", "workers"), 120),
        Benchmark("scaling-sizes", ("benchmarks.scaling", "sizes"), 110),
        Benchmark("simulation", ("benchmarks.scaling", "gpus"), 20),
        Benchmark("memory", ("benchmarks.memory", *zero), 90),
        Benchmark("memory-gpu", ("benchmarks.memory", "--gpu", recorded), 30),
        Benchmark(
            "curate",
            (
                *("benchmarks.curate", "--work", f"{WORK}/curate", "--megabytes", "16"),
                *given("--posts", posts),
            ),
            40,
        ),
        Benchmark(
            "attribution", ("benchmarks.attribution", "--runs-dir", f"{WORK}/planted"), 7200, False
        ),
    ]


def given(flag: str, value: str) -> tuple[str, ...]:
    return (flag, str(Path(value).absolute())) if value else ()
