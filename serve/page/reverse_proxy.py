"""HTTP requests that one deployment takes and another answers.

A Serve application has one deployment that the proxy knows: here the engine's, since a hop more
would cost the API most of its speed. The page's requests are few, and go on to a replica of the
page's own deployment by handle:

    api.mount("/chat", ReverseProxy(handle))              # in the engine's replica
    async for messages in run_app(app, scope, body): ...  # in the page's

Requests with the same session cookie go to the same replica (consistent hashing), where the
deployment has `BY_SESSION` as its `request_router_config`.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from ray.serve.config import RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.request_router import PendingRequest, RunningReplica
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lima_ray.web.middleware import cookie_of
from lima_ray.web.requests import finish_or_leave, replay_body

CARRIED = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string")
CARRIED += ("root_path", "headers", "client", "server")
ROUTED_AT_ONCE = 1024
"""Requests that a router finds replicas for at once; as many as a page's replica answers."""
LEAVE_S = 1.0
"""What an app has for its own ending once the client left."""


class SessionRouter(ConsistentHashRouter):
    """Sends a session's requests to one replica, by consistent hashing, and waits for it.

    Ray's own goes on to the next replica where the first says nothing for 0.1 s. That one knows no
    window of the session, and what was clicked would be answered to nobody.
    """

    @property
    def max_num_routing_tasks(self) -> int:
        # Of Ray's two for each replica, those that wait for one replica would hold up the others.
        return ROUTED_AT_ONCE

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the first replica on the ring that is alive, as the only candidate."""
        if pending_request is not None and pending_request.future.done():
            return [candidate_replicas]  # its client has left, and any replica ends the task
        return (await super().choose_replicas(candidate_replicas, pending_request))[:1]


BY_SESSION = RequestRouterConfig(request_router_class=SessionRouter)  # pyright: ignore[reportArgumentType]


class ReverseProxy:
    """An ASGI app whose requests are answered by the deployment behind a handle."""

    def __init__(self, handle: Any, method: str = "asgi") -> None:
        """Forward to a deployment, whose method takes (scope, body) and yields ASGI messages."""
        self.handle = handle.options(stream=True, method_name=method)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body = (await receive()).get("body", b"")  # `LimitsMiddleware` gives it whole
        carried = {name: scope[name] for name in CARRIED if name in scope}
        session = cookie_of(Headers(scope=scope))
        handle = self.handle.options(session_id=session) if session else self.handle
        answer = handle.remote(carried, body)
        try:
            sending = await finish_or_leave(pass_on(answer, send), receive)
        finally:
            answer.cancel()
        if not sending.cancelled():
            sending.result()


async def pass_on(answer: Any, send: Send) -> None:
    async for messages in answer:
        for message in messages:
            await send(message)


async def run_app(app: ASGIApp, scope: Scope, body: bytes) -> AsyncGenerator[list[Message], None]:
    """Yield an app's answer to a request in batches; closing tells it that the client left."""
    messages: list[Message] = []
    news, gone = asyncio.Event(), asyncio.Event()

    async def leave() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)
        news.set()

    task = asyncio.ensure_future(app(scope, replay_body(body, leave), send))
    task.add_done_callback(lambda _: news.set())
    try:
        while not (task.done() and not messages):
            await news.wait()
            news.clear()
            if messages:
                taken, messages[:] = list(messages), []
                yield taken
        task.result()
    finally:
        gone.set()
        if not task.done():
            await asyncio.wait({task}, timeout=LEAVE_S)
            task.cancel()
