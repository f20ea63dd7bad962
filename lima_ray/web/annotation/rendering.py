"""Pieces that pages share, as HTML or as Gradio's chat takes them; texts of others are escaped."""

from collections.abc import Sequence
from html import escape
from typing import Any

from lima_ray.web.markdown import formatted

ROLES = ("user", "assistant")


def messages(turns: Sequence[str], first: int = 0) -> list[Any]:
    """Return turns as Gradio's chat takes them: Markdown, its HTML as text.

    Args:
        first: place of the first turn in its dialogue; even ones are the user's.
    """
    # In this form Gradio leaves a text as it is; a bare string loses indentation.
    return [
        {"role": ROLES[n % 2], "content": [{"type": "text", "text": formatted(turn) or "…"}]}
        for n, turn in enumerate((turn.replace("\x00", "") for turn in turns), start=first)
    ]


def notice(text: str) -> str:
    """Return a line that the reader should see; empty where there is none."""
    return f'<div class="notice" role="status">{escape(text)}</div>' if text else ""


def clean(text: str | None) -> str:
    """Return a text as a text area gives it, without what UTF-8 or Markdown cannot hold."""
    text = (text or "").replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    return text.encode("utf-8", "replace").decode()
