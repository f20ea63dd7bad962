"""The Serve app: models behind the OpenAI API, and the chat page beside them.

    serve run serve.app:build model=runs/NAME/export
    serve run serve.app:build model=aligned=runs/NAME/export,base=bases/small page=false
    serve deploy serve/config.yaml

Two deployments. `Engine` holds the models and answers HTTP itself, so that no token takes a hop
between processes. `Page` draws the chat page, scaled apart; its requests under /chat come by way of
an engine's replica, and it calls the models by handle.
"""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.context import _get_global_client

from lima_ray.config.errors import UserError
from lima_ray.web.limits import RequestLimit
from lima_ray.web.requests import HttpError, is_loopback
from serve import haproxy
from serve.api import completion, responses
from serve.api.authentication import read_keys
from serve.api.errors import error_body, invalid_fields
from serve.api.routes import build_api
from serve.api.schema import ChatRequest
from serve.arguments import Access, Args
from serve.conversations.store import Store
from serve.engines.pool import ModelPool
from serve.engines.settings import EngineSettings
from serve.page.reverse_proxy import BY_SESSION, ReverseProxy, run_app

PAGE_REQUESTS = 512
"""Requests of the page that a replica of the engine holds at once: an open window has two."""
LISTS = 256
"""Requests of the API beyond the models' own."""
PAGE_BODY_BYTES = 2_000_000
SPARE = 256
"""Requests beyond all bounds, which are refused, and those for the health."""
BUSY_CORES = {"OMP_WAIT_POLICY": "PASSIVE"}
"""A thread that waits for another gives up its core: others, such as Serve's proxy, need it, and
where cores are busy spinning makes a step twenty times slower."""
DRAIN_S = 300.0
"""What replies under way have for their end when a replica is to go."""
PAGE_DRAIN_S = 5.0
"""What a page's short requests have for their end."""
OPEN = "LIMA_SERVE_OPEN"
"""Environment variable that allows an open port without keys or logins."""
log = logging.getLogger("ray.serve")


def build(args: Args) -> Application:
    """Build the application, for `serve run` and `serve deploy`."""
    return application(args)  # Serve wants a function of one parameter


def application(args: Args, previous: dict[str, str] | None = None) -> Application:
    """Build the application, with the models that a rollback returns to."""
    if haproxy.splices():
        log.warning(
            "HAProxy does not notice a client that leaves before its answer begins, which then is "
            "made to its end; start Ray with %s=$(python -m serve.haproxy)",
            haproxy.BINARY_PATH,
        )
    page = None
    if args.page:
        page = PageReplica.options(num_replicas=args.page_replicas).bind(
            args.title, args.login_file, args.database
        )
    settings = EngineSettings(**args.model_dump(include=set(EngineSettings.model_fields)))
    access = Access(**args.model_dump(include=set(Access.model_fields)))
    own_gpus = args.gpus if args.engine == "slots" else 0  # vLLM's process claims its own
    most = 2 * (api_requests(settings) + PAGE_REQUESTS) + SPARE  # and the bodies on their way
    scale: dict[str, Any] = {"num_replicas": args.replicas}
    if args.max_replicas:
        scale = {
            "autoscaling_config": {
                "min_replicas": args.replicas,
                "max_replicas": args.max_replicas,
                "target_ongoing_requests": args.slots,
            }
        }
    engine = EngineReplica.options(
        **scale,
        max_ongoing_requests=most,
        max_queued_requests=most,
        ray_actor_options={
            "num_cpus": args.cpus,
            "num_gpus": own_gpus,
            "runtime_env": {"env_vars": BUSY_CORES},
        },
        user_config={
            "models": args.model,
            "previous": previous,
            "args": args.model_dump(exclude={"model"}),
        },
    )
    return engine.bind(settings, access, page)


def api_requests(settings: EngineSettings) -> int:
    """Return how many requests of the API a replica holds at once."""
    return (settings.slots + settings.queue) * settings.keep_loaded + LISTS


@serve.deployment(
    name="Engine",
    graceful_shutdown_timeout_s=DRAIN_S,
    graceful_shutdown_wait_loop_s=0.5,
    health_check_period_s=5,
    health_check_timeout_s=30,
    max_surge_percent=100,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=5),
)
@serve.ingress()
class EngineReplica:
    """The models of a replica, behind HTTP and a handle."""

    def __init__(self, settings: EngineSettings, access: Access, page: Any) -> None:
        self.keys = read_keys(access.api_keys_file)
        if not self.keys:
            refuse_open_port(served_host(), "key", "api_keys_file")
        self.pool = ModelPool(settings)
        self.settings, self.access, self.page = settings, access, page

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve these models; Serve calls this at the start and at each promotion."""
        await self.pool.configure(user_config["models"])

    def __serve_build_asgi_app__(self) -> Any:
        """Return the API, with the page behind it."""
        settings, access = self.settings, self.access
        page = ReverseProxy(self.page) if self.page else None
        of_client = max(access.client_requests, settings.slots + settings.queue)
        limits = {
            "/v1": RequestLimit("the API", api_requests(settings), of_client, access.body_bytes),
            "/chat": RequestLimit(
                "the page", PAGE_REQUESTS, access.client_requests, PAGE_BODY_BYTES
            ),
        }
        names = access.names(page is not None)
        behind = haproxy.enabled()
        return build_api(self.pool, self.keys, limits, page, names, behind, access.proxies)

    async def check_health(self) -> None:
        """Have Serve replace this replica where an engine is broken or hangs."""
        if self.pool.problem:
            raise RuntimeError(self.pool.problem)

    async def state(self) -> dict[str, Any]:
        """Return what this replica serves, for `serve.promote`."""
        replica = serve.get_replica_context().replica_id.unique_id
        return {"replica": replica, "models": self.pool.state()}

    async def models(self) -> list[dict[str, Any]]:
        """Return the entries of GET /v1/models, for the page."""
        return self.pool.listing()

    async def chat(self, body: dict[str, Any]) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Yield the chunks of a chat completion, for the page; an error is the last of them."""
        try:
            request = ChatRequest.model_validate(body | {"stream": True})
            prepared = await completion.prepare(self.pool, request)
            async for batch in responses.stream_chunks(prepared):
                yield batch
        except ValidationError as error:
            yield [error_body(invalid_fields(error.errors()))]
        except HttpError as refusal:
            yield [error_body(refusal)]


class EngineClient:
    """The engine by its handle, as the page calls it (a `ChatClient`)."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    async def models(self) -> list[dict[str, Any]]:
        return await self.engine.models.remote()

    async def chat(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield chunks; leaving early cancels the request in the engine."""
        stream = self.engine.options(stream=True).chat.remote(body)
        try:
            async for batch in stream:
                for chunk in batch:
                    yield chunk
        finally:
            stream.cancel()


@serve.deployment(
    name="Page",
    max_ongoing_requests=2 * PAGE_REQUESTS,
    # An open window holds a request for as long as it is open, also where its client or the replica
    # between has died, so waiting longer only holds up the end. Replies are saved as they come, and
    # windows come back by themselves.
    graceful_shutdown_timeout_s=PAGE_DRAIN_S,
    max_surge_percent=100,
    ray_actor_options={"num_cpus": 0},
    request_router_config=BY_SESSION,
)
class PageReplica:
    def __init__(self, title: str, login_file: str | None, database: str) -> None:
        # Gradio takes seconds and memory that the engine's replicas have no use for.
        from serve.page.layout import PageSettings, build_page

        if not login_file:
            refuse_open_port(served_host(), "login for the page", "login_file or page=false")
        app_name = serve.get_replica_context().app_name
        client = EngineClient(serve.get_deployment_handle("Engine", app_name))
        settings = PageSettings(title=title, login_file=Path(login_file) if login_file else None)
        self.app = build_page(client, Store(database), settings)
        self.alive, self.begun = AsyncExitStack(), asyncio.Lock()
        self.started = False

    async def asgi(
        self, scope: dict[str, Any], body: bytes
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Answer one HTTP request with ASGI messages."""
        await self.start()
        async with aclosing(run_app(self.app, scope, body)) as messages:
            async for batch in messages:
                yield batch  # pyright: ignore[reportReturnType]

    async def start(self) -> None:
        """Begin the app's lifespan, once, on the event loop that its requests run on."""
        async with self.begun:
            if not self.started:
                await self.alive.enter_async_context(self.app.router.lifespan_context(self.app))
                self.started = True


def served_host() -> str | None:
    """Return the host that Serve binds, HAProxy in its place too."""
    client = _get_global_client()
    return client.http_config.host if client else None


def refuse_open_port(host: str | None, lack: str, argument: str) -> None:
    """Refuse to serve to all, for lack of a key or login, where others reach the port."""
    if host is not None and not os.environ.get(OPEN) and not is_loopback(host):
        raise UserError(
            f"the port is open on {host or 'every interface'} and there is no {lack}. Set "
            f"{argument}, or bind 127.0.0.1, or set {OPEN}=1 where a firewall keeps others away"
        )
