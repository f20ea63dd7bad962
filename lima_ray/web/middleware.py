"""What every request of a page passes: session, login, bounds, security headers."""

import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lima_ray.web.payload import WindowOwners
from lima_ray.web.requests import content_length
from lima_ray.web.sessions import COOKIE, Session, SessionCookies, set_cookie_header

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
UNUSED_ROUTES = ("upload", "file=", "file/", "proxy=", "stream/", "component_server", "call/")
UNUSED_ROUTES += ("deep_link", "process_recording")
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


class SessionMiddleware:
    """Find the session of a request, send strangers to the login, and refuse what is not ours.

    The app finds the session in `scope["state"]`; a request over `max_body_bytes` is answered 413.
    """

    def __init__(
        self, app: ASGIApp, cookies: SessionCookies, windows: WindowOwners, max_body_bytes: int
    ) -> None:
        self.app = app
        self.cookies = cookies
        self.max_body_bytes = max_body_bytes
        self.windows = windows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = path_below_root(scope)
        session = self.cookies.read(cookie_of(headers))
        known = session is not None
        send = self.with_headers(send, scope, None)
        if refusal := self.refusal(scope, headers, path):
            await refusal(scope, receive, send)
            return
        if session is None and self.cookies.logins is not None:
            if path not in {"/login", "/login/"}:
                asks_page = "text/html" in headers.get("accept", "") and scope["method"] == "GET"
                to_login = RedirectResponse(f"{scope.get('root_path', '')}/login", 303)
                refused = PlainTextResponse("log in first", 401)
                await (to_login if asks_page else refused)(scope, receive, send)
                return
        elif session is None:
            session = Session(secrets.token_hex(16))
        if session is not None and not self.owns_window(scope, path, session):
            await PlainTextResponse("not found", 404)(scope, receive, send)
            return
        scope.setdefault("state", {})["session"] = session
        stays = session is None or (known and not (session.needs_renewal and path == "/"))
        fresh = None if stays or session is None else self.cookies.issue(session)
        await self.app(scope, self.bounded(receive), self.with_headers(send, scope, fresh))

    def refusal(self, scope: Scope, headers: Headers, path: str) -> PlainTextResponse | None:
        """Return why a request gets no further, if it does not."""
        if scope["method"] not in SAFE_METHODS and not is_same_site(headers):
            return PlainTextResponse("this request comes from another site", 403)
        if content_length(headers.get("content-length")) > self.max_body_bytes:
            return PlainTextResponse(f"a request holds at most {self.max_body_bytes} bytes", 413)
        inner = path.removeprefix("/").removeprefix("gradio_api/")
        if inner.startswith(UNUSED_ROUTES):
            return PlainTextResponse("not found", 404)
        return None

    def owns_window(self, scope: Scope, path: str, session: Session) -> bool:
        """Whether a request listens to the session's own window."""
        _, beats, name = path.partition("/heartbeat/")
        # Of a field that is given twice Gradio takes the last, so all of them must be its own.
        names = [name] if beats else QueryParams(scope["query_string"]).getlist("session_hash")
        return all(self.windows.belongs(name, session.owner) for name in names if name)

    def bounded(self, receive: Receive) -> Receive:
        """Bound a body that claims no length as well."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            return {"type": "http.disconnect"} if seen > self.max_body_bytes else message

        return counted

    def with_headers(self, send: Send, scope: Scope, cookie: str | None) -> Send:
        """Add the security headers, and the cookie where it is new."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if cookie is not None:
                    headers.append("set-cookie", set_cookie_header(cookie, is_https(scope)))
            await send(message)

        return sent


def is_https(scope: Scope) -> bool:
    """Whether the browser came by https, a proxy before us included."""
    return Headers(scope=scope).get("x-forwarded-proto", scope.get("scheme")) == "https"


def cookie_of(headers: Headers) -> str:
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def path_below_root(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", "")) or "/"


def is_same_site(headers: Headers) -> bool:
    """Whether a browser sent this from our own page; clients that are no browsers say neither."""
    if site := headers.get("sec-fetch-site"):
        return site in {"same-origin", "none"}
    if origin := headers.get("origin"):
        hosts = {headers.get("host"), headers.get("x-forwarded-host")}
        return urlsplit(origin).netloc in hosts
    return True
