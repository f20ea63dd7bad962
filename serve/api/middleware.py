"""What every request passes: its id, the name it is for, its key, and a line in the log."""

import logging
import re
import time
import uuid

from fastapi.responses import JSONResponse
from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lima_ray.web.requests import HttpError, is_known_host
from serve.api.authentication import wrong_key
from serve.api.errors import error_body, shorten

REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
NOTE = "lima_note"
"""Key of the scope under which an app leaves what the log shall say of the request."""
log = logging.getLogger("ray.serve")


class ApiMiddleware:
    """Give each request an id and a line in the log; check its host and its API key."""

    def __init__(
        self, app: ASGIApp, keys: frozenset[str], names: frozenset[str] | None = None
    ) -> None:
        self.app, self.keys, self.names = app, keys, names
        self.tells_id = not under_serve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        began_s, status = time.monotonic(), 0
        scope[NOTE] = {}

        async def answer_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.tells_id:
                    own = (b"x-request-id", request_id.encode())
                    message = {**message, "headers": [*message["headers"], own]}
            await send(message)

        try:
            refusal = self.refusal(scope, headers)
            if refusal is None:
                await self.app(scope, receive, answer_with_id)
            else:
                await error_app(refusal)(scope, receive, answer_with_id)
        except HttpError as late:
            await error_app(late)(scope, receive, answer_with_id)
        except Exception:
            log.exception("%s %s %a failed", request_id, scope["method"], scope["path"])
            if status:
                raise
            late = HttpError(500, f"this is our mistake; the log has it as {request_id}")
            await error_app(late)(scope, receive, answer_with_id)
        finally:
            took_s = time.monotonic() - began_s
            notes = "".join(f" {name}={value!a}" for name, value in scope[NOTE].items())
            # A path may hold a line's end, which must not begin a line of the log.
            path = ascii(scope["path"])[1:-1]
            log.info(
                "%s %s %s %s %.3f s%s", request_id, scope["method"], path, status, took_s, notes
            )

    def refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> HttpError | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if self.names is not None and not is_known_host(host, self.names):
            return HttpError(
                421,
                f"this server is not known as {shorten(host)}: without keys and logins it answers "
                "to addresses, localhost and the names given as hosts=NAME,NAME",
                code="unknown_host",
            )
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if not self.keys or not path.startswith("/v1/"):
            return None
        return wrong_key(headers.get(b"authorization", b""), self.keys)


def under_serve() -> bool:
    """Whether Ray Serve runs the app; it then adds x-request-id to every response by itself."""
    try:
        serve.get_replica_context()
    except RayServeException:
        return False
    return True


def error_app(refusal: HttpError) -> ASGIApp:
    return JSONResponse(error_body(refusal), refusal.status, refusal.headers)
