"""Blocks as Markdown, whose pictures stand beside the file."""

import os
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import quote

from lima_ray.config.terminal import printable
from lima_ray.results.page.blocks import (
    Block,
    Code,
    Columns,
    Details,
    Heading,
    Inline,
    Items,
    Line,
    Lines,
    Link,
    Paragraph,
    Picture,
    Preformatted,
    Small,
    Strong,
    Table,
    one_line,
    parts_of,
)

SPECIAL = re.compile(
    r"[\\`*|~$]"
    r"|^\[|\](?=[(\[:])"  # a link's text, before its address, or what defines an address
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # an underscore inside a word has no meaning
    r"|<(?=[A-Za-z/!?]|[^\s<>]{1,64}@|$)|&(?=[A-Za-z#]|$)"  # a tag, an address, an entity
)
"""What Markdown gives a meaning inside a line."""
ENTITIES = {"<": "&lt;", "&": "&amp;"}
IN_LINK = re.compile(rf"[\[\]]|{SPECIAL.pattern}")
"""The same in the text of a link, which ends at a bracket."""
JOINED = re.compile(r"[\]!][(\[:]|``|\*\*")
"""Ends of two pieces that together would be a link, an image or one run of signs."""
LEADING = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[#+=>-]))(.)")
"""What begins a heading, a quotation or a list: 6. is one, 6.6 is none."""
CLOSING = re.compile(r"(?<=\s)#(?=#*\s*$)")
"""Signs after a heading that are no part of it."""


def markdown_page(blocks: Iterable[Block], folder: Path = Path()) -> str:
    """Return blocks as Markdown.

    Args:
        blocks: in their order.
        folder: where the page will stand, from which pictures are found.
    """
    return "\n\n".join(markdown_block(block, folder) for block in blocks) + "\n"


def markdown_block(block: Block, folder: Path) -> str:
    """Return one block as Markdown."""
    match block:
        case Heading():
            said = CLOSING.sub(r"\#", markdown_inline(block.text))
            return f"{'#' * block.level} {said}"
        case Paragraph():
            return markdown_line(block.parts)
        case Items():
            return "\n".join(f"- {markdown_line(item)}" for item in block.items)
        case Preformatted():
            return fenced(block.text)
        case Table():
            return markdown_table(block)
        case Picture():
            return markdown_picture(block, folder)
        case Columns():
            inside = (b for column in block.columns for b in column)
            return "\n\n".join(markdown_block(b, folder) for b in inside)
        case Details():
            inside = "\n\n".join(markdown_block(b, folder) for b in block.blocks)
            summary = f"<summary>{escape(one_line(block.summary))}</summary>"
            return f"<details>{summary}\n\n{inside}\n\n</details>"


def markdown_table(table: Table) -> str:
    """Return a table, numbers to the right."""
    aligned = ["---"] * table.text_columns
    aligned += ["---:"] * (len(table.headings) - table.text_columns)
    body = [list(map(markdown_line, row)) for row in table.rows]
    lines = [list(map(markdown_inline, table.headings)), aligned, *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_picture(picture: Picture, folder: Path) -> str:
    """Return a picture that follows the reader's theme where it has a dark form."""
    light = quote(Path(os.path.relpath(picture.file, folder)).as_posix())
    if not picture.dark:
        return f"![{escape_markdown(picture.alt)}]({light})"
    dark = quote(Path(os.path.relpath(picture.dark, folder)).as_posix())
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
    shown = f'<img width="480" alt="{escape(one_line(picture.alt))}" src="{light}">'
    return f"<picture>{source}{shown}</picture>"


def markdown_line(line: Line) -> str:
    """Return a piece or several as Markdown."""
    written = ""
    for part in parts_of(line):
        shown = markdown_inline(part)
        written += "<!-- -->" if JOINED.fullmatch(written[-1:] + shown[:1]) else ""
        written += shown
    return written


def markdown_inline(part: Inline) -> str:
    """Return a piece of a line as Markdown."""
    match part:
        case Link():
            shown = escape_markdown(part.text, IN_LINK)
            if part.safe_url and part.text == part.url:
                return f"<{part.safe_url}>"
            return f"[{shown}]({part.safe_url})" if part.safe_url else shown
        case Code():
            said = one_line(part.text)
            # A code span can hold neither a bar in a table nor any run of backticks.
            is_plain = said and not set(said) & set("`|")
            return f"`{said}`" if is_plain else f"<code>{escape_markdown(said)}</code>"
        case Strong():
            said = one_line(part.text)
            # Stars beside punctuation are none of Markdown's, or are, by what stands around them.
            is_plain = said[:1].isalnum() and said[-1:].isalnum()
            bold = escape_markdown(said)
            return f"**{bold}**" if is_plain else f"<strong>{bold}</strong>"
        case Small():
            return f"<small>{escape_markdown(part.text)}</small>"
        case Lines():
            return "<br>".join(map(escape_markdown, part.text.splitlines()))
        case _:
            # A space at an end stands between this piece and the next.
            before, after = (" " * end.isspace() for end in (part[:1], part[-1:]))
            return f"{before}{escape_markdown(part)}{after}"


def escape_markdown(said: str, special: re.Pattern[str] = SPECIAL) -> str:
    """Return a text as one line of Markdown that shows it and nothing else."""
    escaped = special.sub(lambda found: ENTITIES.get(found[0], f"\\{found[0]}"), one_line(said))
    return LEADING.sub(r"\1\\\2", escaped)


def fenced(said: str) -> str:
    """Return a text as a code block, in a fence that is longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", said)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{printable(said)}\n{fence}"
