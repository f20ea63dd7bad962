"""A page's server: on the loopback unless it has logins, and no client takes it from the others."""

import asyncio
import os
import signal
import socket
import sys
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path

import h11
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lima_ray.config.errors import UserError
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


def check_closed(host: str, login_file: Path | None, page: str) -> None:
    """Refuse a page that anybody could join; in messages it is called `page`.

    Raises:
        UserError: others reach it and there is no login file, or the file is missing.
    """
    if login_file is None and not is_loopback(host):
        raise UserError(
            f"the {page} is open to others on {host or 'every interface'} and has no login file. "
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


def run(app: ASGIApp, listener: socket.socket, open_browser: bool, told: str) -> None:
    """Answer until a signal ends it; the address and what is `told` of the page are printed."""
    address, port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    url = f"http://{shown}:{port}/"
    print(told.format(url=url), flush=True)
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
    # uvicorn ends, and then raises the signal again: what follows the page is still to be done.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
