"""The chat page: talk with a model, compare two of them blind, keep and export what was said.

    app = build_page(client, Store("sqlite:///runs/chat.sqlite"), PageSettings())

makes an ASGI app that runs alone or below any path.
"""

from html import escape
from pathlib import Path

import gradio as gr
from fastapi import FastAPI

from lima_ray.web.page import PageSettings, mount
from serve.conversations.client import ChatClient
from serve.conversations.store import Store
from serve.page.chat_events import wire
from serve.page.chat_handlers import ChatHandlers
from serve.page.chat_view import ChatView
from serve.page.compare_tab import CompareTab
from serve.page.controls import LIVE

FOLDER = Path(__file__).parent


def build_page(client: ChatClient, store: Store, settings: PageSettings) -> FastAPI:
    """Make the page, which opens also while the store is away; refuse an unreadable login file."""
    blocks = draw(client, store, settings, bool(settings.login_file))
    return mount(blocks, store, settings, [FOLDER / "page.css"], [FOLDER / "page.js"])


def draw(client: ChatClient, store: Store, settings: PageSettings, logins: bool) -> gr.Blocks:
    with gr.Blocks(title=settings.title, analytics_enabled=False, fill_height=True) as page:
        view = ChatView(settings.title)
        handlers = ChatHandlers(client, store, view)
        compare = CompareTab(handlers)
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
        wire(handlers, page)
        compare.wire(page)
        for tab, seen in ((chat_tab, True), (compare_tab, False)):
            tab.select(lambda seen=seen: gr.Sidebar(visible=seen), None, settings_bar, **LIVE)
    return page
