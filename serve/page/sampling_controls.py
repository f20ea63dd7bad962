"""Controls of how replies are decoded: the paper's defaults, and their values as request fields."""

from typing import Any

import gradio as gr

from lima_ray.config.sections import Sampling
from serve.conversations.dialogue import SEEDS

RANDOM_SEED = -1
MAX_REPLY_TOKENS = 4096
HELP = {name: field.description or "" for name, field in Sampling.model_fields.items()}
DEFAULTS = Sampling()


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


def sampling_controls() -> list[gr.components.Component]:
    """Return decoding fields with the paper's defaults; `sampling_fields` reads their values."""
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
