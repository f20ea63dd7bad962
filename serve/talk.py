"""The chat tab: its components, and what each click does."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from lima_ray.config import Sampling
from lima_ray.errors import UserError
from serve import render
from serve.desk import MOST_LETTERS, SEEDS, Ask, Desk
from serve.dialogue import UNTITLED, Dialogue, Turn
from serve.saver import Saver
from serve.speaker import Speaker
from serve.store import Store, StoreError
from serve.visitor import Visitor

Update = dict[Any, Any]
RETRY_SAVING_S = 5
EXAMPLES_SHOWN = 4
LONGEST_REPLY = 4096
RANDOM_SEED = -1
HELP = {name: field.description or "" for name, field in Sampling.model_fields.items()}
DEFAULTS = Sampling()
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
    """The chat tab. Its components are attributes; its methods are what they call."""

    def __init__(self, speaker: Speaker, store: Store, title: str) -> None:
        """Know what answers and what keeps."""
        self.speaker = speaker
        self.store = store
        self.title = title
        self.flights: dict[str, Desk] = {}
        """Desks by Gradio's session, so that a closed tab ends its reply."""
        self.desk = gr.State(None)

    def sidebar(self) -> None:
        """Draw what stands in the left bar."""
        self.new = gr.Button("New conversation", elem_id="new", variant="primary", size="md")
        self.past = gr.Radio(
            [], label="Conversations", show_label=False, container=False, elem_id="past"
        )
        self.no_past = gr.HTML('<p class="faint">Conversations appear here.</p>', visible=False)

    def settings(self) -> None:
        """Draw what stands in the right bar: how replies are made."""
        gr.HTML('<h2 class="bar">Settings</h2>')
        self.system = gr.Textbox(
            "",
            label="System line",
            info="Said to the model before the conversation; empty for none.",
            lines=2,
            max_lines=6,
            max_length=MOST_LETTERS,
            elem_id="system",
        )
        self.sampling = sampling_controls()
        self.seed = seed_control("Seed")

    def main(self) -> None:
        """Draw the conversation."""
        with gr.Row(elem_id="head"):
            self.name = gr.Textbox(
                UNTITLED,
                show_label=False,
                container=False,
                max_length=200,
                elem_id="name",
                scale=4,
                label="Title",
            )
            self.model = gr.Dropdown(
                [], show_label=False, container=False, label="Model", elem_id="model", scale=2
            )
            self.gear = gr.Button("Settings", size="sm", elem_id="gear", scale=0, min_width=80)
            self.export = gr.Button("Export", size="sm", elem_id="export", scale=0, min_width=80)
            self.delete = gr.Button("Delete", size="sm", elem_id="delete", scale=0, min_width=80)
        self.saving = gr.HTML(elem_id="saving")
        self.chat = gr.Chatbot(
            elem_id="chat",
            label="Conversation",
            show_label=False,
            container=False,
            scale=1,
            height="100%",
            layout="bubble",
            editable="all",
            buttons=["copy"],
            latex_delimiters=render.LATEX,
            feedback_options=("Like", "Dislike"),
            group_consecutive_messages=False,
            sanitize_html=True,
            allow_tags=False,
        )
        self.notice = gr.HTML(elem_id="notice")
        self.meter = gr.HTML(elem_id="meter")
        self.composer = gr.Textbox(
            placeholder="Message",
            show_label=False,
            container=False,
            label="Message",
            lines=1,
            max_lines=8,
            max_length=MOST_LETTERS,
            autofocus=True,
            submit_btn=True,
            stop_btn=False,
            elem_id="composer",
        )
        self.opened = gr.Textbox(visible="hidden", elem_id="opened")
        self.file = gr.Textbox(visible="hidden")
        self.sure = gr.Checkbox(visible="hidden")
        self.timer = gr.Timer(RETRY_SAVING_S, active=False)

    def wire(self, page: gr.Blocks) -> None:
        """Say what each click does."""
        here = [self.desk, self.opened]
        how = [self.model, self.system, self.seed, *self.sampling]
        shown = [self.chat, self.notice, self.meter, self.composer, self.opened, self.name]
        kept = [self.saving, self.past, self.no_past, self.timer]
        live: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        long: dict[str, Any] = {**live, "concurrency_limit": None}
        whole = [self.desk, *shown, *kept, self.model, self.system]
        start = page.load(self.load, self.desk, whole, **live)
        answers = [
            self.composer.submit(
                self.say, [*here, self.composer, *how], [self.desk, *shown], **long
            ),
            self.chat.example_select(self.example, [*here, *how], [self.desk, *shown], **long),
            self.chat.retry(self.retry, [*here, *how], [self.desk, *shown], **long),
            self.chat.edit(self.edit, [*here, *how], [self.desk, *shown], **long),
        ]
        turned = [
            self.chat.undo(self.undo, here, [self.desk, *shown], **live),
            self.chat.like(self.like, here, [self.desk], **live),
            self.new.click(self.begin, self.desk, [*whole], **live),
            self.past.input(self.reopen, [self.desk, self.past], whole, **live),
            self.name.submit(self.rename, [*here, self.name], [self.desk, self.name], **live),
            self.name.blur(self.rename, [*here, self.name], [self.desk, self.name], **live),
            self.delete.click(
                self.remove,
                [self.desk, self.sure],
                whole,
                js="(desk) => [desk, confirm('Delete this conversation for good?')]",
                **live,
            ),
        ]
        for step in [start, *answers, *turned]:
            done = step.then(self.settle, self.desk, kept, **live)
            done.then(None, self.opened, None, js=ADDRESS, **live)
        self.timer.tick(self.settle, self.desk, kept, **live)
        self.gear.click(None, js=SETTINGS, api_visibility="private")
        self.composer.stop(self.stop, self.desk, None, queue=False, **live)
        self.model.change(self.greet, [self.desk, self.model], [self.chat, self.meter], **live)
        self.export.click(self.write, here, [self.file, self.notice], **live).then(
            None, self.file, None, js=DOWNLOAD, **live
        )
        page.unload(self.unload)

    async def seat(self, desk: Desk | None, opened: str, request: gr.Request) -> Desk:
        """The visitor's desk; a replica that does not know it makes it anew from the store."""
        visitor: Visitor = request.state.visitor
        if desk is not None and desk.visitor.owner == visitor.owner:
            self.flights[request.session_hash or ""] = desk
            return desk
        desk = Desk(visitor, Saver(self.store, visitor.owner))
        self.flights[request.session_hash or ""] = desk
        try:
            desk.models = {entry["id"]: entry for entry in await self.speaker.models()}
        except Exception as error:  # whatever broke the way to the engine, the page still opens
            desk.notice = f"The models cannot be listed ({error}). Reload the page to try again."
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
        desk = await self.seat(desk, request.query_params.get("c", ""), request)
        await desk.settle()
        ids = list(desk.models)
        first = next((id for id in ids if desk.models[id].get("default")), ids[0] if ids else None)
        chosen = model_of(desk.dialogue) if model_of(desk.dialogue) in ids else first
        return self.all_of(desk, chosen) | {self.model: gr.Dropdown(ids, value=chosen)}

    async def say(
        self, request: gr.Request, desk: Desk | None, opened: str, text: str, *how: Any
    ) -> AsyncGenerator[Update]:
        """Send the composer's text and stream the reply."""
        desk = await self.seat(desk, opened, request)
        if desk.busy:
            return
        async with aclosing(self.reply(desk, desk.say(text), how)) as steps:
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
        self, desk: Desk, before: list[Turn] | None, how: tuple[Any, ...]
    ) -> AsyncGenerator[Update]:
        """Stream a reply to the last turn; without one due, draw the page as it is."""
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
                    yield self.words_of(desk) if not first else self.shown(desk)
                    first = False
            if desk.dialogue is not dialogue:
                return
        yield self.shown(desk)

    async def undo(
        self, request: gr.Request, at: gr.UndoData, desk: Desk | None, opened: str
    ) -> Update:
        """Take the last exchange back."""
        desk = await self.seat(desk, opened, request)
        desk.undo(place(at))
        return self.shown(desk)

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
        desk = await self.seat(desk, "", request)
        system = desk.dialogue.system
        desk.open(Dialogue(system=system))
        return self.all_of(desk)

    async def reopen(self, request: gr.Request, desk: Desk | None, id: str) -> Update:
        """Take up a conversation from the list."""
        desk = await self.seat(desk, "", request)
        await desk.saver.settle()
        desk.notice = ""
        await self.fetch(desk, id)
        return self.all_of(desk)

    async def remove(self, request: gr.Request, desk: Desk | None, sure: bool) -> Update:
        """Delete the conversation that is open."""
        desk = await self.seat(desk, "", request)
        if sure:
            desk.leave()
            desk.saver.forget(desk.dialogue)
            desk.open(Dialogue())
        return self.all_of(desk)

    async def rename(
        self, request: gr.Request, desk: Desk | None, opened: str, title: str
    ) -> Update:
        """Keep the title as typed."""
        desk = await self.seat(desk, opened, request)
        desk.rename(title)
        return {self.desk: desk, self.name: desk.dialogue.name}

    async def write(self, request: gr.Request, desk: Desk | None, opened: str) -> Update:
        """Hand the conversation over as a line of training data, or say why it is none."""
        desk = await self.seat(desk, opened, request)
        try:
            line = desk.dialogue.example().to_json() + "\n"
        except UserError as error:
            return {self.file: "", self.notice: render.notice(f"Not exported: {error}.")}
        name = f"conversation-{desk.dialogue.id[:8]}.jsonl"
        return {self.file: json.dumps({"name": name, "text": line}), self.notice: ""}

    async def settle(self, desk: Desk | None) -> Update:
        """Say whether everything is saved, and list the conversations."""
        if desk is None:
            return {self.saving: ""}
        await desk.settle()
        return self.kept(desk)

    async def greet(self, desk: Desk | None, model: str | None) -> Update:
        """Show the model's example prompts and its context."""
        if desk is None:
            return {self.meter: ""}
        context = desk.models.get(model or "", {}).get("max_model_len")
        meter = render.meter(desk.dialogue, desk.pace, context, desk.busy)
        return {self.chat: self.greeting(desk, model), self.meter: meter}

    def stop(self, desk: Desk | None) -> None:
        """End the reply under way."""
        if desk is not None and desk.stop is not None:
            desk.stop.set()

    def unload(self, request: gr.Request) -> None:
        """A closed tab wants no more of its reply."""
        self.stop(self.flights.pop(request.session_hash or "", None))

    def all_of(self, desk: Desk, model: str | None = None) -> Update:
        """The whole tab, as after opening a conversation."""
        chosen = model or model_of(desk.dialogue)
        picked = {self.model: chosen} if chosen in desk.models else {}
        chat = {self.chat: self.greeting(desk, chosen)} if chosen in desk.models else {}
        return (
            self.shown(desk) | self.kept(desk) | picked | chat | {self.system: desk.dialogue.system}
        )

    def greeting(self, desk: Desk, model: str | None) -> gr.Chatbot:
        """The conversation, or where it is empty a greeting with the model's own prompts."""
        prompts = desk.models.get(model or "", {}).get("examples") or []
        return gr.Chatbot(
            render.messages(desk.dialogue),
            feedback_value=render.thumbs(desk.dialogue),
            placeholder=f"## {self.title}\nAsk something, or begin with one of these.",
            examples=[{"text": prompt} for prompt in prompts[:EXAMPLES_SHOWN]],
        )

    def words_of(self, desk: Desk) -> Update:
        """What changes while a reply comes."""
        return {
            self.chat: render.messages(desk.dialogue),
            self.meter: self.meter_of(desk),
        }

    def shown(self, desk: Desk) -> Update:
        """The conversation and what belongs to it."""
        return {
            self.desk: desk,
            self.chat: gr.Chatbot(
                render.messages(desk.dialogue), feedback_value=render.thumbs(desk.dialogue)
            ),
            self.notice: render.notice(desk.notice),
            self.meter: self.meter_of(desk),
            self.composer: gr.Textbox(
                value=desk.draft, submit_btn=not desk.busy, stop_btn=desk.busy
            ),
            self.opened: desk.dialogue.id if desk.dialogue.turns else "",
            self.name: desk.dialogue.name,
        }

    def kept(self, desk: Desk) -> Update:
        """The list of conversations, and whether they are saved."""
        ids = {id for _, id in desk.titles}
        at = desk.dialogue.id if desk.dialogue.id in ids else None
        return {
            self.saving: render.notice(desk.saver.message(), "warning"),
            self.past: gr.Radio(desk.titles, value=at, visible=bool(desk.titles)),
            self.no_past: gr.HTML(visible=not desk.titles),
            self.timer: gr.Timer(active=desk.saver.problem is not None),
        }

    def meter_of(self, desk: Desk) -> str:
        """The line that says how the last reply was made."""
        model = model_of(desk.dialogue)
        context = desk.models.get(model or "", {}).get("max_model_len")
        if context is None and desk.models:
            context = next(iter(desk.models.values())).get("max_model_len")
        return render.meter(desk.dialogue, desk.pace, context, desk.busy)


def seed_control(label: str) -> gr.Number:
    """A field for a seed; `seed_of` reads its value."""
    return gr.Number(
        RANDOM_SEED,
        label=label,
        info="The same seed gives the same reply; -1 draws a new one each time.",
        precision=0,
        minimum=RANDOM_SEED,
        maximum=SEEDS - 1,
    )


def seed_of(value: float | None) -> int | None:
    """The seed to use; none where one is to be drawn."""
    return None if value is None or value == RANDOM_SEED else int(value)


def sampling_controls() -> list[gr.components.Component]:
    """Decoding fields with the paper's defaults; `sampling_fields` reads their values."""
    return [
        gr.Slider(
            0, 2, DEFAULTS.temperature, step=0.05, label="Temperature", info=HELP["temperature"]
        ),
        gr.Slider(0.05, 1, DEFAULTS.top_p, step=0.05, label="Top-p", info=HELP["top_p"]),
        gr.Slider(
            1,
            2,
            DEFAULTS.repetition_penalty,
            step=0.05,
            label="Repetition penalty",
            info=HELP["repetition_penalty"],
        ),
        gr.Checkbox(
            DEFAULTS.penalise_prompt, label="Penalise the prompt", info=HELP["penalise_prompt"]
        ),
        gr.Number(
            0,
            label="Longest reply",
            info="Most tokens of a reply; 0 gives it all the room that the context has.",
            precision=0,
            minimum=0,
            maximum=LONGEST_REPLY,
        ),
    ]


def sampling_fields(
    temperature: float,
    top_p: float,
    repetition_penalty: float,
    penalise_prompt: bool,
    max_tokens: float | None,
) -> dict[str, Any]:
    """The controls' values by the API's names."""
    fields = {
        "temperature": temperature,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "penalise_prompt": penalise_prompt,
    }
    return fields | ({"max_tokens": int(max_tokens)} if max_tokens else {})


def model_of(dialogue: Dialogue) -> str | None:
    """The model that spoke last."""
    spoken = (turn.model for turn in reversed(dialogue.turns) if turn.model)
    return next(spoken, None)


def place(at: gr.RetryData | gr.UndoData | gr.EditData | gr.LikeData) -> int:
    """The message that an event of the chat is about."""
    return at.index if isinstance(at.index, int) else at.index[0]
