"""Ask ports without a token, by HTTP and by every method of Ray's gRPC services.

Run in another network namespace: it reads `{"host": ADDRESS, "ports": [...]}` and prints, for each
port that takes a connection, the paths and methods that answer.
"""

import importlib
import json
import pkgutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Any

PATHS = (
    "/",
    "/-/healthz",
    "/-/routes",
    "/api/actors",
    "/api/authentication_mode",
    "/api/cluster_status",
    "/api/gcs_healthz",
    "/api/grafana_health",
    "/api/healthz",
    "/api/job_agent/jobs/x/logs",
    "/api/jobs/",
    "/api/local_raylet_healthz",
    "/api/packages/gcs/x.zip",
    "/api/prometheus/sd",
    "/api/serve/applications/",
    "/api/train/v2/runs",
    "/api/v0/actors",
    "/api/v0/cluster_metadata",
    "/api/v0/logs",
    "/api/v0/nodes",
    "/api/v0/runtime_envs",
    "/api/v0/tasks",
    "/api/version",
    "/chat/",
    "/docs",
    "/events",
    "/get_runtime_envs_info",
    "/health",
    "/logical/actors",
    "/metrics",
    "/nodes?view=summary",
    "/openapi.json",
    "/ready",
    "/static/",
    "/stats",
    "/test/dump",
    "/timezone",
    "/v1/models",
    "/worker/traceback",
)
REFUSED = (400, 401, 403, 404, 405, 501)
TIMEOUT_S = 3.0


def connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except OSError:
        return False
    return True


def answering_paths(host: str, port: int) -> list[str]:
    """Return the paths that answer a GET with something else than a refusal."""
    found = []
    for path in PATHS:
        connection = HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            status = connection.getresponse().status
        except (OSError, HTTPException):
            if path == PATHS[0]:
                return []  # it speaks no HTTP
            continue
        finally:
            connection.close()
        if status not in REFUSED:
            found.append(f"GET {path} {status}")
    return found if len(found) < len(PATHS) else ["GET of any path 200"]


def ray_methods() -> list[str]:
    """Return every method of the gRPC services that Ray defines."""
    found = set[str]()
    for package in map(importlib.import_module, ("ray.core.generated", "ray.serve.generated")):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("_pb2"):
                continue
            descriptor = importlib.import_module(module.name).DESCRIPTOR
            for service in descriptor.services_by_name.values():
                found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    return sorted(found)


def answering_methods(host: str, port: int, methods: list[str]) -> list[str]:
    """Return the methods that answer an empty request, and with what; not those that refuse it."""
    import grpc

    refused = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED)
    found = []
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(TIMEOUT_S)
        except grpc.FutureTimeoutError:
            return []  # it speaks no gRPC
        for method in methods:
            try:
                channel.unary_unary(method)(b"", timeout=TIMEOUT_S)
                code = "OK"
            except grpc.RpcError as error:
                status: Any = error
                if status.code() in refused:
                    continue
                code = status.code().name
            found.append(f"{method} {code}")
    return found


def probe(host: str, ports: list[int]) -> dict[int, list[str]]:
    """Return what answers on each port that takes a connection."""
    methods = ray_methods()

    def ask(port: int) -> list[str]:
        return answering_paths(host, port) + answering_methods(host, port, methods)

    reached = [port for port in ports if connects(host, port)]
    with ThreadPoolExecutor(8) as threads:
        return dict(zip(reached, threads.map(ask, reached), strict=True))


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(json.dumps(probe(given["host"], given["ports"])))
