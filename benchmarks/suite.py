"""Run the benchmarks that fit half an hour on two quiet cores, and make `docs/benchmarks.md`.

    make bench                                          # or python -m benchmarks.suite
    python -m benchmarks.suite --posts Posts.xml --vllm_python vllm/bin/python
    python -m benchmarks.suite --only attribution       # longer than the others' half hour

Each benchmark has a time limit and writes `docs/benchmarks/NAME.json`. One whose file is of this
code, machine and command is not repeated, so a suite that was stopped goes on with the same
command. One that fails or runs out of time leaves its earlier file, and its log in
`runs/bench/NAME.log`. TRL's environment is made on the first call.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.page import __main__ as page
from benchmarks.page.result import (
    RESULTS,
    ROOT,
    code_commit,
    read_result,
    this_machine,
    typed_command,
)
from lima_ray.config.display import ProgressDisplay
from lima_ray.config.errors import UserError
from lima_ray.results.units import format_duration

WORK = Path("runs/bench")
"""Of models, runs and logs, below the checkout."""
GRACE_S = 20


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


def benchmarks(posts: str, lima: str, vllm_python: str) -> list[Benchmark]:
    """Return all, in the order in which they run; the limits of `always` make half an hour."""
    short = ("--rounds", "2", "--steps", "3", "--forms", "padded", "single")
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
            480,
        ),
        Benchmark(
            "serve",
            (
                *("benchmarks.serve", "--work", f"{WORK}/serve", *serve, *contenders),
                *given("--vllm_python", vllm_python),
            ),
            360,
        ),
        Benchmark("sweep", ("benchmarks.sweep", *sweep), 200),
        Benchmark(
            "miniature",
            ("benchmarks.miniature", "--seeds", "0", "--runs_dir", f"{WORK}/miniature"),
            210,
        ),
        Benchmark("scaling", ("benchmarks.scaling", "measure"), 240),
        Benchmark("simulation", ("benchmarks.scaling", "simulate"), 30),
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


def main(
    only: tuple[str, ...] = (),
    again: bool = False,
    posts: str = "",
    lima: str = "",
    vllm_python: str = "",
) -> None:
    """Run benchmarks and make the page.

    Args:
        only: names; none takes all that fit the half hour.
        again: repeat what has figures of this code and machine.
        posts: a Stack Exchange site's Posts.xml; without it curation reads Reddit alone.
        lima: LIMA's rows; without them training's rows have lengths drawn from Table 1.
        vllm_python: a Python that has vLLM; without it vLLM is left out.
    """
    every = {one.name: one for one in benchmarks(posts, lima, vllm_python)}
    if unknown := set(only) - set(every):
        raise SystemExit(f"no benchmark {', '.join(sorted(unknown))}: {', '.join(every)}")
    chosen = [one for one in every.values() if one.name in only or (one.always and not only)]
    (ROOT / WORK).mkdir(parents=True, exist_ok=True)
    failed = []
    with ProgressDisplay(len(chosen), "benchmarks", count=True) as display:
        for number, one in enumerate(chosen):
            display.update(number, numbers=f"{one.name}, at most {format_duration(one.limit_s)}")
            display.log(f"{one.name}, at most {format_duration(one.limit_s)}", at_once=True)
            if not again and is_current(one):
                display.print(f"{one.name}: kept, of this code and machine")
                continue
            began = time.monotonic()
            wrong = run(one)
            took = format_duration(time.monotonic() - began)
            display.print(f"{one.name}: {wrong or 'done'} in {took}")
            failed += [one.name] * bool(wrong)
        display.update(len(chosen))
    page.main()
    if failed:
        raise SystemExit(f"without new figures: {', '.join(failed)}; logs are in {WORK}")


def is_current(one: Benchmark) -> bool:
    """Return whether the figures that stand there are of this code, machine and command."""
    try:
        found = read_result(RESULTS / f"{one.name}.json")
    except (OSError, UserError):
        return False
    here = this_machine()
    same_machine = found.machine == here or bool(found.machine.gpu)
    commit = code_commit()
    same_code = bool(commit) and found.commit == commit
    return same_machine and same_code and found.command == typed_command(*one.words)


def run(one: Benchmark) -> str:
    """Run a benchmark; returns what went wrong, empty where nothing did."""
    file = RESULTS / f"{one.name}.json"
    words = [sys.executable, "-m", *one.words, "--json", str(file)]
    log_file = ROOT / WORK / f"{one.name}.log"
    before = file.stat().st_mtime_ns if file.exists() else 0
    with log_file.open("w") as log:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={"DS_ACCELERATOR": "cpu"} | os.environ | {"PYTHONPATH": str(ROOT)},
        )
        try:
            status = process.wait(one.limit_s)
        except subprocess.TimeoutExpired:
            end(process)
            return f"ended after its {format_duration(one.limit_s)}; see {WORK}/{log_file.name}"
        except BaseException:
            end(process)
            raise
    if status or not file.exists() or file.stat().st_mtime_ns == before:
        lines = log_file.read_text(errors="replace").strip().splitlines() or [""]
        return f"failed with status {status}: {lines[-1][:200]}; see {WORK}/{log_file.name}"
    return ""


def end(process: subprocess.Popen[bytes]) -> None:
    """End a benchmark and all that it started in its session."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.suite", description=__doc__, use_underscores=True)
