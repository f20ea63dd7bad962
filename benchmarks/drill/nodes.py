"""A real Ray cluster of several nodes on this machine, which can be added, killed and restarted.

    with local_cluster() as cluster:                    # a head with its dashboard and job API
        node, _ = cluster.add_nodes(2, cpus=1)
        subprocess.run(command, env=os.environ | cluster.environment)
        node.kill()                                     # as a machine that loses power
        cluster.head.kill()
        cluster.start_head()                            # what it knew is in RocksDB

Every node is a `ray start` with a session, ports and a temporary directory of its own. Token
authentication is on; the dashboard is on the loopback, Ray's other ports are on the machine's
address, as on a real cluster. `ray.cluster_utils.Cluster` starts nodes with the environment of the
process that it is used in, so it knows neither a token nor the variables of one node, and it cannot
restart a head.
"""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.servers import ROOT, beside, free_port

HOST = "127.0.0.1"
START_S = 300.0
"""How long a node may take to join; seconds on a quiet machine."""
OBJECT_STORE_BYTES = 100 * 2**20
POLL_S = 0.2


class NodeError(RuntimeError):
    """A node did not join in time; the message has the end of its log."""


@dataclass
class Node:
    """A `ray start` that runs in the foreground, with all that it started."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    """Its temporary directory; Ray's logs are in `session_latest/logs` there."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What `ray start` printed."""
        return self.folder.with_suffix(".log")

    def start(self) -> None:
        # A head that finds its own address here, and among the flags of other nodes' processes on
        # this machine, takes itself for one that runs.
        (self.folder / "ray_current_cluster").unlink(missing_ok=True)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """Return its processes that are alive: those of its session, and what they started."""
        if self.process is None:
            return []
        found: dict[int, psutil.Process] = {}
        for one in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if os.getsid(one.pid) == self.process.pid:
                    # A job's driver has a session of its own.
                    for each in (one, *one.children(recursive=True)):
                        found[each.pid] = each
        return [p for p in found.values() if is_alive(p)]

    def kill(self) -> None:
        """End all its processes at once, as those of a machine that loses power."""
        while alive := self.processes():
            for one in alive:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(alive, timeout=5)
        if self.process is not None:
            self.process.wait()
            self.process = None


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@dataclass
class LocalCluster:
    """A head and nodes that joined it."""

    folder: Path
    """Short, since it holds sockets; `head` and `node-1` ... are its nodes' directories."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables of every process of it, such as RAY_testing_rpc_failure."""
    head_cpus: int = 0
    port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)
    head: Node = field(init=False)
    nodes: list[Node] = field(default_factory=list)
    """All but the head that were added, dead ones too."""

    def __post_init__(self) -> None:
        self.gcs_folder.mkdir()
        self.token_file.write_text(secrets.token_hex(32))
        self.token_file.chmod(0o600)
        flags = ["--head", f"--port={self.port}", f"--dashboard-host={HOST}"]
        flags += [f"--dashboard-port={self.dashboard_port}"]
        flags += [f"--ray-client-server-port={free_port()}"]
        storage = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self.gcs_folder)}
        self.head = self._node("head", self.head_cpus, flags, storage)

    @property
    def dashboard(self) -> str:
        """Address of the dashboard, which has the job API."""
        return f"http://{HOST}:{self.dashboard_port}"

    @property
    def token_file(self) -> Path:
        return self.folder / "token"

    @property
    def gcs_folder(self) -> Path:
        """Where RocksDB keeps what the head knows."""
        return self.folder / "gcs"

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to find the cluster and to be let in."""
        return {
            "RAY_ADDRESS": f"{HOST}:{self.port}",
            "RAY_API_SERVER_ADDRESS": self.dashboard,
            "RAY_DASHBOARD_ADDRESS": self.dashboard,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_USAGE_STATS_ENABLED": "0",
            "CUDA_VISIBLE_DEVICES": "",
            "DS_ACCELERATOR": "cpu",
            # Else it ends workers for the memory that others on this machine take.
            "RAY_memory_monitor_refresh_ms": "0",
        } | self.variables

    def start_head(self) -> None:
        """Start the head, or start it again, and wait until its dashboard lists it as alive."""
        self.head.start()
        self._wait_for(self.head)

    def add_nodes(
        self,
        count: int = 1,
        cpus: int = 1,
        wait: bool = True,
        variables: dict[str, str] | None = None,
    ) -> list[Node]:
        """Start so many nodes at once, with so many cores each, and wait until they have joined.

        Args:
            variables: of their environment alone, such as a disk of their own.
        """
        added = []
        for _ in range(count):
            name = f"node-{len(self.nodes) + 1}"
            added.append(self._node(name, cpus, [f"--address={HOST}:{self.port}"], variables or {}))
            self.nodes.append(added[-1])
            added[-1].start()
        for node in added if wait else []:
            self._wait_for(node)
        return added

    def _node(self, name: str, cpus: int, flags: list[str], more: dict[str, str]) -> Node:
        """Make a node with ports of its own: two on a machine collide on Ray's defaults."""
        folder = self.folder / name
        command = [str(beside("ray")), "start", "--block", *flags]
        command += [f"--node-name={name}", f"--temp-dir={folder}"]
        command += [f"--num-cpus={cpus}", "--num-gpus=0", "--disable-usage-stats"]
        command += [f"--object-store-memory={OBJECT_STORE_BYTES}"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # else both look in one range
        for one in ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export"):
            command.append(f"--{one}-port={free_port()}")
        variables = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        own = {k: v for k, v in self.environment.items() if k != "RAY_ADDRESS"}
        # Workers find the checkout whatever the job's own folder is.
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return Node(name, command, variables | own | {"PYTHONPATH": path} | more, folder)

    def list_nodes(self) -> dict[str, dict[str, Any]]:
        """Return what the head says of each node, dead ones too, by name; none while it is down."""
        try:
            found = self.get("/api/v0/nodes?detail=1&limit=1000")["data"]["result"]["result"]
        except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError):
            return {}
        # A name may come again after a head's restart; the latest is the one that counts.
        order = sorted(
            found, key=lambda one: (one["state"] == "ALIVE", one.get("start_time_ms", 0))
        )
        return {one["node_name"]: one for one in order}

    def get(self, path: str) -> Any:
        """Return the JSON that the dashboard answers."""
        token = self.token_file.read_text().strip()
        headers = {"x-ray-authorization": f"Bearer {token}"}
        request = urllib.request.Request(self.dashboard + path, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def node_id(self, node: Node) -> str:
        return self.list_nodes()[node.name]["node_id"]

    def _wait_for(self, node: Node) -> None:
        """Wait until a node has joined; one that gave up is started again, as by a supervisor."""
        deadline = time.monotonic() + START_S
        while self.list_nodes().get(node.name, {}).get("state") != "ALIVE":
            ended = node.process is None or node.process.poll() is not None
            if time.monotonic() > deadline:
                said = node.log.read_text(errors="replace")[-2000:]
                raise NodeError(
                    f"{node.name} did not join within {START_S:.0f} s; {node.log} ends:\n{said}"
                )
            if ended:  # Ray itself waits for 30 s, which a busy machine may exceed
                node.kill()
                node.start()
            time.sleep(POLL_S)

    def close(self) -> None:
        """End every process of every node."""
        for node in (*self.nodes, self.head):
            node.kill()


@contextmanager
def local_cluster(
    head_cpus: int = 0, variables: dict[str, str] | None = None, keep: bool = False
) -> Iterator[LocalCluster]:
    """Start a head, and end all nodes with the block.

    Args:
        head_cpus: cores that the head gives to tasks and actors; none keeps them off it.
        variables: environment variables of every process, such as RAY_testing_rpc_failure.
        keep: keep the folder, with Ray's logs.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    cluster = LocalCluster(folder, variables or {}, head_cpus)
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.close()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
