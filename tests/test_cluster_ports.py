"""Ports of a cluster, seen from another machine that has no token: which are open, what answers."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest
from cluster_jobs import BUSY_MACHINE, deployed
from namespace import OtherMachine, other_machine

from benchmarks.drill.nodes import LocalCluster
from benchmarks.servers import free_port
from lima_ray.config.errors import UserError
from lima_ray.web.passwords import login_line
from serve import haproxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[1]
PROBE = ROOT / "tests" / "support" / "port_probe.py"
ROLES = {
    "gcs_server": "GCS",
    "raylet/raylet": "raylet",
    "dashboard/dashboard.py": "dashboard",
    "ray::DashboardAgent": "agent",
    "ray::RuntimeEnvAgent": "runtime environments",
    "monitor.py": "autoscaler",
    "ray.util.client.server": "Ray client",
    "haproxy": "HAProxy",
    "ray::ProxyActor": "Ray's proxy",
    "ray::": "worker",
    "ray-dashboard": "dashboard",
}
"""Who listens, by a part of its command."""
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""What keeps a Ray of one machine on its loopback, `ray start` too."""
SERVE = {f"GET {path} 200" for path in ("/-/healthz", "/-/routes", "/docs", "/health")}
SERVE |= {"GET / 307", "GET /openapi.json 200", "GET /ready 200"}
"""What our server answers without a key or a login: nothing of models or conversations."""
HEALTH = {"GET /api/healthz 200", "GET /api/local_raylet_healthz 200"}


@pytest.fixture(scope="module")
def other() -> Iterator[OtherMachine]:
    with other_machine() as machine:
        yield machine


def sourced() -> dict[str, str]:
    """Return what cluster/environment.sh exports for Ray, its files and ports this test's own."""
    try:
        haproxy.program()
    except UserError as error:
        pytest.skip(str(error))
    kept = {name: os.environ[name] for name in ("HOME", "PATH")} | {"LIMA_VENV": sys.prefix}
    said = subprocess.run(
        ["bash", "-c", "source cluster/environment.sh && env"],
        env=kept,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = (line.partition("=") for line in said.splitlines())
    return {name: value for name, _, value in lines if name.startswith("RAY_")}


@contextmanager
def started(more: dict[str, str], nodes: int = 0) -> Iterator[LocalCluster]:
    """Start a head as the guide does, with files and ports apart from those of others."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    ports = {f"{one}_METRIC_PORT": str(free_port()) for one in ("AUTOSCALER", "DASHBOARD")}
    own = {"METRICS_PORT": free_port(), "STATS_PORT": free_port()}
    own |= {"CONFIG_FILE_LOC": folder / "haproxy.cfg", "SOCKET_PATH": folder / "admin.sock"}
    own |= {"SERVER_STATE_BASE": folder, "SERVER_STATE_FILE": folder / "server-state"}
    variables = sourced() | {f"RAY_SERVE_HAPROXY_{name}": str(one) for name, one in own.items()}
    cluster = LocalCluster(folder, variables | BUSY_MACHINE | more | ports, head_cpus=4)
    try:
        cluster.start_head()
        if nodes:
            cluster.add_nodes(nodes)
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def serving(
    cluster: LocalCluster, folder: Path, model: Path, host: str = "0.0.0.0"
) -> Iterator[str]:
    """Serve a model behind keys and logins."""
    (folder / "api_keys").write_text("a-key\n")
    (folder / "logins").write_text(f"{login_line('anna', 'sesame')}\n")
    args = {"model": str(model), "slots": 4, "threads": 1, "database": f"sqlite:///{folder}/chat"}
    args |= {"api_keys_file": f"{folder}/api_keys", "login_file": f"{folder}/logins"}
    with deployed(cluster, folder, args, host) as url:
        yield url


def listening(cluster: LocalCluster) -> dict[int, str]:
    """Return every TCP port on which a process of the cluster listens, and who that is."""
    found = dict[int, str]()
    for node in (cluster.head, *cluster.nodes):
        for process in node.processes():
            with suppress(psutil.Error):
                command = " ".join(process.cmdline())
                role = next((role for part, role in ROLES.items() if part in command), command)
                for one in process.net_connections("tcp"):
                    if one.status == psutil.CONN_LISTEN and one.laddr:
                        found.setdefault(one.laddr.port, role)
    return found


def answers(cluster: LocalCluster, other: OtherMachine, host: str) -> dict[str, set[str]]:
    """Return, for each role whose port is open to another machine, what answers without a token."""
    roles = listening(cluster)
    assert {"GCS", "raylet", "dashboard", "agent", "worker"} <= set(roles.values()), roles
    found = defaultdict[str, set[str]](set)
    for port, said in other.call(PROBE, {"host": host, "ports": sorted(roles)}).items():
        found[roles[int(port)]].update(said)
    return dict(found)


def test_one_machine_opens_the_ports_of_serve_alone(
    other: OtherMachine, tmp_path: Path, brief_dir: Path
) -> None:
    with started(LOOPBACK) as cluster, serving(cluster, tmp_path, brief_dir):
        found = answers(cluster, other, other.host)
    assert found == {"HAProxy": SERVE, "worker": SERVE, "Ray's proxy": SERVE}


def test_a_loopback_host_closes_all_of_serving_to_others(
    other: OtherMachine, tmp_path: Path, brief_dir: Path
) -> None:
    with started(LOOPBACK) as cluster:
        with serving(cluster, tmp_path, brief_dir, host="127.0.0.1") as url:
            assert httpx.get(f"{url}/ready").status_code == 200
            found = answers(cluster, other, other.host)
            # The gRPC of replicas is open, and answers nobody without the token.
            assert not any(found.values()), found
        args = {"model": str(brief_dir), "slots": 4, "threads": 1, "page": False}
        with deployed(cluster, tmp_path, args) as url:  # needs no key
            assert httpx.get(f"{url}/v1/models").status_code == 200


def test_machines_open_ports_that_ask_for_the_token_and_metrics(
    other: OtherMachine, tmp_path: Path, brief_dir: Path
) -> None:
    with started({}, nodes=1) as cluster, serving(cluster, tmp_path, brief_dir):
        address = next(iter(cluster.list_nodes().values()))["node_ip"]
        found = answers(cluster, other, address)
    silent = ("GCS", "raylet", "Ray client", "runtime environments")
    metrics = {"GET of any path 200"}
    assert {role: said for role, said in found.items() if role not in silent} == {
        "HAProxy": SERVE,
        "Ray's proxy": SERVE,
        "worker": SERVE,
        "agent": metrics | HEALTH,
        "autoscaler": metrics,
        "dashboard": metrics,  # its own port for them; the other is on the loopback
    }
    assert all(not found.get(role) for role in silent)
