"""Pieces of the page as HTML: notices, and the line that says how a reply was made."""

import json
from html import escape
from typing import Any

from lima_ray.web.markdown import formatted, plain
from serve.conversations.client import ReplyTiming
from serve.conversations.dialogue import Dialogue, Turn

NEARLY_FULL = 0.85
CUT = {
    "length": "cut off at its length limit",
    "stopped": "stopped here",
    "error": "broke off here",
    None: "broke off here: its end was lost",
}
"""How a reply ended that is not whole, by its finish_reason."""


def messages(dialogue: Dialogue, busy: bool = False) -> list[Any]:
    """Return a dialogue as Gradio's chat takes it; `busy` where its last reply still comes."""
    last = len(dialogue.turns) - 1
    drawn = [drawn_of(turn, busy and place == last) for place, turn in enumerate(dialogue.turns)]
    # In this form Gradio leaves a text as it is; a bare string loses indentation.
    return [
        {"role": turn.role, "content": [{"type": "text", "text": text}]}
        for turn, text in zip(dialogue.turns, drawn, strict=True)
    ]


def drawn_of(turn: Turn, coming: bool) -> str:
    """Return a message's Markdown; a reply that is not whole says so."""
    if turn.role == "user":
        return plain(turn.content)
    cut = "" if coming or turn.original is not None else CUT.get(turn.finish_reason, "")
    if cut:
        return f"{formatted(turn.content)}\n\n*⋯ {cut}*"
    return formatted(turn.content) or "…"


def texts(dialogue: Dialogue) -> str:
    """Return each message's text and what a person made of it, as JSON for `page.js`."""
    return json.dumps([[turn.content, made_by_person(turn)] for turn in dialogue.turns])


def made_by_person(turn: Turn) -> list[str]:
    """Return what is lost with a reply beside the reply."""
    wording = ["your wording of the reply"] if turn.role == "assistant" and turn.original else []
    return wording + (["your thumb"] if turn.thumb else [])


def thumbs(dialogue: Dialogue) -> list[str | None]:
    """Return the user's judgement of each reply, as Gradio's chat takes it."""
    names = {"up": "Like", "down": "Dislike", None: None}
    return [names[turn.thumb] for turn in dialogue.turns if turn.role == "assistant"]


def notice(text: str, kind: str = "note") -> str:
    """Return a line that the reader should see; empty where there is none."""
    return f'<div class="notice {kind}" role="status">{escape(text)}</div>' if text else ""


def about(turn: Turn | None, timing: ReplyTiming) -> list[str]:
    """Return what made a reply, and how fast."""
    if turn is None or turn.role != "assistant":
        return []
    words = [turn.model or ""]
    if turn.revision:
        words.append(f"revision {turn.revision[:12]}")
    if turn.original is not None:
        words.append("edited")
    if turn.completion_tokens is not None:
        words.append(f"{turn.completion_tokens} tokens")
    if rate := timing.tokens_per_s(turn.completion_tokens):
        words.append(f"{rate:.0f} tok/s")
    if timing.first_token_s is not None:
        words.append(f"first token {timing.first_token_s * 1000:.0f} ms")
    if turn.seed is not None:
        words.append(f"seed {turn.seed}")
    return [word for word in words if word]


def meter(dialogue: Dialogue, timing: ReplyTiming, context: int | None, busy: bool) -> str:
    """Return the line under the conversation: what answered, and how full the context is."""
    turn = dialogue.turns[-1] if dialogue.turns else None
    if busy:
        state = "The model is being loaded…" if timing.loading else "Answering…"
        left = [state] + ([turn.model] if turn is not None and turn.model else [])
    else:
        left = about(turn, timing)
    made = f'<div class="made">{spans(left)}</div>'
    return f'<div class="meter">{made}{room(dialogue, context)}</div>'


def spans(words: list[str]) -> str:
    return "".join(f"<span>{escape(word)}</span>" for word in words)


def room(dialogue: Dialogue, context: int | None) -> str:
    """Return how much of the context the dialogue takes, as of the last reply counted."""
    if context is None:
        return ""
    counts = [
        turn.prompt_tokens + (turn.completion_tokens or 0)
        for turn in dialogue.turns
        if turn.prompt_tokens is not None
    ]
    used = counts[-1] if counts else 0
    share = min(1.0, used / context)
    full = " full" if share >= NEARLY_FULL else ""
    return (
        f'<div class="room{full}" title="Tokens of the conversation, of the model\'s context">'
        f'<i><b style="width:{share:.0%}"></b></i>{used} of {context} tokens</div>'
    )
