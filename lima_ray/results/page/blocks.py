"""What a page is made of: pieces of a line, and blocks of lines."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from lima_ray.config.terminal import printable


@dataclass(frozen=True)
class Link:
    """A text that leads to a page of the web, or to a heading of this page by its `anchor`."""

    text: str
    url: str

    @property
    def safe_url(self) -> str:
        """The address, where it is one of the web or of this page; else empty."""
        try:
            is_safe = urlsplit(self.url).scheme in ("http", "https") or self.url.startswith("#")
        except ValueError:
            return ""
        return quote(self.url, safe=":/?#@!$&'*+,;=%~-._") if is_safe else ""


@dataclass(frozen=True)
class Code:
    """A name in a fixed-width font."""

    text: str


@dataclass(frozen=True)
class Strong:
    """Bold text."""

    text: str


@dataclass(frozen=True)
class Small:
    """A remark in small, soft letters."""

    text: str


@dataclass(frozen=True)
class Lines:
    """A text whose line breaks are kept, such as a reply in a cell."""

    text: str


Inline = str | Link | Code | Strong | Small | Lines
Line = Inline | tuple[Inline, ...]
"""A piece or several, one after the other."""


@dataclass(frozen=True)
class Heading:
    """The title of a page (level 1) or of a section."""

    text: str
    level: int = 2

    @property
    def anchor(self) -> str:
        """The address on the page as GitHub makes it: `#how-it-was-made`."""
        words = re.sub(r"[^\w\- ]", "", self.text.lower().strip())
        return f"#{words.replace(' ', '-')}"


@dataclass(frozen=True)
class Paragraph:
    """Text with its links."""

    parts: tuple[Inline, ...]


@dataclass(frozen=True)
class Items:
    """A list with bullets."""

    items: Sequence[Line]


@dataclass(frozen=True)
class Preformatted:
    """Text shown as it is, such as a command or a reply."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under headings; the first columns are text, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Line]]
    text_columns: int = 1
    has_total: bool = False
    """The last row sums up the others."""
    is_even: bool = False
    """Columns of equal width over the whole page, for texts beside each other."""


@dataclass(frozen=True)
class Picture:
    """A PNG, and perhaps the same one for dark pages."""

    alt: str
    file: Path
    dark: Path | None = None


@dataclass(frozen=True)
class Columns:
    """Columns of blocks, beside each other where there is room."""

    columns: Sequence[Sequence["Block"]]


@dataclass(frozen=True)
class Details:
    """Blocks that show when their summary is clicked."""

    summary: str
    blocks: Sequence["Block"]


Block = Heading | Paragraph | Items | Preformatted | Table | Picture | Columns | Details


def text(*parts: Inline) -> Paragraph:
    """Return a paragraph."""
    return Paragraph(parts)


def rows_table(rows: Sequence[Mapping[str, Line]]) -> Table | Paragraph:
    """Return rows, each with the same headings as the first, as a table of text."""
    if not rows:
        return text("None yet.")
    cells = [list(row.values()) for row in rows]
    return Table(list(rows[0]), cells, text_columns=len(rows[0]))


def parts_of(line: Line) -> tuple[Inline, ...]:
    """Return the pieces of a line."""
    return line if isinstance(line, tuple) else (line,)


def one_line(said: str) -> str:
    """Return a text with all white space made single spaces, and control characters shown."""
    return printable(" ".join(said.split()))
