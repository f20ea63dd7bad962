"""How much of a replica one client may hold, and all of them together.

A replica answers the API and the page on one event loop, and Serve lets it have so many requests at
once. Whoever sends half a body and waits, or opens a thousand pages, would keep all others out. So
each kind of request has a bound of its own, of which one client gets a part; a body is read before
its request goes any further, in a bounded time; and where many bodies are waited for, the one that
has kept us waiting for longest is given up for the newest.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lima_ray.web.requests import (
    HttpError,
    Network,
    body_too_large,
    client_address,
    content_length,
    read_body,
    replay_body,
)

BODY_S = 20.0
"""Time for a whole body."""
RETRY_S = 5
WINDOW_S = 300.0
"""In which tries are counted."""
MAX_KEYS = 10_000


@dataclass
class RequestLimit:
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
    def admit(self, client: str) -> Iterator[None]:
        """Hold one of the places while a request is answered; HttpError where none is free."""
        if self.held.total() >= self.most or self.held[client] >= self.most_of_client:
            yours = self.held[client] >= self.most_of_client
            whose = f"{self.most_of_client} of yours" if yours else f"{self.most} in all"
            raise HttpError(
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
        """Read the whole body, none where the client left; HttpError if too long or late."""
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
            raise HttpError(408, f"the body did not come in time; it has {BODY_S:g} s")
        finally:
            reading.cancel()
            self.bodies.pop(given_up, None)


class LimitsMiddleware:
    """Middleware that holds each kind of request to its bounds."""

    def __init__(
        self,
        app: ASGIApp,
        limits: dict[str, RequestLimit],
        forwarded: bool = False,
        proxies: tuple[Network, ...] = (),
    ) -> None:
        """Bound the requests of an app.

        Args:
            limits: by the path that their requests begin with; others have none, and no body.
            forwarded: whether a proxy of ours stands before us, which names the client.
            proxies: which the proxy before us may name in the client's place.
        """
        self.app, self.limits = app, limits
        self.forwarded, self.proxies = forwarded, proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) + "/"
        limit = next((k for below, k in self.limits.items() if path.startswith(f"{below}/")), None)
        if limit is None:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if content_length(headers.get("content-length")) > limit.body_bytes:
            raise body_too_large(limit.body_bytes)
        client = client_address(scope, headers, self.forwarded, self.proxies)
        scope = {**scope, "client": (client, 0)}
        body: bytes | None = b""
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            body = await limit.body(receive, client)
        if body is not None:
            with limit.admit(client):
                await self.app(scope, replay_body(body, receive), send)


class RateLimit:
    """Tries in a time window, by key, of which there may be so many."""

    def __init__(self, most: int, window_s: float = WINDOW_S) -> None:
        self.most, self.window_s = most, window_s
        self.times: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Return the seconds until the next try; 0 where there may be one now."""
        times = self.times.get(key) or deque()
        while times and times[0] <= monotonic() - self.window_s:
            times.popleft()
        return 0 if len(times) < self.most else times[0] + self.window_s - monotonic()

    def count(self, key: str) -> None:
        self.times.setdefault(key, deque(maxlen=self.most)).append(monotonic())
        self.times.move_to_end(key)
        if len(self.times) > MAX_KEYS:
            self.times.popitem(last=False)

    def take_back(self, key: str) -> None:
        """Take the last try back: it was right, which says nothing of those before."""
        if times := self.times.get(key):
            times.pop()

    def forget(self, key: str) -> None:
        """Forget all tries: the last was right."""
        self.times.pop(key, None)
