"""Who is there: one signed cookie, and the gate that every request of the page passes.

The cookie `lima_session` holds who its bearer is and a signature, and nothing on the server: any
replica that has the store's secret accepts it, also after a restart. It keeps its value, so that a
load balancer can hold a visitor to one replica by it.
"""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lima_ray.errors import UserError

COOKIE = "lima_session"
COOKIE_DAYS = 365
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
UNUSED_ROUTES = ("upload", "file=", "file/", "proxy=", "stream/", "component_server", "call/")
"""Gradio's routes that this page has no use for: files, proxies and the named API."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "media-src 'self' data: blob:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'self'; frame-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
"""A reply may name pictures of other hosts; the browser then fetches nothing from them."""


@dataclass(frozen=True)
class Visitor:
    """A login, or a browser without one."""

    session: str
    """Random; the owner of what a browser without a login writes."""
    name: str | None = None

    @property
    def owner(self) -> str:
        """Whose conversations and votes these are."""
        return f"user:{self.name}" if self.name else f"session:{self.session}"

    @property
    def annotator(self) -> str:
        """The name in verdicts; without a login one that does not give the session away."""
        return self.name or f"anonymous-{hashlib.sha256(self.session.encode()).hexdigest()[:8]}"


class Passes:
    """Makes and reads cookies."""

    def __init__(self, secrets: list[bytes], logins: dict[str, str] | None) -> None:
        """Know the keys and the logins.

        Args:
            secrets: signing keys; the last signs, any is accepted.
            logins: passwords by name, or none where nobody needs to log in.
        """
        self.secrets = secrets
        self.logins = logins

    def issue(self, visitor: Visitor) -> str:
        """A cookie's value. With another password of that name it is no longer accepted."""
        claims: dict[str, str] = {"s": visitor.session}
        if visitor.name is not None:
            claims |= {"n": visitor.name, "p": self.fingerprint(visitor.name, self.secrets[-1])}
        payload = encode(json.dumps(claims).encode())
        return f"{payload}.{signature(payload, self.secrets[-1])}"

    def read(self, value: str) -> Visitor | None:
        """The bearer of a cookie; none where it is not ours, or its login no longer holds."""
        payload, _, signed = value.partition(".")
        key = next((k for k in self.secrets if same(signature(payload, k), signed)), None)
        if key is None:
            return None
        claims: dict[str, str] = json.loads(decode(payload))
        name = claims.get("n")
        if name is None:
            return Visitor(claims["s"]) if self.logins is None else None
        if not self.logins or name not in self.logins:
            return None
        current = same(self.fingerprint(name, key), claims.get("p", ""))
        return Visitor(claims["s"], name) if current else None

    def log_in(self, name: str, password: str) -> Visitor | None:
        """The visitor of a right name and password; a wrong name takes as long as a wrong one."""
        logins = self.logins or {}
        right = same(password, logins.get(name, secrets.token_hex(16)))
        return Visitor(secrets.token_hex(16), name) if right and name in logins else None

    def fingerprint(self, name: str, key: bytes) -> str:
        """What ties a cookie to a password without telling it."""
        return signature(f"{name}:{(self.logins or {})[name]}", key)[:16]


def read_logins(path: Path) -> dict[str, str]:
    """Passwords by name, from lines `name:password`; blank lines and `#` comments are passed over.

    Raises:
        UserError: no such file, or a line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"the login file {path} cannot be read: {error.strerror}") from error
    logins: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not (name.strip() and colon and password.strip()) or name.strip() in logins:
            raise UserError(f"{path}:{number} is no new login; a line is name:password")
        logins[name.strip()] = password.strip()
    if not logins:
        raise UserError(f"the login file {path} holds no login; a line is name:password")
    return logins


class Gate:
    """Middleware: knows the visitor, sends strangers to the login, and refuses what is not ours."""

    def __init__(self, app: ASGIApp, passes: Passes, max_body_bytes: int) -> None:
        """Stand before an app.

        Args:
            app: what the gate leads to; it finds the visitor in `scope["state"]`.
            passes: the cookies.
            max_body_bytes: a larger request is answered 413.
        """
        self.app = app
        self.passes = passes
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let a request through."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = path_below_root(scope)
        visitor = self.passes.read(cookie_of(headers))
        known = visitor is not None
        send = self.dressed(send, scope, None)
        if refusal := self.refusal(scope, headers, path):
            await refusal(scope, receive, send)
            return
        if visitor is None and self.passes.logins is not None:
            if path not in {"/login", "/login/"}:
                asks_page = "text/html" in headers.get("accept", "") and scope["method"] == "GET"
                to_login = RedirectResponse(f"{scope.get('root_path', '')}/login", 303)
                refused = PlainTextResponse("log in first", 401)
                await (to_login if asks_page else refused)(scope, receive, send)
                return
        elif visitor is None:
            visitor = Visitor(secrets.token_hex(16))
        scope.setdefault("state", {})["visitor"] = visitor
        fresh = None if known or visitor is None else self.passes.issue(visitor)
        await self.app(scope, self.bounded(receive), self.dressed(send, scope, fresh))

    def refusal(self, scope: Scope, headers: Headers, path: str) -> PlainTextResponse | None:
        """Why a request gets no further, if it does not."""
        if scope["method"] not in SAFE_METHODS and not same_site(headers):
            return PlainTextResponse("this request comes from another site", 403)
        if int_or_zero(headers.get("content-length")) > self.max_body_bytes:
            return PlainTextResponse(f"a request holds at most {self.max_body_bytes} bytes", 413)
        inner = path.removeprefix("/").removeprefix("gradio_api/")
        if inner.startswith(UNUSED_ROUTES):
            return PlainTextResponse("not found", 404)
        return None

    def bounded(self, receive: Receive) -> Receive:
        """A body that claims no length is held to the bound as well."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            return {"type": "http.disconnect"} if seen > self.max_body_bytes else message

        return counted

    def dressed(self, send: Send, scope: Scope, cookie: str | None) -> Send:
        """Add the security headers, and the cookie where it is new."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if cookie is not None:
                    headers.append("set-cookie", baked(cookie, secure(scope)))
            await send(message)

        return sent


def baked(value: str, secure: bool) -> str:
    """The `Set-Cookie` header; an empty value takes the cookie away."""
    jar = SimpleCookie({COOKIE: value})
    jar[COOKIE] |= {"path": "/", "httponly": True, "samesite": "Lax"}
    jar[COOKIE]["max-age"] = COOKIE_DAYS * 86400 if value else 0
    if secure:
        jar[COOKIE]["secure"] = True
    return jar[COOKIE].OutputString()


def secure(scope: Scope) -> bool:
    """Whether the browser came by https, a proxy before us included."""
    return Headers(scope=scope).get("x-forwarded-proto", scope.get("scheme")) == "https"


def cookie_of(headers: Headers) -> str:
    """The value of our cookie, empty where there is none."""
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def path_below_root(scope: Scope) -> str:
    """The path inside this app, wherever it is mounted."""
    return scope["path"].removeprefix(scope.get("root_path", "")) or "/"


def same_site(headers: Headers) -> bool:
    """Whether a browser sent this from our own page; clients that are no browsers say neither."""
    if site := headers.get("sec-fetch-site"):
        return site in {"same-origin", "none"}
    if origin := headers.get("origin"):
        hosts = {headers.get("host"), headers.get("x-forwarded-host")}
        return urlsplit(origin).netloc in hosts
    return True


def signature(text: str, key: bytes) -> str:
    """HMAC-SHA-256 in hex."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def same(left: str, right: str) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(left.encode(), right.encode())


def encode(raw: bytes) -> str:
    """Base 64 that a cookie may hold."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(text: str) -> Any:
    """The bytes of `encode`."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def int_or_zero(text: str | None) -> int:
    """A header's number."""
    return int(text) if text and text.isdigit() else 0
