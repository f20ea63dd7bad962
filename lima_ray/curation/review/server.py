"""The review's server: one process for a folder, on the loopback unless it has logins."""

import asyncio
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import h11
import uvicorn
from sqlalchemy import URL
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lima_ray.config.errors import UserError
from lima_ray.curation.review.queue import ReviewItem, ReviewQueue
from lima_ray.curation.review.reviewers import ReviewStore
from lima_ray.curation.review.similarity import Embedder, Neighbours
from lima_ray.records.files import acquire_lock, explain_write_errors
from lima_ray.web.limits import LimitsMiddleware, RequestLimit
from lima_ray.web.requests import HttpError, is_known_host, is_loopback

REQUESTS = 512
REQUESTS_OF_CLIENT = 128
"""At once; an open window has two."""
BODY_BYTES = 2_000_000
HEAD_S = 10.0
CONNECTIONS = 512
"""Of one address, at once."""
END_S = 1
"""What open windows have for their end."""


def serve_review(
    queue: Sequence[ReviewItem],
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    login_file: Path | None = None,
    open_browser: bool = True,
    rows: Mapping[str, int] | None = None,
    lead: str = "",
    embedder: Embedder | None = None,
    title: str = "Review",
) -> None:
    """Serve the review page until Ctrl-C or SIGTERM.

    Args:
        queue: candidates of each source, those not picked too, which replace what is dropped.
        folder: of the journal `decisions.jsonl` and the sessions; made where it is missing.
        host: what the port is bound to.
        port: 0 takes a free one.
        login_file: lines `name:hash` of the reviewers; none asks each browser for a name.
        open_browser: open the page, where there is a screen.
        rows: asked of each source; without it as many as are picked.
        lead: name of the reviewer who decides ties.
        embedder: of the neighbours shown; without one they are by tf-idf.
        title: of the page.

    Raises:
        UserError: nothing to review, a port that is open or taken, another review of the folder, a
            login file or a journal that is none.
    """
    if not queue:
        raise UserError("there is no candidate to review; the funnel says which filter took them")
    check_closed(host, login_file)
    with explain_write_errors(folder, "--out"):
        folder.mkdir(parents=True, exist_ok=True)
        busy = f"another review of {folder} runs; open its page, or end it first"
        lock = acquire_lock(folder / ".lock", busy)
    try:
        reviewed = ReviewQueue(queue, folder, rows, lead)
        texts = [item.candidate.text for item in reviewed.items.values()]
        neighbours = Neighbours(texts, embedder)
        database = URL.create("sqlite", database=str(folder / "sessions.sqlite"))
        store = ReviewStore(database.render_as_string())
        # Gradio takes seconds, and a dataset is made without it.
        from lima_ray.curation.review.page import build_page

        page = build_page(reviewed, neighbours, store, title, login_file)
        app = protect(page, None if login_file else frozenset())
        try:
            with listen(host, port) as listener:
                run(app, listener, open_browser)
        finally:
            store.close()
    finally:
        lock.release()


def check_closed(host: str, login_file: Path | None) -> None:
    """Refuse a review that anybody could join.

    Raises:
        UserError: others reach it and there is no login file, or the file is missing.
    """
    if login_file is None and not is_loopback(host):
        raise UserError(
            f"the review is open to others on {host or 'every interface'} and has no login file. "
            "Make lines by `python -m serve.login NAME` and name their file, or bind 127.0.0.1 and "
            "forward the port by ssh -L"
        )
    if login_file and not login_file.is_file():
        raise UserError(f"{login_file}: no such file; `python -m serve.login NAME` makes its lines")


def protect(page: ASGIApp, names: frozenset[str] | None) -> ASGIApp:
    """Return the page behind bounds and, without logins, a check of the host that it is asked by.

    Args:
        page: what answers.
        names: by which it is known besides addresses and localhost; none takes any.
    """
    limit = RequestLimit("the page", REQUESTS, REQUESTS_OF_CLIENT, BODY_BYTES)
    limited = LimitsMiddleware(page, {"": limit})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        host = dict(scope.get("headers", [])).get(b"host", b"").decode("latin-1")
        if scope["type"] == "http" and names is not None and not is_known_host(host, names):
            refused = PlainTextResponse("this server answers to addresses and localhost", 421)
            await refused(scope, receive, send)
            return
        try:
            await limited(scope, receive, send)
        except HttpError as refusal:
            refused = PlainTextResponse(str(refusal), refusal.status, refusal.headers)
            await refused(scope, receive, send)

    return app


class BoundedConnection(H11Protocol):
    """A connection that is closed where no head comes in time, or its client has too many.

    A head of more than 64 KiB is answered 400, by h11; httptools, which uvicorn takes otherwise,
    reads one of any size.
    """

    late: asyncio.TimerHandle | None = None
    """Closes the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore
        super().connection_made(transport)
        self.await_head()
        address = self.client and self.client[0]
        others = (one.client for one in self.connections if isinstance(one, H11Protocol))
        if sum(one is not None and one[0] == address for one in others) > CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.await_head()

    def await_head(self) -> None:
        """Set the time for a head that is not whole."""
        if self.conn.their_state is not h11.IDLE:
            if self.late:
                self.late.cancel()
            self.late = None
        elif self.late is None:
            self.late = self.loop.call_later(HEAD_S, self.transport.close)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UserError: it cannot, such as where another program has the port.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"--port is {port}; ports are 0 to 65535, and 0 takes a free one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"port {port} of {host} cannot be had ({error.strerror}); give another --port"
        ) from error


def run(app: ASGIApp, listener: socket.socket, open_browser: bool) -> None:
    """Answer until a signal ends it."""
    address, port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    url = f"http://{shown}:{port}/"
    print(f"review page    {url}\neach decision is saved at once; Ctrl-C ends", flush=True)
    if open_browser and (os.environ.get("DISPLAY") or sys.platform == "darwin"):
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    config = uvicorn.Config(
        app,
        http=BoundedConnection,
        ws="none",
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=END_S,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
