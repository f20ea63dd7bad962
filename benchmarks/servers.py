"""The servers that `benchmarks/serve.py` compares: how each starts, is known to be ready, and ends.

All listen on loopback. Whatever a server starts is ended with it.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).parents[1]
SLOTS = 32
"""Replies that each server may decode at once."""
CONTEXT = 2048
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
"""For our engine: threads that wait for each other spin by default, on cores that the client needs.
vLLM and llama.cpp are faster as they come."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "4",
}
"""For every contender alike; the caller's own variables come before these."""


def environment(own: dict[str, str], gpu: bool) -> dict[str, str]:
    """A contender's variables, the caller's before them; on the CPU, no GPU is seen."""
    return ENVIRONMENT | own | os.environ | ({} if gpu else {"CUDA_VISIBLE_DEVICES": ""})


@dataclass(frozen=True)
class Server:
    """A command that serves, and how to ask it."""

    command: list[str]
    model: str
    """Its name there."""
    ready: str
    """Path that answers 200 when it is ready."""
    environment: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    """What its requests have besides those of all; null takes one away."""


@dataclass
class Running:
    """A server that is up."""

    url: str
    process: psutil.Process

    def family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        total = 0.0
        for process in self.family():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            total += times.user + times.system
        return total


def ours(model: Path, work: Path, port: int, gpu: bool, by_haproxy: bool = False) -> Server:
    """Our app by `serve run`, without the page."""
    environment = dict(PASSIVE)
    arguments: dict[str, Any] = {"model": {"bench": str(model)}, "page": False, "slots": SLOTS}
    arguments["gpus"] = int(gpu)
    if by_haproxy:
        told = [sys.executable, "-m", "serve.haproxy"]
        program = subprocess.check_output(told, cwd=ROOT, text=True).strip()
        environment["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
        environment["RAY_SERVE_HAPROXY_BINARY_PATH"] = program
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {"name": "bench", "import_path": "serve.app:build", "args": arguments},
        ],
    }
    (work / "serve.yaml").write_text(yaml.safe_dump(config))
    return Server(
        [str(beside("serve")), "run", "--address", "local", str(work / "serve.yaml")],
        model="bench",
        ready="/ready",
        environment=environment,
        fields={"repetition_penalty": 1},
    )


def transformers(model: Path, port: int, gpu: bool, batching: bool) -> Server:
    """`transformers serve`; its batching with sizes that suit a CPU, since the defaults do not."""
    batched = ["--continuous-batching", "--attn-implementation", "sdpa"]
    device, dtype = ("cuda", "bfloat16") if gpu else ("cpu", "float32")
    if not gpu:
        batched += ["--cb-block-size", "32", "--cb-num-blocks", str(SLOTS * CONTEXT // 64)]
        batched += ["--cb-max-batch-tokens", "256"]
    return Server(
        [
            *(str(beside("transformers")), "serve", str(model)),
            *("--host", "127.0.0.1", "--port", str(port), "--device", device, "--dtype", dtype),
            *(batched if batching else []),
        ],
        model=str(model),
        ready="/health",
        # A temperature of 0 ends its engine for everyone; without one it is greedy.
        fields={"temperature": None},
    )


def vllm(python: Path, model: Path, port: int, gpu: bool) -> Server:
    """vLLM's CPU build, or on a GPU vLLM."""
    cores = sorted(os.sched_getaffinity(0))
    return Server(
        [
            *(str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
            *("--served-model-name", "bench", "--host", "127.0.0.1", "--port", str(port)),
            *("--dtype", "bfloat16" if gpu else "float32", "--max-model-len", str(CONTEXT)),
            *("--max-num-seqs", str(SLOTS), *([] if gpu else ["--enforce-eager"])),
        ],
        model="bench",
        ready="/health",
        environment={"VLLM_CPU_OMP_THREADS_BIND": f"{cores[0]}-{cores[-1]}"},
    )


def llama(binary: Path, model: Path, port: int) -> Server:
    """llama.cpp's server, a path or on PATH, keys and values in fp32 as the others'."""
    program = Path(shutil.which(binary) or binary).absolute()
    return Server(
        [
            *(str(program), "-m", str(model), "--host", "127.0.0.1", "--port", str(port)),
            *(
                "-np",
                str(SLOTS),
                "-c",
                str(SLOTS * CONTEXT),
                "-t",
                str(len(os.sched_getaffinity(0))),
            ),
            *("-fa", "on", "-ctk", "f32", "-ctv", "f32"),
        ],
        model="bench",
        ready="/health",
    )


def beside(command: str) -> Path:
    """A command of this Python's environment."""
    return Path(sys.executable).with_name(command)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def running(
    server: Server, port: int, log: Path, gpu: bool, wait_s: float = 240
) -> Iterator[Running]:
    """Start a server, wait until it is ready, and end it with all that it started.

    Raises:
        SystemExit: it ended, or was not ready in time; the end of its log says why.
    """
    with log.open("w") as file:
        process = subprocess.Popen(
            server.command,
            cwd=ROOT,
            env=environment(server.environment, gpu),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    up = Running(f"http://127.0.0.1:{port}", psutil.Process(process.pid))
    try:
        until_s = time.monotonic() + wait_s
        while not is_ready(up.url + server.ready):
            if process.poll() is not None or time.monotonic() > until_s:
                said = log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"{' '.join(server.command)} is not ready; {log} ends:\n{said}")
            time.sleep(0.3)
        yield up
    finally:
        end(up, process)


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as got:
            return got.status == 200
    except (urllib.error.URLError, OSError):
        return False


def end(up: Running, process: subprocess.Popen[bytes]) -> None:
    family = up.family() if process.poll() is None else []
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=20)
    for left in alive:
        left.kill()
    process.wait()
