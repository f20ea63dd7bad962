"""What a request says: its body, its host, its client; and why one is not answered."""

import asyncio
import ipaddress
import math
import re
import socket
from collections.abc import Awaitable, Collection, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

T = TypeVar("T")
LOOPBACK = ("127.0.0.1", "::1")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class HttpError(Exception):
    """A request that is not answered, and why."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say what is wrong.

        Args:
            param: the field, by its path.
            code: OpenAI's name of the error, where it has one.
            headers: of the response, such as Retry-After.
        """
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = dict(headers or {})


async def client_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def finish_or_leave(work: Awaitable[T], receive: Receive) -> asyncio.Task[T]:
    """Do work until it ends or the client leaves; return the ended task, cancelled in that case."""
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(client_left(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()
        task.cancel()
        await asyncio.wait({task})
    return task


async def read_body(receive: Receive, most: float = math.inf) -> bytes | None:
    """Read a request's body, none where the client left; HttpError where it is over `most`."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise body_too_large(int(most))
        if not message.get("more_body"):
            return b"".join(parts)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body read before, and then the client's leaving."""
    given = False

    async def receive_body() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await client_left(receive)
        return {"type": "http.disconnect"}

    return receive_body


def client_address(
    scope: Scope, headers: Headers, forwarded: bool, proxies: tuple[Network, ...] = ()
) -> str:
    """Return the address that a request comes from.

    A proxy on this machine, or one of ours, names it last in X-Forwarded-For, behind what anyone
    could have written there; where that is a trusted proxy itself, it is named before.
    """
    client = (scope.get("client") or ("", 0))[0]
    named = ",".join(headers.getlist("x-forwarded-for")).split(",")
    believed = forwarded or client in LOOPBACK or is_trusted_proxy(client, proxies)
    while believed and named:
        client = without_port(named.pop().strip()[:64]) or client
        believed = is_trusted_proxy(client, proxies)
    return client


def without_port(address: str) -> str:
    """Return an address of X-Forwarded-For without the port that some proxies add."""
    found = re.fullmatch(r"\[(.+)\](?::\d+)?|([^:]+):\d+", address)
    return (found[1] or found[2]) if found else address


def is_trusted_proxy(client: str, proxies: tuple[Network, ...]) -> bool:
    try:
        return bool(proxies) and any(ipaddress.ip_address(client) in one for one in proxies)
    except ValueError:
        return False


def content_length(text: str | None) -> int:
    """Parse a Content-Length; 0 where it is none."""
    return int(text) if text and text.isdigit() else 0


def body_too_large(body_bytes: int) -> HttpError:
    return HttpError(413, f"the body is over {body_bytes:,} bytes", code="request_too_large")


def is_known_host(host: str, names: Collection[str]) -> bool:
    """Whether a Host header names this server: by address, as localhost, or by one of its names.

    A page of another site can make its own name stand for this machine's address (DNS rebinding)
    and have its visitors' browsers ask here; the browser then still says that name.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name in {"", "localhost", *names} or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a server that binds this host is reached from its own machine alone."""
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_PASSIVE) if host else []
    except OSError:
        return False
    # An IPv6 address may come with its interface.
    addresses = [ipaddress.ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]
    return bool(addresses) and all(address.is_loopback for address in addresses)
