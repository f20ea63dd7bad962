"""The login page: a form, and the way out."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from html import escape
from pathlib import Path
from string import Template

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from lima_ray.web.database import DatabaseError
from lima_ray.web.limits import RateLimit
from lima_ray.web.middleware import is_https
from lima_ray.web.session_store import SessionStore
from lima_ray.web.sessions import SessionCookies, set_cookie_header

HASHING = ThreadPoolExecutor(1, thread_name_prefix="passwords")
"""A hash takes 64 MiB and tens of milliseconds of a core, so one is made at a time."""
WRONG_WAIT_S = 1.0
"""A wrong password waits."""
GUESSES = 10
NAME_GUESSES = 30
CLIENT_GUESSES = 100
"""Wrong passwords in that time: of one address for one name, for one name by whomever, and of one
address, which many may share; more are not looked at. One who guesses for a name so keeps its owner
from logging in, not from what he has open."""

PAGE = Template(Path(__file__).with_name("login.html").read_text(encoding="utf-8"))
WRONG = '<p role="alert">Name and password do not match. Try again.</p>'
MANY = '<p role="alert">Too many wrong passwords. Try again in {minutes} min.</p>'


def login_routes(cookies: SessionCookies, title: str, store: SessionStore) -> list[Route]:
    """Return `/login` and `/logout`, below the page's own path."""
    by_both, by_name = RateLimit(GUESSES), RateLimit(NAME_GUESSES)
    by_client = RateLimit(CLIENT_GUESSES)

    def form(status: int = 200, wrong: str = "") -> Response:
        return HTMLResponse(PAGE.substitute(title=escape(title), wrong=wrong), status)

    async def login(request: Request) -> Response:
        if request.method != "POST":
            return form()
        fields = await request.form(max_files=0, max_fields=4)
        name, password = str(fields.get("name", ""))[:200], str(fields.get("password", ""))
        client = request.client.host if request.client else ""
        both = f"{client}\n{name}"
        wait_s = max(by_both.wait_s(both), by_name.wait_s(name), by_client.wait_s(client))
        if wait_s:
            minutes = -int(-wait_s // 60)
            late = form(429, MANY.format(minutes=minutes))
            late.headers["Retry-After"] = str(60 * minutes)
            return late
        # Counted before it is looked at, so that tries at the same time count too.
        by_both.count(both)
        by_name.count(name)
        by_client.count(client)
        session = await asyncio.get_running_loop().run_in_executor(
            HASHING, cookies.log_in, name, password
        )
        if session is None:
            await asyncio.sleep(WRONG_WAIT_S)
            return form(401, WRONG)
        by_both.forget(both)
        by_name.forget(name)
        by_client.take_back(client)
        return back(request, cookies.issue(session))

    async def logout(request: Request) -> Response:
        session = request.state.session
        if session is not None:
            cookies.ended.add(session.id)
            with suppress(DatabaseError):  # the database is away; here the cookie has ended already
                await store.off_loop(SessionStore.end_session, session.id, session.max_age_s)
        return back(request, "")

    def back(request: Request, cookie: str) -> Response:
        home = RedirectResponse(f"{request.scope.get('root_path', '')}/", 303)
        home.headers.append("set-cookie", set_cookie_header(cookie, is_https(request.scope)))
        return home

    return [
        Route("/login", login, methods=["GET", "POST"]),
        Route("/logout", logout, methods=["POST"]),
    ]
