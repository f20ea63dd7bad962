"""Commands on a cluster of several nodes on this machine, on small real input."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from browser import free_port
from sweeps import PROMPTS, ROOT, ROWS

from benchmarks.drill.nodes import LocalCluster

EMPTY: Mapping[str, str] = {}
OF_RAY = (
    "DashboardAgent",
    "RuntimeEnvAgent",
    "IDLE",
    "_AutoscalingCoordinatorActor",
    "_StatsActor",
)
"""Processes of Ray's own, which stay when a job has ended."""
BUSY_MACHINE = {"RAY_memory_monitor_refresh_ms": "0", "RAY_raylet_start_wait_time_s": "180"}
"""Ray ends no worker for the memory that others on this machine take, and waits for slow nodes."""
OWN = ("OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "RAY_ADDRESS", "RAY_AUTH_MODE")


def environment(cluster: LocalCluster, more: Mapping[str, str] = EMPTY) -> dict[str, str]:
    """Return what a command on a cluster has, without this machine's own secrets."""
    kept = {name: value for name, value in os.environ.items() if name not in OWN}
    beside = f"{Path(sys.executable).parent}:{kept['PATH']}"
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    return kept | cluster.environment | {"PATH": beside, "PYTHONPATH": path} | dict(more)


def run(
    cluster: LocalCluster,
    command: Sequence[str | Path],
    more: Mapping[str, str] = EMPTY,
    timeout_s: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run a command of the project as a driver of the cluster, beside its head."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env=environment(cluster, more),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def submit(
    cluster: LocalCluster,
    *command: str | Path,
    flags: Sequence[str] = (),
    timeout_s: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Submit a command as the README does, and wait for its end."""
    job = ["ray", "job", "submit", "--working-dir", ".", *flags, "--", *command]
    return run(cluster, job, timeout_s=timeout_s)


def in_use(cluster: LocalCluster) -> list[str]:
    """Return what of a cluster is taken: actors, placement groups, cores, and their processes."""
    rows = cluster.get("/api/v0/actors?limit=10000")["data"]["result"]["result"]
    left = [one for one in rows if one["state"] != "DEAD" and one["class_name"] not in OF_RAY]
    found = [f"{one['class_name']} {one['state']}" for one in left]
    rows = cluster.get("/api/v0/placement_groups?limit=10000")["data"]["result"]["result"]
    found += [f"{one['name']} {one['state']}" for one in rows if one["state"] != "REMOVED"]
    usage = cluster.get("/api/cluster_status")["data"]["clusterStatus"]["loadMetricsReport"][
        "usage"
    ]
    found += [f"{kind} {usage[kind][0]}" for kind in ("CPU", "GPU") if usage.get(kind, [0])[0]]
    for node in (cluster.head, *cluster.nodes):
        for process in node.processes():
            with suppress(psutil.Error):
                title = " ".join(process.cmdline())
                kind = title.removeprefix("ray::").partition(".")[0]
                if title.startswith("ray::") and not kind.startswith(OF_RAY):
                    found.append(title)
    return found


def python(module: str, *arguments: str | Path) -> list[str]:
    return ["python", "-m", module, *map(str, arguments)]


def train(folder: Path, name: str, **fields: object) -> list[str]:
    """Return a training of the miniature that takes seconds; two workers, two epochs."""
    for split in ("dev", "test"):
        lines = (ROWS / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / f"{split}.jsonl").write_text("".join(lines[:PROMPTS]))
    whole = {
        "name": name,
        "runs_dir": folder / "runs",
        "data.rows": 64,
        "data.dev": folder / "dev.jsonl",
        "data.test": folder / "test.jsonl",
        "data.heldout": "None",
        "optim.epochs": 2,
        "optim.batch_examples": 32,
        "select.first_epoch": 1,
        "cluster.workers": 2,
        "sampling.context": 60,
    } | fields
    flags = [word for field, value in whole.items() for word in (f"--{field}", str(value))]
    return python("lima_ray.train", "miniature", *flags)


@contextmanager
def deployed(
    cluster: LocalCluster, folder: Path, args: dict[str, Any], host: str = "127.0.0.1"
) -> Iterator[str]:
    """Serve a model by `serve deploy` until the block ends, and yield its URL."""
    port = free_port()
    config = write_config(folder, args, port, host)
    try:
        ended = run(cluster, ["serve", "deploy", config])
        assert ended.returncode == 0, ended.stdout + ended.stderr
        until(lambda: "status: RUNNING" in status(cluster), lambda: status(cluster))
        yield f"http://127.0.0.1:{port}"
    finally:
        run(cluster, ["serve", "shutdown", "--yes"])


def write_config(folder: Path, args: dict[str, Any], port: int, host: str = "127.0.0.1") -> Path:
    """Write what `serve deploy` takes: one proxy, since all nodes are on one machine."""
    app = {"name": "lima", "import_path": "serve.app:build", "args": args}
    at = {"proxy_location": "HeadOnly", "http_options": {"host": host, "port": port}}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(at | {"applications": [app]}))
    return path


def status(cluster: LocalCluster) -> str:
    """Return what `serve status` says of the applications."""
    return run(cluster, ["serve", "status"]).stdout.partition("applications:")[2]


def until(
    holds: Callable[[], object], told: Callable[[], str] = str, timeout_s: float = 180
) -> None:
    """Wait until something holds; where it does not in time, say what is told then."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, told()
        time.sleep(0.5)
