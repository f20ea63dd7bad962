"""Controls that both tabs have: conversation, composer, and how replies are decoded."""

from typing import Any

import gradio as gr

from lima_ray.config.sections import Sampling
from lima_ray.web.markdown import LATEX
from serve.conversations.dialogue import MAX_CHARACTERS, SEEDS

LIVE: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of every event."""
RANDOM_SEED = -1
MAX_REPLY_TOKENS = 4096
HELP = {name: field.description or "" for name, field in Sampling.model_fields.items()}
DEFAULTS = Sampling()


def conversation(**settings: Any) -> gr.Chatbot:
    """Return a conversation whose texts are shown as `lima_ray.web.markdown` makes them."""
    return gr.Chatbot(
        height="100%",
        layout="bubble",
        latex_delimiters=LATEX,
        sanitize_html=True,
        allow_tags=False,
        **settings,
    )


def composer(label: str, **settings: Any) -> gr.Textbox:
    return gr.Textbox(
        placeholder=label,
        show_label=False,
        container=False,
        label=label,
        max_lines=8,
        max_length=MAX_CHARACTERS,
        submit_btn=True,
        stop_btn=False,
        **settings,
    )


def seed_control(label: str) -> gr.Number:
    """Return a field for a seed; `seed_of` reads its value."""
    return gr.Number(
        RANDOM_SEED,
        label=label,
        info="The same seed gives the same reply; -1 draws a new one each time.",
        precision=0,
        minimum=RANDOM_SEED,
        maximum=SEEDS - 1,
    )


def seed_of(value: float | None) -> int | None:
    """Return the seed to use; none where one is to be drawn."""
    return None if value is None or value == RANDOM_SEED else int(value)


def slider(label: str, name: str, least: float, most: float) -> gr.Slider:
    """Return a slider for a decoding field, at the paper's value."""
    value = getattr(DEFAULTS, name)
    return gr.Slider(least, most, value, step=0.05, label=label, info=HELP[name])


def sampling_controls() -> list[gr.components.Component]:
    """Return decoding fields with the paper's defaults; `sampling_fields` reads their values."""
    return [
        slider("Temperature", "temperature", 0, 2),
        slider("Top-p", "top_p", 0.05, 1),
        slider("Repetition penalty", "repetition_penalty", 1, 2),
        gr.Checkbox(
            DEFAULTS.penalise_prompt, label="Penalise the prompt", info=HELP["penalise_prompt"]
        ),
        gr.Number(
            0,
            label="Longest reply",
            info="Most tokens of a reply; 0 gives it all the room that the context has.",
            precision=0,
            minimum=0,
            maximum=MAX_REPLY_TOKENS,
        ),
    ]


def sampling_fields(
    temperature: float,
    top_p: float,
    repetition_penalty: float,
    penalise_prompt: bool,
    max_new_tokens: float | None,
) -> dict[str, Any]:
    """Return the controls' values by the API's names."""
    fields = {
        "temperature": temperature,
        "top_p": top_p,
        "repetition_penalty": repetition_penalty,
        "penalise_prompt": penalise_prompt,
    }
    return fields | ({"max_tokens": int(max_new_tokens)} if max_new_tokens else {})
