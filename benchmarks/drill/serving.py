"""Faults of serving: a replica or a proxy that dies with streams under way, as clients see it."""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import psutil
import yaml

from benchmarks.drill.nodes import HOST, LocalCluster, local_cluster
from benchmarks.drill.outcome import Fault, Outcome, expect, skipped, wait_until
from benchmarks.servers import ROOT, beside, free_port
from lima_ray import base
from lima_ray.config.errors import UserError
from serve import haproxy

STREAMS = 6
KEY = "drill"
LONG = {"model": "long", "prompt": "the", "temperature": 0, "max_tokens": 8000}
LONG |= {"repetition_penalty": 1}
"""A request whose reply takes many seconds."""
SHORT = LONG | {"max_tokens": 4}
START_S = 240.0
BACK_S = 180.0


@dataclass
class Served:
    """An app of two replicas on a cluster of one node."""

    cluster: LocalCluster
    port: int

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=f"http://{HOST}:{self.port}", headers=headers, timeout=120)

    def answers(self) -> bool:
        """Return whether a short request is answered."""
        try:
            with self.client() as client:
                return client.post("/v1/completions", json=SHORT, timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def stream(self, began: list[float]) -> str:
        """Ask for a long reply, and return how it ended: done, error, or broken."""
        lines: list[str] = []
        try:
            with (
                self.client() as client,
                client.stream("POST", "/v1/completions", json=LONG | {"stream": True}) as response,
            ):
                for line in filter(None, response.iter_lines()):
                    if not lines:
                        began.append(time.monotonic())
                    lines.append(line)
        except httpx.HTTPError:
            return "broken"
        if lines[-1:] == ["data: [DONE]"]:
            return "error" if any('"error"' in line for line in lines[-3:]) else "done"
        return "broken"

    def replicas(self) -> dict[str, int]:
        """Return ids and processes of the engine's running replicas; none while Serve is silent."""
        try:
            apps = self.cluster.get("/api/serve/applications/")["applications"]
        except (OSError, ValueError, KeyError):
            return {}
        found = apps.get("lima", {}).get("deployments", {}).get("Engine", {}).get("replicas", [])
        return {one["replica_id"]: one["pid"] for one in found if one["state"] == "RUNNING"}

    def find(self, title: str) -> list[psutil.Process]:
        """Return the head's processes whose title or command has a word."""
        return [p for p in self.cluster.head.processes() if title in " ".join(p.cmdline())]


@contextmanager
def served(folder: Path, variables: dict[str, str] | None = None) -> Iterator[Served]:
    """Deploy the app by `serve deploy`, with environment variables of the whole cluster."""
    model, port = folder / "long", free_port()
    rows = ROOT / "lima_ray" / "miniature" / "rows" / "train.jsonl"
    base.build(str(rows), model, hidden=64, layers=2, vocab=320, context=8192)
    (folder / "keys").write_text(KEY)
    arguments = {"model": {"long": str(model)}, "replicas": 2, "cpus": 0.5, "threads": 1}
    arguments |= {"slots": 8, "page": False, "api_keys_file": str(folder / "keys")}
    application = {"name": "lima", "import_path": "serve.app:build", "args": arguments}
    config = {"proxy_location": "HeadOnly", "http_options": {"host": HOST, "port": port}}
    (folder / "serve.yaml").write_text(yaml.safe_dump(config | {"applications": [application]}))
    with local_cluster(head_cpus=2, variables=variables) as cluster:
        app = Served(cluster, port)
        deploy = [str(beside("serve")), "deploy", str(folder / "serve.yaml")]
        environment = os.environ | cluster.environment
        subprocess.run(deploy, cwd=ROOT, env=environment, check=True, capture_output=True)
        wait_until(lambda: len(app.replicas()) == 2, START_S, "two replicas")
        wait_until(app.answers, START_S, "the first answer")
        yield app


def interrupt(app: Served, fault: Callable[[], None]) -> tuple[Counter[str], float]:
    """Cause a fault with streams under way; return their endings, and seconds until an answer."""
    began: list[float] = []
    with ThreadPoolExecutor(STREAMS) as threads:
        streams: list[Future[str]] = [threads.submit(app.stream, began) for _ in range(STREAMS)]
        wait_until(lambda: len(began) == STREAMS, 60, "all streams under way")
        fault_s = time.monotonic()
        fault()
        wait_until(app.answers, BACK_S, "an answer after the fault")
        seconds = time.monotonic() - fault_s
        endings = Counter(stream.result() for stream in streams)
    return endings, seconds


def describe(endings: Counter[str]) -> str:
    told = {"done": "whole", "error": "ended by an error event", "broken": "cut off"}
    return ", ".join(f"{endings[one]} {told[one]}" for one in told if endings[one])


def kill_replica(folder: Path) -> Outcome:
    with served(folder) as app:
        victim, pid = next(iter(app.replicas().items()))
        began = time.monotonic()
        endings, seconds = interrupt(app, psutil.Process(pid).kill)
        expect(endings["done"] > 0, f"streams of the other replica: {describe(endings)}")
        wait_until(lambda: len(app.replicas().keys() - {victim}) == 2, BACK_S, "two replicas again")
        again = time.monotonic() - began
    lost = STREAMS - endings["done"]
    return Outcome(
        f"{lost} of {STREAMS} streams ({describe(endings)})",
        seconds,
        f"the other replica answers; two again after {again:.0f} s",
    )


def kill_proxy(folder: Path) -> Outcome:
    with served(folder) as app:
        (victim,) = app.find("ray::ProxyActor")
        endings, seconds = interrupt(app, victim.kill)
    return Outcome(f"the streams through it ({describe(endings)})", seconds, "answers again")


def kill_haproxy(folder: Path) -> Outcome:
    try:
        program = str(haproxy.program())
    except UserError as error:
        return skipped(str(error))
    variables = {"RAY_SERVE_ENABLE_HA_PROXY": "1", haproxy.BINARY_PATH: program}
    with served(folder, variables) as app:
        victim = next(p for p in app.find("haproxy") if p.name() == "haproxy")
        endings, seconds = interrupt(app, victim.kill)
    return Outcome(f"the streams through it ({describe(endings)})", seconds, "answers again")


FAULTS = [
    Fault("replica", "SIGKILL of a Serve replica in mid-stream", kill_replica),
    Fault("proxy", "SIGKILL of Serve's proxy in mid-stream", kill_proxy),
    Fault("haproxy", "SIGKILL of HAProxy in mid-stream", kill_haproxy),
]
