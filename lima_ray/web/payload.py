"""What browsers may send to Gradio: the values of our fields, for their own windows.

No field of the page takes a file. Gradio would still fetch and copy whatever file or address a
value names, before any code of ours sees it. So each request's JSON is read here, refused where it
holds more than text, numbers and the like, and handed on as it was understood.
"""

import json
from collections import OrderedDict
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lima_ray.web.requests import read_body, replay_body

OWN_ROUTES = ("/login", "/logout")
GRADIO_ROUTES = ("/queue/join", "/run/predict", "/cancel", "/reset")
"""Where the page sends events, and takes them back."""
FILE_KEYS = {"path", "url", "_type"}
MAX_KEPT = 10_000
MAX_NAME_CHARACTERS = 64
"""Gradio's own names have a dozen letters."""


class WindowOwners:
    """Owners by the name of the window, which Gradio calls its session hash."""

    def __init__(self) -> None:
        self.owners: OrderedDict[str, str] = OrderedDict()

    def belongs(self, name: str, owner: str) -> bool:
        """Whether a window is this owner's; who names it first has it."""
        if len(name) > MAX_NAME_CHARACTERS:
            return False
        found = self.owners.setdefault(name, owner)
        self.owners.move_to_end(name)
        if len(self.owners) > MAX_KEPT:
            self.owners.popitem(last=False)
        return found == owner


class PayloadMiddleware:
    """Refuse files and others' windows; stands inside `SessionMiddleware`."""

    def __init__(self, app: ASGIApp, windows: WindowOwners) -> None:
        self.app = app
        self.windows = windows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/")
        if path in OWN_ROUTES:
            await self.app(scope, receive, send)
            return
        if scope["method"] != "POST" or path.removeprefix("/gradio_api") not in GRADIO_ROUTES:
            await PlainTextResponse("not found", 404)(scope, receive, send)
            return
        body = await read_body(receive)  # `SessionMiddleware` bounds it
        if body is None:
            return
        problem, fields = parse(body)
        owner = scope["state"]["session"].owner
        name = fields.get("session_hash")
        if problem:
            await PlainTextResponse(problem, 400)(scope, receive, send)
        elif not isinstance(name, str) or not self.windows.belongs(name, owner):
            await PlainTextResponse("not found", 404)(scope, receive, send)
        else:
            body = json.dumps(fields).encode()
            await self.app(with_length(scope, len(body)), replay_body(body, receive), send)


def parse(body: bytes) -> tuple[str, dict[str, Any]]:
    """Return what is wrong with a request's JSON, if anything, and its fields."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return "the body is no JSON", {}
    if not isinstance(fields, dict):
        return "the body is no JSON object", {}
    values = fields.get("data", [])
    plain = isinstance(values, list) and not any(isinstance(v, dict | list) for v in values)
    if not plain or names_file(fields):
        return "a field holds a file or a structure; this page takes text and numbers", {}
    return "", fields


def names_file(value: Any) -> bool:
    """Whether something in a value could be taken for a file."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if FILE_KEYS & one.keys():
                return True
            left += one.values()
        elif isinstance(one, list):
            left += one
    return False


def with_length(scope: Scope, length: int) -> Scope:
    """Return the scope of a request whose body is JSON of another length."""
    scope = {**scope, "headers": list(scope["headers"])}
    headers = MutableHeaders(scope=scope)
    headers["content-type"], headers["content-length"] = "application/json", str(length)
    return scope
