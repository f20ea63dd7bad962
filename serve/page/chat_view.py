"""The chat tab as it is drawn: its components, and what they show of a desk."""

from typing import Any

import gradio as gr

from serve.conversations.chat_window import MOST_LETTERS, Desk
from serve.conversations.dialogue import UNTITLED, Dialogue
from serve.page import rendering
from serve.page.markdown import LATEX, plain
from serve.page.sampling_controls import sampling_controls, seed_control

Update = dict[Any, Any]
"""New values by component."""
RETRY_SAVING_S = 5
EXAMPLES_SHOWN = 4


class View:
    """Components as attributes, drawn in three places of the page."""

    def __init__(self, title: str) -> None:
        """Keep the greeting's name, and begin with what is not seen."""
        self.title = title
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
            latex_delimiters=LATEX,
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
        self.said = gr.Textbox(visible="hidden", elem_id="said")
        self.file = gr.Textbox(visible="hidden")
        self.sure = gr.Checkbox(visible="hidden")
        self.timer = gr.Timer(RETRY_SAVING_S, active=False)

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
        begin = ", or begin with one of these" if prompts else ""
        return gr.Chatbot(
            rendering.messages(desk.dialogue, desk.busy),
            feedback_value=rendering.thumbs(desk.dialogue),
            placeholder=f"## {plain(self.title)}\nAsk something{begin}.",
            examples=[{"text": prompt} for prompt in prompts[:EXAMPLES_SHOWN]],
        )

    def words_of(self, desk: Desk) -> Update:
        """What changes while a reply comes."""
        return {
            self.chat: rendering.messages(desk.dialogue, desk.busy),
            self.meter: self.meter_of(desk),
        }

    def shown(self, desk: Desk, sent: bool = False) -> Update:
        """The conversation and what belongs to it; what is being typed stays unless it was sent."""
        text: dict[str, Any] = {"value": desk.draft} if desk.draft or sent else {}
        desk.draft = ""
        return {
            self.desk: desk,
            self.chat: gr.Chatbot(
                rendering.messages(desk.dialogue, desk.busy),
                feedback_value=rendering.thumbs(desk.dialogue),
            ),
            self.said: rendering.said(desk.dialogue),
            self.notice: rendering.notice(desk.notice),
            self.meter: self.meter_of(desk),
            self.composer: gr.Textbox(submit_btn=not desk.busy, stop_btn=desk.busy, **text),
            self.opened: desk.dialogue.id if desk.dialogue.turns else "",
            self.name: desk.dialogue.name,
        }

    def kept(self, desk: Desk) -> Update:
        """The list of conversations, and whether they are saved."""
        ids = {id for _, id in desk.titles}
        at = desk.dialogue.id if desk.dialogue.id in ids else None
        return {
            self.saving: rendering.notice(desk.saver.message(), "warning"),
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
        return rendering.meter(desk.dialogue, desk.pace, context, desk.busy)


def model_of(dialogue: Dialogue) -> str | None:
    """The model that spoke last."""
    spoken = (turn.model for turn in reversed(dialogue.turns) if turn.model)
    return next(spoken, None)
