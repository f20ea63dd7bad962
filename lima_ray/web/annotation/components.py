"""Components that pages share on which people decide; `page.css` and `page.js` know their ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from lima_ray.web.annotation.names import MAX_NAME_CHARACTERS
from lima_ray.web.markdown import LATEX

CSS = Path(__file__).with_name("page.css")
JS = Path(__file__).with_name("page.js")
LIVE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""How every event is wired."""
SHOWN = "(place) => window.limaPage.shown(place)"
"""Tells `page.js` what is on the screen."""


@dataclass(frozen=True)
class Gate:
    """What asks for a name."""

    column: gr.Column
    name: gr.Textbox
    begin: gr.Button


def draw_gate(what: str) -> Gate:
    """Draw the prompt for a name; `what` is kept under it is called so."""
    with gr.Column(visible=False, elem_id="gate") as column:
        name = gr.Textbox(
            label="Your name",
            info=f"Your {what} are kept under it; use the same one on another machine.",
            max_length=MAX_NAME_CHARACTERS,
            max_lines=1,
            elem_id="name",
        )
        begin = gr.Button("Begin", variant="primary", elem_id="begin")
    return Gate(column, name, begin)


def draw_account(logins: bool) -> gr.Button | None:
    """Draw the way to another name; a button where that is no login."""
    if logins:
        gr.HTML('<form method="post" action="logout"><button>Log out</button></form>')
        return None
    return gr.Button("Other name", size="sm", elem_id="rename", scale=0)


def draw_dialogue(elem_id: str, label: str) -> gr.Chatbot:
    """Draw turns of a dialogue, with their Markdown and without a frame of their own."""
    return gr.Chatbot(
        elem_id=elem_id,
        elem_classes="dialogue",
        label=label,
        show_label=False,
        container=False,
        height="auto",
        max_height=None,
        autoscroll=False,
        layout="panel",
        buttons=[],
        latex_delimiters=LATEX,
        group_consecutive_messages=False,
        sanitize_html=True,
        allow_tags=False,
        placeholder=" ",
    )


def draw_note(label: str, key: str, most_characters: int) -> gr.Textbox:
    """Draw the field for a remark."""
    return gr.Textbox(
        placeholder=f"{label} ({key})",
        label=label,
        show_label=False,
        container=False,
        max_length=most_characters,
        lines=1,
        max_lines=1,
        elem_id="note",
        scale=1,
        min_width=120,
    )


@dataclass(frozen=True)
class Hidden:
    """What the browser keeps of the page, and the button by which it asks how things stand."""

    place: gr.Textbox
    again: gr.Button


def draw_hidden() -> Hidden:
    """Draw what nobody sees."""
    return Hidden(gr.Textbox(visible="hidden", elem_id="place"), gr.Button(elem_id="again"))
