"""A Gradio page as an ASGI app: sessions, login, security headers and bounds around its blocks.

What a replica must know of a session is in the signed cookie, in the store and in the window
itself, so any number of replicas serve one page; the cookie `lima_session` keeps a window's
requests on the replica that streams to it.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request
from pydantic import Field

from lima_ray.config.sections import Section
from lima_ray.web.database import DatabaseError
from lima_ray.web.login import login_routes
from lima_ray.web.middleware import SessionMiddleware
from lima_ray.web.passwords import read_logins
from lima_ray.web.payload import PayloadMiddleware, WindowOwners
from lima_ray.web.session_store import SessionStore
from lima_ray.web.sessions import SessionCookies
from lima_ray.web.theme import ICON, theme

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
SECRET_WAIT_S = 5.0
SECRET_RETRY_S = 5.0


class PageSettings(Section):
    """How the page presents itself, and to whom."""

    title: str = "lima_ray"
    """Name in the window's title and the empty conversation."""
    login_file: Path | None = None
    """Lines `name:hash` of those who may enter; none lets in everyone who reaches the page."""
    max_body_bytes: int = Field(default=2_000_000, ge=100_000)
    """Largest request of a browser; a larger one is answered 413."""


def mount(
    blocks: gr.Blocks,
    store: SessionStore,
    settings: PageSettings,
    css: Sequence[Path],
    js: Sequence[Path],
) -> FastAPI:
    """Make the app of a page.

    Args:
        store: where sessions are kept; it may be away.
        css: files of styles.
        js: files of a function each, which the browser calls in turn once the page is there.
    """
    logins = read_logins(settings.login_file) if settings.login_file else None
    cookies = SessionCookies([secrets.token_bytes(32)], logins)
    app = FastAPI(
        title=settings.title,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=keep_secret(cookies, store),
    )
    app.router.routes.extend(login_routes(cookies, settings.title, store))
    windows = WindowOwners()
    app.add_middleware(PayloadMiddleware, windows=windows)
    app.add_middleware(
        SessionMiddleware, cookies=cookies, windows=windows, max_body_bytes=settings.max_body_bytes
    )
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth_dependency=owner,
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        blocked_paths=["/"],
        max_file_size=1,
        favicon_path=None,
        theme=theme(),
        css_paths=list(css),
        head=ICON,
        js=in_turn(js),
    )


def in_turn(files: Sequence[Path]) -> str:
    """Return a function in JavaScript that calls the function of each file."""
    calls = [f"({file.read_text(encoding='utf-8').rstrip()})();" for file in files]
    return f"() => {{ {' '.join(calls)} }}"


def owner(request: Request) -> str:
    """Return who a request is from; the middleware let nobody else through."""
    return request.state.session.owner


def keep_secret(cookies: SessionCookies, store: SessionStore) -> Lifespan:
    """Return a lifespan that reads the store's key once the store is there, and who logged out."""
    ready = asyncio.Event()

    async def fetch() -> None:
        while True:
            with suppress(DatabaseError):
                if not ready.is_set():
                    cookies.secrets.append(await store.off_loop(SessionStore.secret))
                cookies.ended |= await store.off_loop(SessionStore.ended_sessions)
                ready.set()
            await asyncio.sleep(SECRET_RETRY_S)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        fetching = asyncio.create_task(fetch())
        with suppress(TimeoutError):
            await asyncio.wait_for(ready.wait(), SECRET_WAIT_S)
        yield
        fetching.cancel()

    return lifespan
