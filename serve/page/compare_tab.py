"""The compare tab: two models, or one decoded in two ways, side by side and blind."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr

from lima_ray.web.markdown import LATEX
from serve.conversations.chat_window import ChatWindow
from serve.conversations.comparison import ComparisonWindow, Contestant, Round, Vote
from serve.conversations.dialogue import MAX_CHARACTERS
from serve.page import rendering
from serve.page.chat_handlers import ChatHandlers, owns
from serve.page.chat_view import Update
from serve.page.sampling_controls import sampling_controls, sampling_fields, seed_control, seed_of

NAMES = ("A", "B")
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
        """Draw the contestants, their replies, and the vote."""
        with gr.Accordion("Contestants and sampling", open=False, elem_id="contestants"):
            with gr.Row():
                self.models, self.samplings = [], []
                for number in ("first", "second"):
                    with gr.Column(min_width=260):
                        self.models.append(gr.Dropdown([], label=f"The {number}"))
                        self.samplings.append(sampling_controls())
            with gr.Row():
                self.system = gr.Textbox(
                    "", label="System line", max_length=MAX_CHARACTERS, lines=1, max_lines=4
                )
                self.seed = seed_control("Seed of both")
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
        self.composer = gr.Textbox(
            placeholder="Message to both",
            show_label=False,
            container=False,
            label="Message to both",
            max_lines=8,
            max_length=MAX_CHARACTERS,
            submit_btn=True,
            stop_btn=False,
            elem_id="compare-composer",
        )

    def side(self, name: str) -> gr.Chatbot:
        """Draw one of the two conversations."""
        with gr.Column(min_width=280, elem_classes="side"):
            return gr.Chatbot(
                label=f"Reply {name}",
                elem_id=f"side-{name.lower()}",
                height="100%",
                min_height=240,
                layout="bubble",
                buttons=[],
                latex_delimiters=LATEX,
                feedback_options=None,
                placeholder=f"## {name}\nWho this is appears with your vote.",
                sanitize_html=True,
                allow_tags=False,
            )

    def wire(self, page: gr.Blocks) -> None:
        """Say what each click does."""
        live: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        shown = [
            self.comparison, *self.chats, self.notice, self.ballot, self.reveal, self.onward,
            self.choice, self.composer,
        ]  # fmt: skip
        state = [self.handlers.view.window, self.comparison]
        first, second = self.samplings
        how = [self.system, self.seed, *self.models, *first, *second]
        page.load(self.load, None, self.models, **live)
        self.composer.submit(
            self.say, [*state, self.composer, *how], shown, concurrency_limit=None, **live
        )
        for button in self.votes:
            button.click(self.vote, [*state, button], [*shown, self.saving], **live).then(
                self.settle, self.handlers.view.window, self.saving, **live
            )
        self.choice.input(self.choose, [self.comparison, self.choice], self.comparison, **live)
        self.fresh.click(self.begin, self.comparison, shown, **live)
        self.composer.stop(self.stop, self.comparison, None, queue=False, **live)
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

    async def say(
        self,
        request: gr.Request,
        window: ChatWindow | None,
        comparison: ComparisonWindow | None,
        text: str,
        system: str | None,
        seed: float | None,
        *how: Any,
    ) -> AsyncGenerator[Update]:
        """Send a message to both and stream what they say."""
        comparison = self.comparison_of(comparison, request)
        models, values = how[:2], how[2:]
        if comparison.busy:
            return
        if None in models:
            comparison.notice, comparison.draft = "No model is being served.", text
        elif comparison.say(text, system or ""):
            half = len(values) // 2
            fields = (sampling_fields(*values[:half]), sampling_fields(*values[half:]))
            pair = (Contestant(models[0], fields[0]), Contestant(models[1], fields[1]))
            dialogue, first = comparison.dialogue, True
            steps = comparison.answer(self.handlers.client, pair, seed_of(seed))
            async with aclosing(steps):
                async for _ in steps:
                    yield self.shown(comparison, sent=True) if first else self.words_of(comparison)
                    first = False
            if comparison.dialogue is not dialogue:
                return
        yield self.shown(comparison)

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
        """Go on from one of the two."""
        comparison = self.comparison_of(comparison, request)
        comparison.go_on_from(place)
        return comparison

    def begin(self, request: gr.Request, comparison: ComparisonWindow | None) -> Update:
        """Start a new comparison."""
        comparison = self.comparison_of(comparison, request)
        comparison.leave()
        return self.shown(comparison)

    def comparison_of(
        self, comparison: ComparisonWindow | None, request: gr.Request
    ) -> ComparisonWindow:
        """Find the comparison of a request."""
        owner = request.state.session.owner
        comparison = (
            comparison
            if comparison is not None and comparison.owner == owner
            else ComparisonWindow(owner)
        )
        self.windows[request.session_hash or ""] = comparison
        return comparison

    def stop(self, request: gr.Request, comparison: ComparisonWindow | None) -> None:
        """End both replies."""
        owner = request.state.session.owner
        if comparison is not None and comparison.stop is not None and comparison.owner == owner:
            comparison.stop.set()

    def unload(self, request: gr.Request) -> None:
        """Stop the replies of a closed tab."""
        self.stop(request, self.windows.pop(request.session_hash or "", None))

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
        told = this if voted else None
        return {
            self.comparison: comparison,
            **{chat: self.side_of(comparison, told, i) for i, chat in enumerate(self.chats)},
            self.notice: rendering.notice(comparison.notice),
            self.ballot: gr.Row(visible=open_vote),
            self.reveal: revealed(told),
            self.onward: gr.Row(visible=voted),
            self.choice: this.goes_on if this is not None and voted else None,
            self.composer: gr.Textbox(
                submit_btn=not comparison.busy and not open_vote,
                stop_btn=comparison.busy,
                interactive=not open_vote,
                placeholder="Vote first" if open_vote else "Message to both",
                **text,
            ),
        }

    def side_of(self, comparison: ComparisonWindow, told: Round | None, place: int) -> gr.Chatbot:
        """Return one conversation under its letter, or after the vote under its name."""
        name = f"{NAMES[place]}: {told.replies[place].model}" if told else f"Reply {NAMES[place]}"
        return gr.Chatbot(rendering.messages(comparison.side(place), comparison.busy), label=name)


def revealed(this: Round | None) -> str:
    """Return who was who, and how each reply was made, as HTML."""
    if this is None:
        return ""
    lines = []
    for name, turn, timing in zip(NAMES, this.replies, this.timings, strict=True):
        words = rendering.spans(rendering.about(turn, timing))
        lines.append(f'<div class="made"><strong>{name}</strong>{words}</div>')
    return f'<div class="revealed">{"".join(lines)}</div>'
