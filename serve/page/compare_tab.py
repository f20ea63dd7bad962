"""The compare tab: two models, or one decoded in two ways, side by side and blind."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr

from serve.conversations.chat_window import ChatWindow
from serve.conversations.client import ReplyOptions
from serve.conversations.comparison import ComparisonWindow, Round, Vote
from serve.conversations.dialogue import MAX_CHARACTERS
from serve.page import controls, rendering
from serve.page.chat_handlers import ChatHandlers, draw, owns, stop_reply
from serve.page.chat_view import Update
from serve.page.controls import LIVE, sampling_fields, seed_of

NAMES = ("A", "B")
MESSAGE = "Message to both"
VOTES: dict[str, Vote] = {
    "A is significantly better": "A",
    "Neither is significantly better": "neither",
    "B is significantly better": "B",
}


class CompareTab:
    """The compare tab. Its components are attributes; its methods are what they call."""

    def __init__(self, handlers: ChatHandlers) -> None:
        """Share the window, the store and the client of the chat tab."""
        self.handlers = handlers
        self.comparison = gr.State(None)
        self.windows: WeakValueDictionary[str, ComparisonWindow] = WeakValueDictionary()

    def main(self) -> None:
        with gr.Accordion("Contestants and sampling", open=False, elem_id="contestants"):
            with gr.Row():
                self.models, self.samplings = [], []
                for number in ("first", "second"):
                    with gr.Column(min_width=260):
                        self.models.append(gr.Dropdown([], label=f"The {number}"))
                        self.samplings.append(controls.sampling_controls())
            with gr.Row():
                self.system = gr.Textbox(
                    "", label="System line", max_length=MAX_CHARACTERS, lines=1, max_lines=4
                )
                self.seed = controls.seed_control("Seed of both")
        with gr.Row(elem_id="sides", scale=1):
            self.chats = [self.side(name) for name in NAMES]
        self.notice = gr.HTML(elem_id="compare-notice")
        with gr.Row(elem_id="votes", visible=False) as self.ballot:
            self.votes = [gr.Button(words, elem_classes="vote", size="md") for words in VOTES]
        self.reveal = gr.HTML(elem_id="reveal")
        self.saving = gr.HTML(elem_id="compare-saving")
        with gr.Row(elem_id="onward", visible=False) as self.onward:
            self.choice = gr.Radio(
                [(f"Go on from {name}", place) for place, name in enumerate(NAMES)],
                show_label=False,
                container=False,
                label="Go on from",
                elem_id="choice",
            )
            self.fresh = gr.Button("New comparison", size="sm", elem_id="fresh", scale=0)
        self.composer = controls.composer(MESSAGE, elem_id="compare-composer")

    def side(self, name: str) -> gr.Chatbot:
        with gr.Column(min_width=280, elem_classes="side"):
            return controls.conversation(
                label=f"Reply {name}",
                elem_id=f"side-{name.lower()}",
                min_height=240,
                buttons=[],
                feedback_options=None,
                placeholder=f"## {name}\nWho this is appears with your vote.",
            )

    def wire(self, page: gr.Blocks) -> None:
        shown = [
            self.comparison, *self.chats, self.notice, self.ballot, self.reveal, self.onward,
            self.choice, self.composer,
        ]  # fmt: skip
        window, (first, second) = self.handlers.view.window, self.samplings
        how = [self.system, self.seed, *self.models, *first, *second]
        page.load(self.load, None, self.models, **LIVE)
        self.composer.submit(
            self.send, [self.comparison, self.composer, *how], shown, concurrency_limit=None, **LIVE
        )
        for button in self.votes:
            inputs = [window, self.comparison, button]
            button.click(self.vote, inputs, [*shown, self.saving], **LIVE).then(
                self.settle, window, self.saving, **LIVE
            )
        self.choice.input(self.choose, [self.comparison, self.choice], self.comparison, **LIVE)
        self.fresh.click(self.begin, self.comparison, shown, **LIVE)
        self.composer.stop(stop_reply, self.comparison, None, queue=False, **LIVE)
        page.unload(self.unload)

    async def load(self) -> list[gr.Dropdown]:
        """Offer the models: the default first, and another second where there is one."""
        try:
            entries = await self.handlers.client.models()
        except Exception:  # the chat tab says that they cannot be listed
            entries = []
        entries.sort(key=lambda entry: not entry.get("default"))
        ids = [entry["id"] for entry in entries]
        picks = [ids[0], ids[1 if len(ids) > 1 else 0]] if ids else [None, None]
        return [gr.Dropdown(ids, value=pick) for pick in picks]

    async def send(
        self,
        request: gr.Request,
        comparison: ComparisonWindow | None,
        text: str,
        system: str | None,
        seed: float | None,
        *how: Any,
    ) -> AsyncGenerator[Update]:
        """Send a message to both and stream their replies."""
        comparison = self.comparison_of(comparison, request)
        models, values = how[:2], how[2:]
        if comparison.busy:
            return
        replies = None
        if None in models:
            comparison.notice, comparison.draft = "No model is being served.", text
        elif comparison.add_prompt(text, system or ""):
            half = len(values) // 2
            first, second = (
                ReplyOptions(model, sampling_fields(*fields), seed_of(seed))
                for model, fields in zip(models, (values[:half], values[half:]), strict=True)
            )
            replies = comparison.answer(self.handlers.client, (first, second))
        async with aclosing(draw(self, comparison, replies, sent=True)) as updates:
            async for update in updates:
                yield update

    async def vote(
        self,
        request: gr.Request,
        window: ChatWindow | None,
        comparison: ComparisonWindow | None,
        words: str,
    ) -> Update:
        """Keep the vote and tell the names."""
        window = await self.handlers.window_of(window, "", request)
        comparison = self.comparison_of(comparison, request)
        if verdict := comparison.judge(VOTES[words], window.session.annotator):
            window.autosave.judge(verdict)
        return self.shown(comparison) | {self.saving: ""}

    async def settle(self, request: gr.Request, window: ChatWindow | None) -> str:
        """Say so where the vote is not saved."""
        if window is None or not owns(request, window):
            return ""
        await window.autosave.settle()
        return rendering.notice(window.autosave.message(), "warning")

    def choose(
        self, request: gr.Request, comparison: ComparisonWindow | None, place: int
    ) -> ComparisonWindow:
        comparison = self.comparison_of(comparison, request)
        comparison.go_on_from(place)
        return comparison

    def begin(self, request: gr.Request, comparison: ComparisonWindow | None) -> Update:
        comparison = self.comparison_of(comparison, request)
        comparison.leave()
        return self.shown(comparison)

    def comparison_of(
        self, comparison: ComparisonWindow | None, request: gr.Request
    ) -> ComparisonWindow:
        if comparison is None or not owns(request, comparison):
            comparison = ComparisonWindow(request.state.session)
        self.windows[request.session_hash or ""] = comparison
        return comparison

    def unload(self, request: gr.Request) -> None:
        stop_reply(request, self.windows.pop(request.session_hash or "", None))

    def words_of(self, comparison: ComparisonWindow) -> Update:
        """Return what changes while replies come."""
        sides = [rendering.messages(comparison.side(place), comparison.busy) for place in (0, 1)]
        return dict(zip(self.chats, sides, strict=True))

    def shown(self, comparison: ComparisonWindow, sent: bool = False) -> Update:
        """Return the whole tab; names only after the vote."""
        text: dict[str, Any] = {"value": comparison.draft} if comparison.draft or sent else {}
        comparison.draft = ""
        this = comparison.round
        voted = this is not None and this.vote is not None
        open_vote = this is not None and this.vote is None and not comparison.busy
        revealed = this if voted else None
        return {
            self.comparison: comparison,
            **{chat: self.side_of(comparison, revealed, i) for i, chat in enumerate(self.chats)},
            self.notice: rendering.notice(comparison.notice),
            self.ballot: gr.Row(visible=open_vote),
            self.reveal: how_made(revealed),
            self.onward: gr.Row(visible=voted),
            self.choice: this.goes_on if this is not None and voted else None,
            self.composer: gr.Textbox(
                submit_btn=not comparison.busy and not open_vote,
                stop_btn=comparison.busy,
                interactive=not open_vote,
                placeholder="Vote first" if open_vote else MESSAGE,
                **text,
            ),
        }

    def side_of(
        self, comparison: ComparisonWindow, revealed: Round | None, place: int
    ) -> gr.Chatbot:
        """Return one conversation under its letter, or after the vote under its name."""
        name = f"Reply {NAMES[place]}"
        if revealed is not None:
            name = f"{NAMES[place]}: {revealed.replies[place].model}"
        return gr.Chatbot(rendering.messages(comparison.side(place), comparison.busy), label=name)


def how_made(this: Round | None) -> str:
    """Return who was who, and how each reply was made, as HTML."""
    if this is None:
        return ""
    lines = []
    for name, turn, timing in zip(NAMES, this.replies, this.timings, strict=True):
        words = rendering.spans(rendering.about(turn, timing))
        lines.append(f'<div class="made"><strong>{name}</strong>{words}</div>')
    return f'<div class="revealed">{"".join(lines)}</div>'
