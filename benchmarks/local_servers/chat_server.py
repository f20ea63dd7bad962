"""A local server that speaks OpenAI's chat completions, and misbehaves where it is told to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.local_servers.http_server import QuietHandler, listening

Response = tuple[int, dict[str, str], bytes]
DROP: Response = (0, {}, b"")
"""Close the connection without a word."""
KEY = "sk-right-and-secret"


def said(text: str | None, finish: str | None = "stop", tokens: int | None = 3) -> Response:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return 200, {}, json.dumps({"choices": [choice]} | usage).encode()


def refused(status: int, message: str = "no", code: str = "x", **headers: str) -> Response:
    """An error as OpenAI words it."""
    body = {"error": {"message": message, "code": code}}
    return status, {k.replace("_", "-"): v for k, v in headers.items()}, json.dumps(body).encode()


@dataclass
class ChatServer:
    """Chat completions: what `first` holds for a question, response by response, then an echo."""

    first: dict[str, list[Response]] = field(default_factory=dict)
    seconds: float = 0
    """What every answer takes."""
    held: Callable[[str], bool] = lambda question: False
    """Questions that are never answered."""
    grading: Callable[[str], str] = lambda question: f"re: {question}"
    models: Response = (200, {}, b'{"data": [{"id": "m"}]}')
    """What is told of the models."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def asked(self) -> list[str]:
        """Last turns of all requests, in the order they came."""
        return [r["messages"][-1]["content"] for r in self.requests]

    def answer(self, body: dict[str, Any]) -> Response:
        question = body["messages"][-1]["content"]
        if self.held(question):
            self.closing.wait()
            return DROP
        planned = self.first.get(question)
        if planned:
            return planned.pop(0)
        time.sleep(self.seconds)
        return said(self.grading(question))


Server = TypeVar("Server", bound=ChatServer)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Serve; once left, the port refuses connections."""

    class CompletionHandler(QuietHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            listing = self.path == "/v1/models"
            self.respond(*(server.models if listing else refused(404, f"no {self.path}")))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.requests.append(body)
                server.headers.append(dict(self.headers))
                server.times.append(time.monotonic())
                server.busy += 1
                server.busiest = max(server.busiest, server.busy)
            status, headers, content = server.answer(body)
            if self.path != "/v1/chat/completions":
                status, headers, content = refused(404, f"no {self.path}")
            with server.lock:
                server.busy -= 1
            if not status:
                self.close_connection = True
                return
            self.respond(status, headers, content)

    with listening(CompletionHandler) as port:
        server.url = f"http://127.0.0.1:{port}/v1"
        try:
            yield server
        finally:
            server.closing.set()
