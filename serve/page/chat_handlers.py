"""The chat tab: what each click does."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from lima_ray.config.errors import UserError
from lima_ray.web.markdown import typed
from lima_ray.web.sessions import Session
from serve.conversations.autosave import Autosave
from serve.conversations.chat_window import ChatWindow
from serve.conversations.client import ChatClient, ReplyOptions, brief
from serve.conversations.dialogue import Dialogue, Turn
from serve.conversations.open_windows import OpenWindows
from serve.conversations.store import Store
from serve.conversations.window import Window
from serve.page import rendering
from serve.page.chat_view import ChatView, Update, model_of
from serve.page.controls import sampling_fields, seed_of


class ChatHandlers:
    def __init__(self, client: ChatClient, store: Store, view: ChatView) -> None:
        self.client = client
        self.store = store
        self.view = view
        self.windows = OpenWindows(store)

    async def window_of(
        self, window: ChatWindow | None, opened: str, request: gr.Request
    ) -> ChatWindow:
        """Find the window of a request; a replica that does not know it makes it from the store."""
        if window is not None and owns(request, window):
            self.windows.by_hash[request.session_hash or ""] = window
            return window
        session: Session = request.state.session
        window = ChatWindow(session, Autosave(self.store, session.owner))
        self.windows.by_hash[request.session_hash or ""] = window
        try:
            window.models = {entry["id"]: entry for entry in await self.client.models()}
        except Exception as error:  # whatever broke the way to the engine, the page still opens
            window.notice = (
                f"The models cannot be listed ({brief(error)}). Reload the page to try again."
            )
        if opened:
            await self.windows.fetch(window, opened)
        return window

    async def load(self, request: gr.Request, window: ChatWindow | None) -> Update:
        """Draw the page for whoever comes, with the conversation that its address names."""
        view = self.view
        window = await self.window_of(window, request.query_params.get("c", ""), request)
        await window.settle()
        ids = list(window.models)
        first = next(
            (id for id in ids if window.models[id].get("default")), ids[0] if ids else None
        )
        chosen = model_of(window.dialogue) if model_of(window.dialogue) in ids else first
        return view.all_of(window, chosen) | {view.model: gr.Dropdown(ids, value=chosen)}

    async def send(
        self, request: gr.Request, window: ChatWindow | None, opened: str, text: str, *how: Any
    ) -> AsyncGenerator[Update]:
        """Send the composer's text and stream the reply."""
        window = await self.window_of(window, opened, request)
        if window.busy:
            return
        if await self.windows.catch_up(window) or window.draft:
            window.give_back(text)
            yield self.view.shown(window)
            return
        async with aclosing(self.reply(window, window.add_prompt(text), how, sent=True)) as steps:
            async for step in steps:
                yield step

    async def example(
        self,
        request: gr.Request,
        card: gr.SelectData,
        window: ChatWindow | None,
        opened: str,
        *how: Any,
    ) -> AsyncGenerator[Update]:
        text = card.value["text"]
        async with aclosing(self.send(request, window, opened, text, *how)) as steps:
            async for step in steps:
                yield step

    async def retry(
        self,
        request: gr.Request,
        at: gr.RetryData,
        window: ChatWindow | None,
        opened: str,
        *fields: Any,
    ) -> AsyncGenerator[Update]:
        *how, sure = fields
        window = await self.window_of(window, opened, request)
        stays = not sure or await self.windows.catch_up(window)
        before = None if stays else window.retry(place(at))
        async with aclosing(self.reply(window, before, how)) as steps:
            async for step in steps:
                yield step

    async def edit(
        self,
        request: gr.Request,
        at: gr.EditData,
        window: ChatWindow | None,
        opened: str,
        *fields: Any,
    ) -> AsyncGenerator[Update]:
        """Mend a reply, or a user's turn and have it answered anew."""
        *how, sure = fields
        text = typed(str(at.value))
        window = await self.window_of(window, opened, request)
        before = None
        if sure and await self.windows.catch_up(window):
            window.give_back(text)
        elif sure:
            before = window.edit(place(at), text)
        async with aclosing(self.reply(window, before, how)) as steps:
            async for step in steps:
                yield step

    def reply(
        self, window: ChatWindow, before: list[Turn] | None, how: Sequence[Any], sent: bool = False
    ) -> AsyncGenerator[Update]:
        """Have the last turn answered; without an answer due, draw the page as it is."""
        model, system, seed, *values = how
        replies = None
        if before is not None and model is None:
            window.notice, window.dialogue.turns = "No model is being served.", before
        elif before is not None:
            window.set_system(system or "")
            options = ReplyOptions(model, sampling_fields(*values), seed_of(seed))
            replies = window.answer(self.client, options, before)
        return draw(self.view, window, replies, sent)

    async def undo(
        self,
        request: gr.Request,
        at: gr.UndoData,
        window: ChatWindow | None,
        opened: str,
        sure: bool,
    ) -> Update:
        window = await self.window_of(window, opened, request)
        if sure and not await self.windows.catch_up(window):
            window.undo(place(at))
        return self.view.shown(window)

    async def like(
        self, request: gr.Request, at: gr.LikeData, window: ChatWindow | None, opened: str
    ) -> Update:
        """Keep a thumb up or down."""
        window = await self.window_of(window, opened, request)
        if not await self.windows.catch_up(window):
            liked = {"Like": True, "Dislike": False, True: True, False: False}.get(at.liked)
            window.thumb(place(at), liked)
        return self.view.shown(window)

    async def begin(self, request: gr.Request, window: ChatWindow | None) -> Update:
        window = await self.window_of(window, "", request)
        system = window.dialogue.system
        window.open(Dialogue(system=system))
        return self.view.all_of(window)

    async def reopen(self, request: gr.Request, window: ChatWindow | None, id: str) -> Update:
        window = await self.window_of(window, "", request)
        if window.dialogue.id == id:
            window.stop_reply()
        window.notice = ""
        await self.windows.fetch(window, id)
        return self.view.all_of(window)

    async def remove(self, request: gr.Request, window: ChatWindow | None, sure: bool) -> Update:
        window = await self.window_of(window, "", request)
        if sure and not await self.windows.catch_up(window):
            window.leave()
            window.autosave.forget(window.dialogue)
            window.open(Dialogue())
        return self.view.all_of(window)

    async def rename(
        self, request: gr.Request, window: ChatWindow | None, opened: str, title: str
    ) -> Update:
        view = self.view
        window = await self.window_of(window, opened, request)
        if not await self.windows.catch_up(window):
            window.rename(title)
            return {view.window: window, view.name: window.dialogue.name}
        return view.shown(window)

    async def write(self, request: gr.Request, window: ChatWindow | None, opened: str) -> Update:
        """Hand the conversation over as a line of training data, or say why it is none."""
        view = self.view
        window = await self.window_of(window, opened, request)
        try:
            line = window.dialogue.example().to_line() + "\n"
        except UserError as error:
            return {view.file: "", view.notice: rendering.notice(f"Not exported: {error}.")}
        name = f"conversation-{window.dialogue.id[:8]}.jsonl"
        return {view.file: json.dumps({"name": name, "text": line}), view.notice: ""}

    async def settle(self, request: gr.Request, window: ChatWindow | None, opened: str) -> Update:
        """Say whether everything is saved, and list the conversations.

        A replica that does not know the window, since another one died, draws it from the store.
        """
        view = self.view
        if window is None and opened:
            window = await self.window_of(window, opened, request)
            await window.settle()
            return view.all_of(window)
        if window is None or not owns(request, window):
            return {view.saving: ""}
        id = window.dialogue.id
        await window.settle()
        renamed = {} if window.dialogue.id == id or window.busy else view.shown(window)
        return view.kept(window) | renamed

    async def greet(
        self, request: gr.Request, window: ChatWindow | None, model: str | None
    ) -> Update:
        """Show the model's example prompts and its context."""
        view = self.view
        if window is None or not owns(request, window):
            return {view.meter: ""}
        context = window.models.get(model or "", {}).get("max_model_len")
        meter = rendering.meter(window.dialogue, window.timing, context, window.busy)
        return {view.chat: view.greeting(window, model), view.meter: meter}

    def unload(self, request: gr.Request) -> None:
        """Stop the reply of a closed tab."""
        stop_reply(request, self.windows.by_hash.pop(request.session_hash or "", None))


def owns(request: gr.Request, window: Window) -> bool:
    """Whether a request comes from the session whose window this is."""
    return request.state.session.owner == window.session.owner


def stop_reply(request: gr.Request, window: Window | None) -> None:
    if window is not None and owns(request, window):
        window.stop_reply()


async def draw(
    tab: Any, window: Window, replies: AsyncGenerator[None] | None, sent: bool
) -> AsyncGenerator[Update]:
    """Draw a tab while its replies come and once they have ended; without any, as it is."""
    dialogue, begun = window.dialogue, False
    if replies is not None:
        async with aclosing(replies):
            async for _ in replies:
                yield tab.words_of(window) if begun else tab.shown(window, sent)
                begun = True
    if window.dialogue is dialogue:  # else the user has turned to another
        yield tab.shown(window)


def place(at: gr.RetryData | gr.UndoData | gr.EditData | gr.LikeData) -> int:
    return at.index if isinstance(at.index, int) else at.index[0]
