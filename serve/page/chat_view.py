"""The chat tab as it is drawn: its components, and what they show of a window."""

from typing import Any

import gradio as gr

from lima_ray.web.markdown import plain
from serve.conversations.chat_window import ChatWindow
from serve.conversations.dialogue import MAX_CHARACTERS, UNTITLED, Dialogue
from serve.page import rendering
from serve.page.controls import composer, conversation, sampling_controls, seed_control

Update = dict[Any, Any]
"""New values by component."""
RETRY_SAVING_S = 5
EXAMPLES_SHOWN = 4


class ChatView:
    """Components as attributes, drawn in three places of the page."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.window = gr.State(None)

    def sidebar(self) -> None:
        self.new = gr.Button("New conversation", elem_id="new", variant="primary", size="md")
        self.past = gr.Radio(
            [], label="Conversations", show_label=False, container=False, elem_id="past"
        )
        self.no_past = gr.HTML('<p class="faint">Conversations appear here.</p>', visible=False)

    def settings(self) -> None:
        gr.HTML('<h2 class="bar">Settings</h2>')
        self.system = gr.Textbox(
            "",
            label="System line",
            info="Said to the model before the conversation; empty for none.",
            lines=2,
            max_lines=6,
            max_length=MAX_CHARACTERS,
            elem_id="system",
        )
        self.sampling = sampling_controls()
        self.seed = seed_control("Seed")

    def main(self) -> None:
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
        self.chat = conversation(
            elem_id="chat",
            label="Conversation",
            show_label=False,
            container=False,
            scale=1,
            editable="all",
            buttons=["copy"],
            feedback_options=("Like", "Dislike"),
            group_consecutive_messages=False,
        )
        self.notice = gr.HTML(elem_id="notice")
        self.meter = gr.HTML(elem_id="meter")
        self.composer = composer("Message", autofocus=True, elem_id="composer")
        self.opened = gr.Textbox(visible="hidden", elem_id="opened")
        self.texts = gr.Textbox(visible="hidden", elem_id="texts")
        self.file = gr.Textbox(visible="hidden")
        self.sure = gr.Checkbox(visible="hidden")
        self.timer = gr.Timer(RETRY_SAVING_S, active=False)

    def all_of(self, window: ChatWindow, model: str | None = None) -> Update:
        """Return the whole tab, as after opening a conversation."""
        chosen = model or model_of(window.dialogue)
        picked = {self.model: chosen} if chosen in window.models else {}
        chat = {self.chat: self.greeting(window, chosen)} if chosen in window.models else {}
        system = {self.system: window.dialogue.system}
        return self.shown(window) | self.kept(window) | picked | chat | system

    def greeting(self, window: ChatWindow, model: str | None) -> gr.Chatbot:
        """Return the conversation, or where it is empty a greeting with the model's own prompts."""
        prompts = window.models.get(model or "", {}).get("examples") or []
        begin = ", or begin with one of these" if prompts else ""
        return gr.Chatbot(
            rendering.messages(window.dialogue, window.busy),
            feedback_value=rendering.thumbs(window.dialogue),
            placeholder=f"## {plain(self.title)}\nAsk something{begin}.",
            examples=[{"text": prompt} for prompt in prompts[:EXAMPLES_SHOWN]],
        )

    def words_of(self, window: ChatWindow) -> Update:
        """Return what changes while a reply comes."""
        return {
            self.chat: rendering.messages(window.dialogue, window.busy),
            self.meter: self.meter_of(window),
        }

    def shown(self, window: ChatWindow, sent: bool = False) -> Update:
        """Return the conversation; what is being typed stays unless it was sent."""
        text: dict[str, Any] = {"value": window.draft} if window.draft or sent else {}
        window.draft = ""
        return {
            self.window: window,
            self.chat: gr.Chatbot(
                rendering.messages(window.dialogue, window.busy),
                feedback_value=rendering.thumbs(window.dialogue),
            ),
            self.texts: rendering.texts(window.dialogue),
            self.notice: rendering.notice(window.notice),
            self.meter: self.meter_of(window),
            self.composer: gr.Textbox(submit_btn=not window.busy, stop_btn=window.busy, **text),
            self.opened: window.dialogue.id if window.dialogue.turns else "",
            self.name: window.dialogue.name,
        }

    def kept(self, window: ChatWindow) -> Update:
        """Return the list of conversations, and whether they are saved."""
        ids = {id for _, id in window.titles}
        at = window.dialogue.id if window.dialogue.id in ids else None
        return {
            self.saving: rendering.notice(window.autosave.message(), "warning"),
            self.past: gr.Radio(window.titles, value=at, visible=bool(window.titles)),
            self.no_past: gr.HTML(visible=not window.titles),
            self.timer: gr.Timer(active=window.autosave.problem is not None),
        }

    def meter_of(self, window: ChatWindow) -> str:
        model = model_of(window.dialogue)
        context = window.models.get(model or "", {}).get("max_model_len")
        if context is None and window.models:
            context = next(iter(window.models.values())).get("max_model_len")
        return rendering.meter(window.dialogue, window.timing, context, window.busy)


def model_of(dialogue: Dialogue) -> str | None:
    """Return the model that replied last."""
    return next((turn.model for turn in reversed(dialogue.turns) if turn.model), None)
