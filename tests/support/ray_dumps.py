"""What a Ray cluster shows to whoever holds its token, and what its nodes leave on disk."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.drill.nodes import LocalCluster

TABLES = (
    "actors",
    "jobs",
    "nodes",
    "objects",
    "placement_groups",
    "runtime_envs",
    "tasks",
    "workers",
)
PAGES = [
    *(f"/api/v0/{table}?detail=1&limit=10000" for table in TABLES),
    *(f"/api/v0/{table}/summarize" for table in ("actors", "objects", "tasks")),
    "/api/cluster_status?format=1",
    "/api/jobs/",
    "/api/serve/applications/",
    "/api/train/v2/runs",
    "/api/train/v2/runs/v1",
    "/api/v0/cluster_events",
    "/api/v0/cluster_metadata",
    "/api/v0/tasks/timeline",
    "/events",
    "/logical/actors",
    "/nodes?view=details",
    "/nodes?view=summary",
    "/test/dump",
]
GCS = """
import ray
from ray._private.internal_api import memory_summary
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list
ray.init(log_to_driver=False)
names = "fun job session serve workflow dashboard cluster package autoscaler tracing"
spaces = [None, *(name.encode() for name in names.split())]
for space in spaces:
    for key in _internal_kv_list(b"", namespace=space):
        print(space, key, _internal_kv_get(key, namespace=space))
print(memory_summary(stats_only=False))
"""


def answers(cluster: LocalCluster) -> Iterator[tuple[str, bytes]]:
    """Yield the dashboard's pages and what they answer, those of each actor, node and job too."""
    found = dict[str, bytes]()
    for page in PAGES:
        found[page] = ask(cluster, page)
        yield page, found[page]
    for kind, page in (("logical/actors", "/api/v0/actors"), ("nodes", "/api/v0/nodes")):
        listed = json.loads(found[f"{page}?detail=1&limit=10000"])["data"]["result"]["result"]
        for one in listed:
            id = one.get("actor_id") or one["node_id"]
            yield f"/{kind}/{id}", ask(cluster, f"/{kind}/{id}")
    for job in json.loads(found["/api/jobs/"]):
        for page in [f"/api/data/datasets/{job['job_id']}"] if job["job_id"] else []:
            yield page, ask(cluster, page)
        if job["submission_id"]:
            page = f"/api/jobs/{job['submission_id']}"
            yield page, ask(cluster, page)
            yield f"{page}/logs", ask(cluster, f"{page}/logs")


def ask(cluster: LocalCluster, page: str) -> bytes:
    token = cluster.token_file.read_text()
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(cluster.dashboard + page, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        return error.read()


def key_values(cluster: LocalCluster, environment: dict[str, str]) -> bytes:
    """Return the key-value store of the GCS, and `ray memory`, as a driver reads them."""
    done = subprocess.run(
        [sys.executable, "-c", GCS], env=environment | cluster.environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def files(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below folders: logs, events, uploaded packages, the GCS's own on disk."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield str(path), path.read_bytes()


def where(needle: str, shown: dict[str, bytes]) -> list[str]:
    """Return the name of each dump that has a text, and what stands around it."""
    found = []
    for name, content in shown.items():
        at = content.find(needle.encode())
        if at >= 0:
            found.append(f"{name}: {content[max(0, at - 100) : at + 100]!r}")
    return sorted(found)
