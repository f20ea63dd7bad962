"""HTML of posts as Markdown to learn from, and as plain text to measure."""

import html
import re

from html_to_markdown import ConversionOptions, convert

OPTIONS = ConversionOptions(strip_tags=["a", "img"])
"""Links keep their text, pictures go; code keeps its language (LIMA section 2.1)."""
CODE = re.compile(r"<pre\b.*?</pre>|<code\b.*?</code>", re.DOTALL | re.IGNORECASE)
TAG = re.compile(r"<[^>]+>")


def to_markdown(body: str) -> str:
    """Return HTML as Markdown, without links and pictures."""
    return (convert(body, OPTIONS).content or "").strip()


def to_text(body: str) -> str:
    """Return HTML as plain text, a space for each tag: what lengths are measured on."""
    return html.unescape(TAG.sub(" ", body))


def to_prose(body: str) -> str:
    """Return the plain text without code, whose words are nobody's speech."""
    return to_text(CODE.sub(" ", body))
