"""A server on this machine that answers as the Hugging Face hub does, as far as reading data needs.

`huggingface_hub` reads HF_ENDPOINT when it is imported, so who asks must be another process.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.local_servers.http_server import QuietHandler, listening

COMMIT = "a" * 40
TOKEN = "hf_right"


@dataclass
class Hub:
    """The datasets of a hub: `datasets["owner/name"]["file"]` is the file's content."""

    datasets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    """Datasets that only TOKEN opens."""
    requests: list[str] = field(default_factory=list)
    port: int = 0

    def environ(self, home: Path, **changes: str) -> dict[str, str]:
        """The environment of a process that takes this for the hub, its cache in `home`."""
        private = ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        own = {k: v for k, v in os.environ.items() if k.upper() not in private}
        return (
            own | {"HF_ENDPOINT": f"http://127.0.0.1:{self.port}", "HF_HOME": str(home)} | changes
        )

    def answer(self, path: str, token: str | None) -> tuple[int, dict[str, str], bytes]:
        parts = path.split("?")[0].strip("/").removeprefix("api/").split("/")
        name, rest = "/".join(parts[1:3]), parts[3:]
        files = self.datasets.get(name)
        if parts[0] != "datasets" or files is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if name in self.gated and token != f"Bearer {TOKEN}":
            return (403 if token else 401), {"X-Error-Code": "GatedRepo"}, b""
        file = "/".join(rest[2:])
        if rest[:1] == ["resolve"]:
            if file not in files:
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
            return 200, {"ETag": f'"{hash(files[file])}"'}, files[file]
        tree = [{"type": "file", "path": f, "size": len(c), "oid": "b"} for f, c in files.items()]
        about = {"id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0}
        found = [] if file else tree if rest[:1] == ["tree"] else about
        return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub; once left, its port refuses connections."""

    class HubHandler(QuietHandler):
        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, body = hub.answer(self.path, self.headers.get("Authorization"))
            self.respond(status, headers | {"X-Repo-Commit": COMMIT}, body)

        do_HEAD = do_GET

        def do_CONNECT(self) -> None:
            """Refuse, as a proxy that lets nothing out."""
            self.send_error(403)

    with listening(HubHandler) as hub.port:
        yield hub
