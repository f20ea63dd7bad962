"""The chat tab: what each click does."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import gradio as gr

from lima_ray.errors import UserError
from lima_ray.web.sessions import Visitor
from serve.conversations.autosave import Saver
from serve.conversations.chat_window import Ask, Desk
from serve.conversations.client import Speaker, brief
from serve.conversations.dialogue import Dialogue, Turn
from serve.conversations.open_windows import Desks
from serve.conversations.store import Store
from serve.page import rendering
from serve.page.chat_view import Update, View, model_of
from serve.page.markdown import typed
from serve.page.sampling_controls import sampling_fields, seed_of


class Talk:
    """Answers the events of the chat tab."""

    def __init__(self, speaker: Speaker, store: Store, view: View) -> None:
        """Know what answers, what keeps, and what is drawn."""
        self.speaker = speaker
        self.store = store
        self.view = view
        self.desks = Desks(store)

    async def seat(self, desk: Desk | None, opened: str, request: gr.Request) -> Desk:
        """The visitor's desk; a replica that does not know it makes it anew from the store."""
        if desk is not None and owns(request, desk):
            self.desks.by_session[request.session_hash or ""] = desk
            return desk
        visitor: Visitor = request.state.visitor
        desk = Desk(visitor, Saver(self.store, visitor.owner))
        self.desks.by_session[request.session_hash or ""] = desk
        try:
            desk.models = {entry["id"]: entry for entry in await self.speaker.models()}
        except Exception as error:  # whatever broke the way to the engine, the page still opens
            desk.notice = (
                f"The models cannot be listed ({brief(error)}). Reload the page to try again."
            )
        if opened:
            await self.desks.fetch(desk, opened)
        return desk

    async def load(self, request: gr.Request, desk: Desk | None) -> Update:
        """Draw the page for whoever comes, with the conversation that its address names."""
        view = self.view
        desk = await self.seat(desk, request.query_params.get("c", ""), request)
        await desk.settle()
        ids = list(desk.models)
        first = next((id for id in ids if desk.models[id].get("default")), ids[0] if ids else None)
        chosen = model_of(desk.dialogue) if model_of(desk.dialogue) in ids else first
        return view.all_of(desk, chosen) | {view.model: gr.Dropdown(ids, value=chosen)}

    async def say(
        self, request: gr.Request, desk: Desk | None, opened: str, text: str, *how: Any
    ) -> AsyncGenerator[Update]:
        """Send the composer's text and stream the reply."""
        desk = await self.seat(desk, opened, request)
        if desk.busy:
            return
        if await self.desks.catch_up(desk) or desk.draft:
            desk.give_back(text)
            yield self.view.shown(desk)
            return
        async with aclosing(self.reply(desk, desk.say(text), how, sent=True)) as steps:
            async for step in steps:
                yield step

    async def example(
        self, request: gr.Request, card: gr.SelectData, desk: Desk | None, opened: str, *how: Any
    ) -> AsyncGenerator[Update]:
        """Send an example prompt."""
        text = card.value["text"]
        async with aclosing(self.say(request, desk, opened, text, *how)) as steps:
            async for step in steps:
                yield step

    async def retry(
        self, request: gr.Request, at: gr.RetryData, desk: Desk | None, opened: str, *fields: Any
    ) -> AsyncGenerator[Update]:
        """Have a reply made anew."""
        *how, sure = fields
        desk = await self.seat(desk, opened, request)
        stays = not sure or await self.desks.catch_up(desk)
        before = None if stays else desk.again(place(at))
        async with aclosing(self.reply(desk, before, how)) as steps:
            async for step in steps:
                yield step

    async def edit(
        self, request: gr.Request, at: gr.EditData, desk: Desk | None, opened: str, *fields: Any
    ) -> AsyncGenerator[Update]:
        """Mend a reply, or a user's turn and have it answered anew."""
        *how, sure = fields
        text = typed(str(at.value))
        desk = await self.seat(desk, opened, request)
        before = None
        if sure and await self.desks.catch_up(desk):
            desk.give_back(text)
        elif sure:
            before = desk.edit(place(at), text)
        async with aclosing(self.reply(desk, before, how)) as steps:
            async for step in steps:
                yield step

    async def reply(
        self, desk: Desk, before: list[Turn] | None, how: Sequence[Any], sent: bool = False
    ) -> AsyncGenerator[Update]:
        """Stream a reply to the last turn; without one due, draw the page as it is."""
        view = self.view
        model, system, seed, *values = how
        if before is not None and model is None:
            desk.notice, desk.dialogue.turns = "No model is being served.", before
        elif before is not None:
            desk.set_system(system or "")
            ask = Ask(model, sampling_fields(*values), seed_of(seed))
            dialogue = desk.dialogue
            async with aclosing(desk.answer(self.speaker, ask, before)) as steps:
                first = True
                async for _ in steps:
                    yield view.shown(desk, sent) if first else view.words_of(desk)
                    first = False
            if desk.dialogue is not dialogue:
                return
        yield view.shown(desk)

    async def undo(
        self, request: gr.Request, at: gr.UndoData, desk: Desk | None, opened: str, sure: bool
    ) -> Update:
        """Take the last exchange back."""
        view = self.view
        desk = await self.seat(desk, opened, request)
        if sure and not await self.desks.catch_up(desk):
            desk.undo(place(at))
        return view.shown(desk)

    async def like(
        self, request: gr.Request, at: gr.LikeData, desk: Desk | None, opened: str
    ) -> Update:
        """Keep a thumb up or down."""
        desk = await self.seat(desk, opened, request)
        if not await self.desks.catch_up(desk):
            liked = {"Like": True, "Dislike": False, True: True, False: False}.get(at.liked)
            desk.thumb(place(at), liked)
        return self.view.shown(desk)

    async def begin(self, request: gr.Request, desk: Desk | None) -> Update:
        """Start a new conversation."""
        view = self.view
        desk = await self.seat(desk, "", request)
        system = desk.dialogue.system
        desk.open(Dialogue(system=system))
        return view.all_of(desk)

    async def reopen(self, request: gr.Request, desk: Desk | None, id: str) -> Update:
        """Take up a conversation from the list."""
        view = self.view
        desk = await self.seat(desk, "", request)
        if desk.stop is not None and desk.dialogue.id == id:
            desk.stop.set()
        desk.notice = ""
        await self.desks.fetch(desk, id)
        return view.all_of(desk)

    async def remove(self, request: gr.Request, desk: Desk | None, sure: bool) -> Update:
        """Delete the conversation that is open."""
        view = self.view
        desk = await self.seat(desk, "", request)
        if sure and not await self.desks.catch_up(desk):
            desk.leave()
            desk.saver.forget(desk.dialogue)
            desk.open(Dialogue())
        return view.all_of(desk)

    async def rename(
        self, request: gr.Request, desk: Desk | None, opened: str, title: str
    ) -> Update:
        """Keep the title as typed."""
        view = self.view
        desk = await self.seat(desk, opened, request)
        if not await self.desks.catch_up(desk):
            desk.rename(title)
            return {view.desk: desk, view.name: desk.dialogue.name}
        return view.shown(desk)

    async def write(self, request: gr.Request, desk: Desk | None, opened: str) -> Update:
        """Hand the conversation over as a line of training data, or say why it is none."""
        view = self.view
        desk = await self.seat(desk, opened, request)
        try:
            line = desk.dialogue.example().to_line() + "\n"
        except UserError as error:
            return {view.file: "", view.notice: rendering.notice(f"Not exported: {error}.")}
        name = f"conversation-{desk.dialogue.id[:8]}.jsonl"
        return {view.file: json.dumps({"name": name, "text": line}), view.notice: ""}

    async def settle(self, request: gr.Request, desk: Desk | None, opened: str) -> Update:
        """Say whether everything is saved, and list the conversations.

        A replica that does not know the window, since another one died, draws it from the store.
        """
        view = self.view
        if desk is None and opened:
            desk = await self.seat(desk, opened, request)
            await desk.settle()
            return view.all_of(desk)
        if desk is None or not owns(request, desk):
            return {view.saving: ""}
        id = desk.dialogue.id
        await desk.settle()
        renamed = {} if desk.dialogue.id == id or desk.busy else view.shown(desk)
        return view.kept(desk) | renamed

    async def greet(self, request: gr.Request, desk: Desk | None, model: str | None) -> Update:
        """Show the model's example prompts and its context."""
        view = self.view
        if desk is None or not owns(request, desk):
            return {view.meter: ""}
        context = desk.models.get(model or "", {}).get("max_model_len")
        meter = rendering.meter(desk.dialogue, desk.pace, context, desk.busy)
        return {view.chat: view.greeting(desk, model), view.meter: meter}

    def stop(self, request: gr.Request, desk: Desk | None) -> None:
        """End the reply under way."""
        if desk is not None and desk.stop is not None and owns(request, desk):
            desk.stop.set()

    def unload(self, request: gr.Request) -> None:
        """A closed tab wants no more of its reply."""
        self.stop(request, self.desks.by_session.pop(request.session_hash or "", None))


def owns(request: gr.Request, desk: Desk) -> bool:
    """Whether a request comes from the visitor whose desk this is."""
    return request.state.visitor.owner == desk.visitor.owner


def place(at: gr.RetryData | gr.UndoData | gr.EditData | gr.LikeData) -> int:
    """The message that an event of the chat is about."""
    return at.index if isinstance(at.index, int) else at.index[0]
