"""vLLM's own server as a process, in a Python environment of its own.

vLLM pins other versions of torch and transformers than ours, so it shares no process with us: a Ray
actor whose `runtime_env` holds vLLM (or none, where `vllm_python` names an environment that has
it) claims the GPUs and runs the server on its node, on loopback.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray

LOG_TAIL_BYTES = 3000


class VllmProcess:
    """The server of one model; it ends with the actor."""

    def __init__(self, python: str | None) -> None:
        """Choose the interpreter: one given, or this environment's own."""
        self.python = python or sys.executable
        self.log = Path(tempfile.mkdtemp(prefix="lima-vllm-")) / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, path: str, name: str, flags: list[str]) -> int:
        """Start the server and return its port; it answers once the model is loaded."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [self.python, "-m", "vllm.entrypoints.openai.api_server", "--model", path]
        command += ["--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)]
        environment = os.environ | {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *flags],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                preexec_fn=end_with_parent,
            )
        return port

    def ended(self) -> str | None:
        """Return what the server last wrote, once it has ended."""
        if self.process is None or self.process.poll() is None:
            return None
        tail = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return f"exit code {self.process.returncode}:\n{tail}"


def end_with_parent() -> None:
    """Have Linux end this process when its parent does (PR_SET_PDEATHSIG)."""
    ctypes.CDLL("libc.so.6").prctl(1, signal.SIGTERM)


def on_this_node(python: str | None, packages: list[str], gpus: float) -> Any:
    """Start an actor beside the replica that asks for it.

    Args:
        python: interpreter of an environment that has vLLM; none makes one of `packages`.
        packages: what pip installs into the actor's environment.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(VllmProcess)
        .options(
            num_cpus=0,
            num_gpus=gpus,
            runtime_env=None if python else {"pip": packages},
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote(python)
    )
