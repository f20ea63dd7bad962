"""HTML of posts as Markdown to learn from, and as plain text to measure."""

import html
import re

from html_to_markdown import (
    CodeBlockStyle,
    ConversionOptions,
    HeadingStyle,
    HiddenContent,
    HighlightStyle,
    InlineDataMedia,
    LinkStyle,
    ListIndentType,
    NewlineStyle,
    OutputFormat,
    TierStrategy,
    UrlEscapeStyle,
    WhitespaceMode,
    convert,
)

OPTIONS = ConversionOptions(
    strip_tags=["a", "img"],
    # Its defaults, which are names: it looks them up at each call, longer than it converts a post.
    code_block_style=CodeBlockStyle.BACKTICKS,
    heading_style=HeadingStyle.ATX,
    hidden_content=HiddenContent.DROP,
    highlight_style=HighlightStyle.DOUBLE_EQUAL,
    inline_data_media=InlineDataMedia.KEEP,
    link_style=LinkStyle.INLINE,
    list_indent_type=ListIndentType.SPACES,
    newline_style=NewlineStyle.SPACES,
    output_format=OutputFormat.MARKDOWN,
    tier_strategy=TierStrategy.AUTO,
    url_escape_style=UrlEscapeStyle.ANGLE,
    whitespace_mode=WhitespaceMode.NORMALIZED,
)
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
