"""Run one benchmark as a process of its own, up to its limit."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

from benchmarks.page.result import (
    RESULTS,
    ROOT,
    code_commit,
    read_result,
    this_machine,
    typed_command,
)
from benchmarks.suite.benchmark import WORK, Benchmark
from lima_ray.config.errors import UserError
from lima_ray.results.units import format_duration

GRACE_S = 20


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
    if one.anew:
        shutil.rmtree(ROOT / WORK / one.name, ignore_errors=True)
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
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
