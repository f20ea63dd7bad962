"""The OpenAI API over the models of a replica, as an ASGI app.

`GET /v1/models`, `POST /v1/chat/completions`, `POST /v1/completions`, `/health`, `/ready`. Errors
have OpenAI's shape; every response has `x-request-id`, the caller's own where one was sent.
"""

from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from lima_ray.web.limits import LimitsMiddleware, RequestLimit
from lima_ray.web.requests import HttpError, Network
from serve.api import completion, responses
from serve.api.completion import Json
from serve.api.errors import error_body, invalid_fields, invalid_json
from serve.api.middleware import NOTE, ApiMiddleware
from serve.api.schema import ChatRequest, CompletionRequest
from serve.api.streaming import EventStream, until_gone
from serve.engines.pool import ModelPool


def build_api(
    models: ModelPool,
    keys: frozenset[str],
    limits: dict[str, RequestLimit],
    page: ASGIApp | None = None,
    names: frozenset[str] | None = None,
    forwarded: bool = False,
    proxies: tuple[Network, ...] = (),
) -> ASGIApp:
    """Build the app.

    Args:
        keys: accepted as `Authorization: Bearer KEY` under /v1; none at all needs none.
        limits: bounds of the requests, by the path that they begin with.
        page: the chat page, under /chat.
        names: of this server, to which requests may be addressed; none takes any.
        forwarded: see `lima_ray.web.limits.LimitsMiddleware`.
        proxies: see there too.
    """
    app = FastAPI(title="lima_ray", docs_url="/docs", redoc_url=None, version="1")

    @app.get("/v1/models")
    async def list_models() -> Json:
        """List the models, by the names that requests take."""
        return {"object": "list", "data": models.listing()}

    @app.get("/v1/models/{name}", responses=REFUSALS)
    async def show_model(name: str) -> Json:
        """Show one model."""
        entry = models.entries.get(name)
        if entry is None:
            raise HttpError(404, f"no model {name!r} here", "model", "model_not_found")
        return models.describe(name, entry)

    @app.post("/v1/chat/completions", responses=REFUSALS)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer a dialogue."""
        return await respond(models, body, request)

    @app.post("/v1/completions", responses=REFUSALS)
    async def complete(body: CompletionRequest, request: Request) -> Response:
        """Go on with plain texts."""
        return await respond(models, body, request)

    @app.get("/health", responses=REFUSALS)
    async def health() -> Json:
        """Whether the engines in memory work."""
        if models.problem:
            raise HttpError(503, models.problem)
        return {"status": "ok"}

    @app.get("/ready", responses=REFUSALS)
    async def ready() -> Json:
        """Whether the default model answers."""
        if models.problem or not models.ready:
            raise HttpError(503, models.problem or "the default model is not loaded yet")
        return {"status": "ready", "model": models.default}

    if page is not None:
        app.mount("/chat", page)

        @app.get("/", include_in_schema=False)
        async def home() -> Response:
            """Redirect to the page, which is what a browser wants to see."""
            return RedirectResponse("/chat/")

    app.exception_handler(HttpError)(answer_error)
    app.exception_handler(RequestValidationError)(answer_invalid_fields)
    app.exception_handler(HTTPException)(answer_unrouted)
    return ApiMiddleware(LimitsMiddleware(app, limits, forwarded, proxies), keys, names)


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "a field is wrong; `param` names it"},
    401: {"description": "no key, or not one of ours"},
    404: {"description": "no such model"},
    408: {"description": "the body did not come in time"},
    413: {"description": "the body is too long"},
    421: {"description": "the request is for another server's name"},
    429: {"description": "the queue is full; Retry-After says when to come again"},
    500: {"description": "the engine failed"},
    503: {"description": "the model is being loaded, or the engine is broken"},
}


async def respond(
    models: ModelPool, body: ChatRequest | CompletionRequest, request: Request
) -> Response:
    if body.user:
        request.scope[NOTE]["user"] = body.user
    prepared = await until_gone(request, completion.prepare(models, body))
    headers = {"x-lima-revision": prepared.served.revision}
    if body.stream:
        batches = responses.stream_chunks(prepared)
        return EventStream(await anext(batches), batches, headers)
    response = await until_gone(request, responses.full_response(prepared))
    return Response(orjson.dumps(response), media_type="application/json", headers=headers)


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HttpError)
    return JSONResponse(error_body(error), error.status, error.headers)


async def answer_invalid_fields(request: Request, error: Exception) -> JSONResponse:
    """Return 400 for wrong fields, naming the first."""
    assert isinstance(error, RequestValidationError)
    return await answer_error(request, invalid_fields(error.errors()))


async def answer_unrouted(request: Request, error: Exception) -> JSONResponse:
    """Return what FastAPI refuses (path, method, unreadable body) in OpenAI's shape."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, HttpError):
        return await answer_error(request, error.__cause__)
    if error.__cause__:
        return await answer_error(request, invalid_json(error.__cause__))
    refusal = HttpError(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    refusal.headers = dict(error.headers or {})
    return await answer_error(request, refusal)
