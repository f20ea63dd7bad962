"""The chat tab: what each click does."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr

from lima_ray.errors import UserError
from serve import render
from serve.controls import sampling_fields, seed_of
from serve.desk import Ask, Desk
from serve.dialogue import Dialogue, Turn
from serve.saver import Saver
from serve.speaker import Speaker, brief
from serve.store import Store, StoreError
from serve.view import Update, View, model_of
from serve.visitor import Visitor

DOWNLOAD = """(file) => {
  if (!file) return;
  const {name, text} = JSON.parse(file);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'application/jsonl'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""
SETTINGS = "() => document.querySelector('#right .toggle-button').click()"
ADDRESS = """(id) => history.replaceState(null, '',
  location.pathname + (id ? '?c=' + encodeURIComponent(id) : ''))"""


class Talk:
    """Answers the events of the chat tab."""

    def __init__(self, speaker: Speaker, store: Store, view: View) -> None:
        """Know what answers, what keeps, and what is drawn."""
        self.speaker = speaker
        self.store = store
        self.view = view
        self.flights: WeakValueDictionary[str, Desk] = WeakValueDictionary()
        """Desks by Gradio's session, so that a closed tab ends its reply."""

    def wire(self, page: gr.Blocks) -> None:
        """Say what each click does."""
        view = self.view
        here = [view.desk, view.opened]
        how = [view.model, view.system, view.seed, *view.sampling]
        shown = [view.chat, view.notice, view.meter, view.composer, view.opened, view.name]
        kept = [view.saving, view.past, view.no_past, view.timer]
        live: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        long: dict[str, Any] = {**live, "concurrency_limit": None}
        whole = [view.desk, *shown, *kept, view.model, view.system]
        start = page.load(self.load, view.desk, whole, **live)
        answers = [
            view.composer.submit(
                self.say, [*here, view.composer, *how], [view.desk, *shown], **long
            ),
            view.chat.example_select(self.example, [*here, *how], [view.desk, *shown], **long),
            view.chat.retry(self.retry, [*here, *how], [view.desk, *shown], **long),
            view.chat.edit(self.edit, [*here, *how], [view.desk, *shown], **long),
        ]
        turned = [
            view.chat.undo(self.undo, here, [view.desk, *shown], **live),
            view.chat.like(self.like, here, [view.desk], **live),
            view.new.click(self.begin, view.desk, [*whole], **live),
            view.past.input(self.reopen, [view.desk, view.past], whole, **live),
            view.name.submit(self.rename, [*here, view.name], [view.desk, view.name], **live),
            view.name.blur(self.rename, [*here, view.name], [view.desk, view.name], **live),
            view.delete.click(
                self.remove,
                [view.desk, view.sure],
                whole,
                js="(desk) => [desk, confirm('Delete this conversation for good?')]",
                **live,
            ),
        ]
        for step in [start, *answers, *turned]:
            done = step.then(self.settle, view.desk, kept, **live)
            done.then(None, view.opened, None, js=ADDRESS, **live)
        view.timer.tick(self.settle, view.desk, kept, **live)
        view.gear.click(None, js=SETTINGS, api_visibility="private")
        view.composer.stop(self.stop, view.desk, None, queue=False, **live)
        view.model.change(self.greet, [view.desk, view.model], [view.chat, view.meter], **live)
        view.export.click(self.write, here, [view.file, view.notice], **live).then(
            None, view.file, None, js=DOWNLOAD, **live
        )
        page.unload(self.unload)

    async def seat(self, desk: Desk | None, opened: str, request: gr.Request) -> Desk:
        """The visitor's desk; a replica that does not know it makes it anew from the store."""
        if desk is not None and owns(request, desk):
            self.flights[request.session_hash or ""] = desk
            return desk
        visitor: Visitor = request.state.visitor
        desk = Desk(visitor, Saver(self.store, visitor.owner))
        self.flights[request.session_hash or ""] = desk
        try:
            desk.models = {entry["id"]: entry for entry in await self.speaker.models()}
        except Exception as error:  # whatever broke the way to the engine, the page still opens
            desk.notice = (
                f"The models cannot be listed ({brief(error)}). Reload the page to try again."
            )
        if opened:
            await self.fetch(desk, opened)
        return desk

    async def fetch(self, desk: Desk, id: str) -> None:
        """Take up one of the visitor's own conversations."""
        try:
            found = await self.store.off_loop(Store.open, desk.visitor.owner, id)
        except StoreError as error:
            desk.notice = f"The conversation cannot be opened: {error}"
            return
        if found is None:
            desk.notice = "There is no such conversation."
        else:
            desk.open(found)

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
        self, request: gr.Request, at: gr.RetryData, desk: Desk | None, opened: str, *how: Any
    ) -> AsyncGenerator[Update]:
        """Have a reply made anew."""
        desk = await self.seat(desk, opened, request)
        async with aclosing(self.reply(desk, desk.again(place(at)), how)) as steps:
            async for step in steps:
                yield step

    async def edit(
        self, request: gr.Request, at: gr.EditData, desk: Desk | None, opened: str, *how: Any
    ) -> AsyncGenerator[Update]:
        """Mend a reply, or a user's turn and have it answered anew."""
        desk = await self.seat(desk, opened, request)
        before = desk.edit(place(at), str(at.value))
        async with aclosing(self.reply(desk, before, how)) as steps:
            async for step in steps:
                yield step

    async def reply(
        self, desk: Desk, before: list[Turn] | None, how: tuple[Any, ...], sent: bool = False
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
        self, request: gr.Request, at: gr.UndoData, desk: Desk | None, opened: str
    ) -> Update:
        """Take the last exchange back."""
        view = self.view
        desk = await self.seat(desk, opened, request)
        desk.undo(place(at))
        return view.shown(desk)

    async def like(
        self, request: gr.Request, at: gr.LikeData, desk: Desk | None, opened: str
    ) -> Desk:
        """Keep a thumb up or down."""
        desk = await self.seat(desk, opened, request)
        liked = {"Like": True, "Dislike": False, True: True, False: False}.get(at.liked)
        desk.thumb(place(at), liked)
        return desk

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
        await desk.saver.settle()
        desk.notice = ""
        await self.fetch(desk, id)
        return view.all_of(desk)

    async def remove(self, request: gr.Request, desk: Desk | None, sure: bool) -> Update:
        """Delete the conversation that is open."""
        view = self.view
        desk = await self.seat(desk, "", request)
        if sure:
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
        desk.rename(title)
        return {view.desk: desk, view.name: desk.dialogue.name}

    async def write(self, request: gr.Request, desk: Desk | None, opened: str) -> Update:
        """Hand the conversation over as a line of training data, or say why it is none."""
        view = self.view
        desk = await self.seat(desk, opened, request)
        try:
            line = desk.dialogue.example().to_json() + "\n"
        except UserError as error:
            return {view.file: "", view.notice: render.notice(f"Not exported: {error}.")}
        name = f"conversation-{desk.dialogue.id[:8]}.jsonl"
        return {view.file: json.dumps({"name": name, "text": line}), view.notice: ""}

    async def settle(self, request: gr.Request, desk: Desk | None) -> Update:
        """Say whether everything is saved, and list the conversations."""
        view = self.view
        if desk is None or not owns(request, desk):
            return {view.saving: ""}
        await desk.settle()
        return view.kept(desk)

    async def greet(self, request: gr.Request, desk: Desk | None, model: str | None) -> Update:
        """Show the model's example prompts and its context."""
        view = self.view
        if desk is None or not owns(request, desk):
            return {view.meter: ""}
        context = desk.models.get(model or "", {}).get("max_model_len")
        meter = render.meter(desk.dialogue, desk.pace, context, desk.busy)
        return {view.chat: view.greeting(desk, model), view.meter: meter}

    def stop(self, request: gr.Request, desk: Desk | None) -> None:
        """End the reply under way."""
        if desk is not None and desk.stop is not None and owns(request, desk):
            desk.stop.set()

    def unload(self, request: gr.Request) -> None:
        """A closed tab wants no more of its reply."""
        self.stop(request, self.flights.pop(request.session_hash or "", None))


def owns(request: gr.Request, desk: Desk) -> bool:
    """Whether a request comes from the visitor whose desk this is."""
    return request.state.visitor.owner == desk.visitor.owner


def place(at: gr.RetryData | gr.UndoData | gr.EditData | gr.LikeData) -> int:
    """The message that an event of the chat is about."""
    return at.index if isinstance(at.index, int) else at.index[0]
