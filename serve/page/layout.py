"""The chat page: talk with a model, compare two of them blind, keep and export what was said.

    app = build_page(speaker, Store("sqlite:///runs/chat.sqlite"), PageSettings())

makes an ASGI app that runs alone or below any path. What a page replica must know of a visitor is
in the signed cookie, in the store and in the window itself, so any number of replicas serve one
page; the cookie `lima_session` keeps a window's requests on the replica that streams to it.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from html import escape
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request
from pydantic import Field

from lima_ray.config import Section
from serve.conversations.client import Speaker
from serve.gate import Gate
from serve.login import login_routes
from serve.page.chat_handlers import Talk
from serve.page.chat_view import View
from serve.page.compare_tab import Compare
from serve.payload import PlainPayload
from serve.store import Store, StoreError
from serve.visitor import Passes, read_logins
from serve.windows import Windows

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
SECRET_WAIT_S = 5.0
SECRET_RETRY_S = 5.0
ICON = (
    '<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns=%22http://www.w3.org/2000/svg%22 '
    "viewBox=%220 0 16 16%22%3E%3Crect width=%2216%22 height=%2216%22 rx=%224%22 "
    "fill=%22%233f6b5c%22/%3E%3Cpath d=%22M4 5h8v5H8l-2.5 2.5V10H4z%22 fill=%22white%22/%3E"
    '%3C/svg%3E">'
)
FOLDER = Path(__file__).parent
SYSTEM_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
SYSTEM_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace")


class PageSettings(Section):
    """How the page presents itself, and to whom."""

    title: str = "lima_ray"
    """Name in the window's title and the empty conversation."""
    login_file: Path | None = None
    """Lines `name:password` of those who may enter; none lets in everyone who reaches the page."""
    max_body_bytes: int = Field(default=2_000_000, ge=100_000)
    """Largest request of a browser; a larger one is answered 413."""


def build_page(speaker: Speaker, store: Store, settings: PageSettings) -> FastAPI:
    """Make the page.

    Args:
        speaker: what answers.
        store: where conversations and votes are kept; it may be away.
        settings: title, logins, bounds.

    Raises:
        UserError: the login file is missing or not readable.
    """
    logins = read_logins(settings.login_file) if settings.login_file else None
    passes = Passes([secrets.token_bytes(32)], logins)
    app = FastAPI(
        title=settings.title,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=keep_secret(passes, store),
    )
    app.router.routes.extend(login_routes(passes, settings.title, store))
    windows = Windows()
    app.add_middleware(PlainPayload, windows=windows)
    app.add_middleware(Gate, passes=passes, windows=windows, max_body_bytes=settings.max_body_bytes)
    blocks = draw(speaker, store, settings, bool(logins))
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
        css_paths=[FOLDER / "page.css"],
        head=ICON,
        js=(FOLDER / "page.js").read_text(encoding="utf-8"),
    )


def owner(request: Request) -> str:
    """Who a request is from; the gate let nobody else through."""
    return request.state.visitor.owner


def keep_secret(passes: Passes, store: Store) -> Lifespan:
    """A lifespan that takes the store's key as soon as the store is there, and who logged out."""
    ready = asyncio.Event()

    async def fetch() -> None:
        while True:
            with suppress(StoreError):
                if not ready.is_set():
                    passes.secrets.append(await store.off_loop(Store.secret))
                passes.ended |= await store.off_loop(Store.ended_sessions)
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


def draw(speaker: Speaker, store: Store, settings: PageSettings, logins: bool) -> gr.Blocks:
    """The page's components."""
    with gr.Blocks(title=settings.title, analytics_enabled=False, fill_height=True) as page:
        view = View(settings.title)
        talk = Talk(speaker, store, view)
        compare = Compare(talk)
        with gr.Sidebar(width=272, elem_id="left"):
            gr.HTML(f'<h1 class="brand">{escape(settings.title)}</h1>')
            view.sidebar()
            with gr.Column(elem_id="foot"):
                gr.Button("Light or dark", size="sm", elem_id="theme").click(
                    None, js="() => window.limaTheme.toggle()", api_visibility="private"
                )
                if logins:
                    gr.HTML('<form method="post" action="logout"><button>Log out</button></form>')
        with gr.Sidebar(width=320, position="right", open=False, elem_id="right") as settings_bar:
            view.settings()
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Chat", id="chat", elem_id="chat-tab", scale=1) as chat_tab:
                view.main()
            with gr.Tab("Compare", id="compare", elem_id="compare-tab", scale=1) as compare_tab:
                compare.main()
        talk.wire(page)
        compare.wire(page)
        for tab, seen in ((chat_tab, True), (compare_tab, False)):
            tab.select(
                lambda seen=seen: gr.Sidebar(visible=seen),
                None,
                settings_bar,
                show_progress="hidden",
                api_visibility="private",
            )
    return page


def theme() -> gr.themes.Base:
    """Quiet colours, one accent, and the reader's own fonts."""
    green = gr.themes.Color(
        "#f0f6f3", "#dcebe4", "#bbd7ca", "#93bdaa", "#6fa08f", "#4f8371", "#3f6b5c", "#34574b",
        "#2b473e", "#253b34", "#14221e", name="pine",
    )  # fmt: skip
    return gr.themes.Base(
        primary_hue=green,
        secondary_hue=green,
        neutral_hue=gr.themes.colors.zinc,
        font=SYSTEM_FONT,
        font_mono=SYSTEM_MONO,
        radius_size=gr.themes.sizes.radius_md,
    ).set(
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
