"""How much of a replica one client may hold, and all of them together.

A replica answers the API and the page on one event loop, and Serve lets it have so many requests at
once. Whoever sends half a body and waits, or opens a thousand pages, would keep all others out. So
each kind of request has a bound of its own, of which one client gets a part; a body is read before
its request goes any further, in a bounded time; and where many bodies are waited for, the one that
has kept us waiting for longest is given up for the newest.
"""

import asyncio
import ipaddress
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.api.errors import Refusal

BODY_S = 20.0
"""Time for a whole body."""
RETRY_S = 5
LOOPBACK = ("127.0.0.1", "::1")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass
class Kind:
    """Requests that share a bound."""

    name: str
    """In messages."""
    most: int
    """Requests at once, and as many bodies on their way."""
    most_of_client: int
    """Those of one client."""
    body_bytes: int
    """Longest body."""
    held: Counter[str] = field(default_factory=Counter)
    """Requests at once, by client."""
    bodies: dict[asyncio.Future[None], str] = field(default_factory=dict)
    """Bodies on their way, the oldest first, each with its client; a result gives it up."""

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Take one of the places.

        Raises:
            Refusal: all of them, or all of this client's, are taken.
        """
        if self.held.total() >= self.most or self.held[client] >= self.most_of_client:
            yours = self.held[client] >= self.most_of_client
            whose = f"{self.most_of_client} of yours" if yours else f"{self.most} in all"
            raise Refusal(
                429 if yours else 503,
                f"as many requests of {self.name} as are held at once ({whose}); try again in "
                f"{RETRY_S} s",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(RETRY_S)},
            )
        self.held[client] += 1
        try:
            yield
        finally:
            self.held[client] -= 1
            if not self.held[client]:
                del self.held[client]

    async def body(self, receive: Receive, client: str) -> bytes | None:
        """The whole body; none where the client left.

        Raises:
            Refusal: it is too long, takes too long, or others were waited for instead.
        """
        given_up = asyncio.get_running_loop().create_future()
        own = [body for body, whose in self.bodies.items() if whose == client]
        if len(own) >= self.most_of_client or len(self.bodies) >= self.most:
            oldest = (own if len(own) >= self.most_of_client else list(self.bodies))[0]
            del self.bodies[oldest]
            oldest.set_result(None)
        self.bodies[given_up] = client
        reading = asyncio.ensure_future(read_body(receive, self.body_bytes))
        try:
            await asyncio.wait(
                {reading, given_up}, timeout=BODY_S, return_when=asyncio.FIRST_COMPLETED
            )
            if reading.done():
                return reading.result()
            raise Refusal(408, f"the body did not come in time; it has {BODY_S:g} s")
        finally:
            reading.cancel()
            self.bodies.pop(given_up, None)


class Limits:
    """Middleware that holds each kind of request to its bounds."""

    def __init__(
        self,
        app: ASGIApp,
        kinds: dict[str, Kind],
        forwarded: bool = False,
        proxies: tuple[Network, ...] = (),
    ) -> None:
        """Stand before an app.

        Args:
            app: finds each body whole.
            kinds: bounds by the path that their requests begin with; others have none, and no body.
            forwarded: whether a proxy of ours stands before us, which names the client.
            proxies: which the proxy before us may name in the client's place.
        """
        self.app, self.kinds = app, kinds
        self.forwarded, self.proxies = forwarded, proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or raise a `Refusal`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) + "/"
        kind = next((k for below, k in self.kinds.items() if path.startswith(f"{below}/")), None)
        if kind is None:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if int_or_zero(headers.get("content-length")) > kind.body_bytes:
            raise too_long(kind.body_bytes)
        client = client_of(scope, headers, self.forwarded, self.proxies)
        scope = {**scope, "client": (client, 0)}
        body: bytes | None = b""
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            body = await kind.body(receive, client)
        if body is not None:
            with kind.place(client):
                await self.app(scope, once(body, receive), send)


async def left(receive: Receive) -> None:
    """Wait until the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(receive: Receive, most: float = math.inf) -> bytes | None:
    """A request's body; none where the client left.

    Raises:
        Refusal: it is longer, whatever its header says.
    """
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise too_long(int(most))
        if not message.get("more_body"):
            return b"".join(parts)


def once(body: bytes, receive: Receive) -> Receive:
    """Receive a body that is there, and then what follows, which is the client's leaving."""
    given = False

    async def receive_body() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await left(receive)
        return {"type": "http.disconnect"}

    return receive_body


def client_of(
    scope: Scope, headers: Headers, forwarded: bool, proxies: tuple[Network, ...] = ()
) -> str:
    """The address that a request comes from.

    A proxy on this machine, or one of ours, names it last in X-Forwarded-For, behind what anyone
    could have written there; where that is a trusted proxy itself, it is named before.
    """
    client = (scope.get("client") or ("", 0))[0]
    named = ",".join(headers.getlist("x-forwarded-for")).split(",")
    believed = forwarded or client in LOOPBACK or trusted(client, proxies)
    while believed and named:
        client = named.pop().strip()[:64] or client
        believed = trusted(client, proxies)
    return client


def trusted(client: str, proxies: tuple[Network, ...]) -> bool:
    """Whether an address is a trusted proxy's."""
    try:
        return bool(proxies) and any(ipaddress.ip_address(client) in one for one in proxies)
    except ValueError:
        return False


def int_or_zero(text: str | None) -> int:
    """A header's number."""
    return int(text) if text and text.isdigit() else 0


def too_long(body_bytes: int) -> Refusal:
    """413."""
    return Refusal(413, f"the body is over {body_bytes:,} bytes", code="request_too_large")
