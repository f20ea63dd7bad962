"""Pieces of the page as HTML: notices, and the line that says how a reply was made."""

from html import escape
from typing import Any

from serve.dialogue import Dialogue, Turn
from serve.speaker import Pace

LATEX = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]
"""A single dollar stays a dollar."""
NEARLY_FULL = 0.85


def messages(dialogue: Dialogue) -> list[Any]:
    """A dialogue as Gradio's chat takes it; a reply without a word yet shows that it comes."""
    return [{"role": turn.role, "content": turn.content or "…"} for turn in dialogue.turns]


def thumbs(dialogue: Dialogue) -> list[str | None]:
    """The visitor's judgement of each reply, as Gradio's chat takes it."""
    names = {"up": "Like", "down": "Dislike", None: None}
    return [names[turn.thumb] for turn in dialogue.turns if turn.role == "assistant"]


def notice(text: str, kind: str = "note") -> str:
    """A line that the reader should see; empty where there is none."""
    return f'<div class="notice {kind}" role="status">{escape(text)}</div>' if text else ""


def about(turn: Turn | None, pace: Pace) -> list[str]:
    """What made a reply, and how fast."""
    if turn is None or turn.role != "assistant":
        return []
    words = [turn.model or ""]
    if turn.revision:
        words.append(f"revision {turn.revision[:12]}")
    if turn.original is not None:
        words.append("edited")
    if turn.completion_tokens is not None:
        words.append(f"{turn.completion_tokens} tokens")
    if rate := pace.tokens_per_s(turn.completion_tokens):
        words.append(f"{rate:.0f} tok/s")
    if pace.first_token_s is not None:
        words.append(f"first token {pace.first_token_s * 1000:.0f} ms")
    if turn.seed is not None:
        words.append(f"seed {turn.seed}")
    return [word for word in words if word]


def meter(dialogue: Dialogue, pace: Pace, context: int | None, busy: bool) -> str:
    """The line under the conversation: what answered, and how full the context is."""
    turn = dialogue.turns[-1] if dialogue.turns else None
    if busy:
        state = "The model is being loaded…" if pace.loading else "Answering…"
        left = [state] + ([turn.model] if turn is not None and turn.model else [])
    else:
        left = about(turn, pace)
    made = f'<div class="made">{spans(left)}</div>'
    return f'<div class="meter">{made}{room(dialogue, context)}</div>'


def spans(words: list[str]) -> str:
    """Words side by side."""
    return "".join(f"<span>{escape(word)}</span>" for word in words)


def room(dialogue: Dialogue, context: int | None) -> str:
    """How much of the context the dialogue takes, as of the last reply that was counted."""
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
