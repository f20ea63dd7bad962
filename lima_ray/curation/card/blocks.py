"""Parts of a page, written once and shown as Markdown and as HTML that needs nothing else.

Text is anybody's: each form escapes it. Control characters are shown, not sent.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote, urlsplit

from lima_ray.config.terminal import printable

STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #666; --line: #d4d4d4; --page: #fff;
  --raised: #f5f5f5; --link: #0b5cad }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --soft: #a0a0a0; --line: #3c3c3c;
  --page: #181818; --raised: #232323; --link: #7cb8ee } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 74rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere }
h1 { font-size: 1.8rem; margin: 0 0 .5rem } h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem }
p { max-width: 46rem; margin: .5rem 0 } a { color: var(--link) }
.table { overflow-x: auto; max-width: 100% } .table + .table { margin-top: 1rem }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { border-top: 1px solid var(--line); padding: .3rem .6rem; text-align: left;
  vertical-align: top; overflow-wrap: normal }
th { border-top: 0; color: var(--soft); font-weight: 600; vertical-align: bottom }
.number { text-align: right; white-space: nowrap } th.number { white-space: normal }
td.long { min-width: 11rem; max-width: 36rem; overflow-wrap: anywhere }
tr.total td { font-weight: 600 }
.columns { display: flex; flex-wrap: wrap; gap: 1.5rem 2.5rem; align-items: flex-start }
.columns > * { flex: 1 1 24rem; min-width: 0; max-width: 100% }
.columns > :has(figure) { flex: 0 1 30rem } figure { margin: 0; width: 30rem; max-width: 100% }
figure img { width: 100%; height: auto; display: block }
pre { background: var(--raised); border-radius: 6px; padding: .8rem 1rem; margin: .4rem 0 1rem;
  white-space: pre-wrap; font: .875rem/1.5 ui-monospace, Menlo, "DejaVu Sans Mono", monospace }
code { font: .9em ui-monospace, Menlo, "DejaVu Sans Mono", monospace }
summary { cursor: pointer; margin: .5rem 0 }
@media (max-width: 40rem) { body { padding: 1rem .8rem 3rem } table { font-size: .8rem }
  th, td { padding: .3rem .35rem } th:first-child, td:first-child { padding-left: 0 }
  td.long { min-width: 6rem } pre { padding: .6rem .7rem; font-size: .8rem } }
"""
LOADS_NOTHING = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What Markdown gives a meaning inside a line; an underscore inside a word has none."""
LEADING = re.compile(r"^(\d+(?=[.)](?:\s|$))|(?=[#+=-]))(.)")
"""What begins a heading or a list: 6. is one, 6.6 is none."""
LONG_CELL = 24
"""Characters from which on a cell may be wrapped."""


@dataclass(frozen=True)
class Link:
    """A text that leads somewhere."""

    text: str
    url: str

    @property
    def safe_url(self) -> str:
        """The address, where it is one of the web; else empty."""
        try:
            is_web = urlsplit(self.url).scheme in ("http", "https")
        except ValueError:
            return ""
        return quote(self.url, safe=":/?#@!$&'*+,;=%~-._") if is_web else ""


@dataclass(frozen=True)
class Code:
    """A name in a fixed-width font."""

    text: str


Inline = str | Link | Code


@dataclass(frozen=True)
class Heading:
    """The title of a page (level 1) or of a section."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A line of text with its links."""

    parts: tuple[Inline, ...]


@dataclass(frozen=True)
class Preformatted:
    """Text shown as it is, such as a command or a reply."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under headings; the first columns are text, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Inline]]
    text_columns: int = 1
    has_total: bool = False
    """The last row sums up the others."""


@dataclass(frozen=True)
class Picture:
    """A picture in two files, for light and for dark pages."""

    alt: str
    folder: Path
    """Beside the page."""
    name: str

    @property
    def light(self) -> Path:
        """The file for light pages."""
        return self.folder / f"{self.name}.png"

    @property
    def dark(self) -> Path:
        """The file for dark pages."""
        return self.folder / f"{self.name}-dark.png"


@dataclass(frozen=True)
class Columns:
    """Columns of blocks, beside each other where there is room."""

    columns: Sequence[Sequence["Block"]]


@dataclass(frozen=True)
class Details:
    """Blocks that show when their summary is clicked."""

    summary: str
    blocks: Sequence["Block"]


Block = Heading | Paragraph | Preformatted | Table | Picture | Columns | Details


def text(*parts: Inline) -> Paragraph:
    """Return a paragraph."""
    return Paragraph(parts)


def markdown_page(blocks: Iterable[Block]) -> str:
    """Return blocks as Markdown; pictures stand beside the file."""
    return "\n\n".join(map(markdown_block, blocks)) + "\n"


def markdown_block(block: Block) -> str:
    """Return one block as Markdown."""
    match block:
        case Heading():
            return f"{'#' * block.level} {markdown_inline(block.text)}"
        case Paragraph():
            return "".join(map(markdown_inline, block.parts))
        case Preformatted():
            return fenced(block.text)
        case Table():
            aligned = ["---"] * block.text_columns
            aligned += ["---:"] * (len(block.headings) - block.text_columns)
            body = [[markdown_inline(cell) for cell in row] for row in block.rows]
            lines = [list(map(markdown_inline, block.headings)), aligned, *body]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Picture():
            light, dark = (f"{f.parent.name}/{f.name}" for f in (block.light, block.dark))
            dark = f'<source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            shown = f'<img width="480" alt="{escape(one_line(block.alt))}" src="{light}">'
            return f"<picture>{dark}{shown}</picture>"
        case Columns():
            return "\n\n".join(markdown_block(b) for column in block.columns for b in column)
        case Details():
            inside = "\n\n".join(map(markdown_block, block.blocks))
            summary = f"<summary>{escape(one_line(block.summary))}</summary>"
            return f"<details>{summary}\n\n{inside}\n\n</details>"


def markdown_inline(part: Inline) -> str:
    """Return a piece of a line as Markdown."""
    match part:
        case Link():
            shown = escape_markdown(part.text)
            if part.safe_url and part.text == part.url:
                return f"<{part.safe_url}>"
            return f"[{shown}]({part.safe_url})" if part.safe_url else shown
        case Code():
            # HTML, because a code span can hold neither a bar in a table nor any run of backticks.
            return f"<code>{escape_markdown(part.text)}</code>"
        case _:
            # A space at an end stands between this piece and the next.
            before, after = (" " * end.isspace() for end in (part[:1], part[-1:]))
            return f"{before}{escape_markdown(part)}{after}"


def escape_markdown(said: str) -> str:
    """Return a text as one line of Markdown that shows it and nothing else."""
    escaped = SPECIAL.sub(r"\\\g<0>", escape(one_line(said), quote=False))
    return LEADING.sub(r"\1\\\2", escaped)


def one_line(said: str) -> str:
    """Return a text with all white space made single spaces."""
    return printable(" ".join(said.split()))


def fenced(said: str) -> str:
    """Return a text as a code block, in a fence that is longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", said)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{printable(said)}\n{fence}"


def html_page(title: str, blocks: Iterable[Block]) -> str:
    """Return blocks as one HTML file, light or dark as the reader's system is."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{LOADS_NOTHING}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(one_line(title))}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(map(html_block, blocks))
        + "\n</body></html>\n"
    )


def html_block(block: Block) -> str:
    """Return one block as HTML."""
    match block:
        case Heading():
            return f"<h{block.level}>{html_inline(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{''.join(map(html_inline, block.parts))}</p>"
        case Preformatted():
            return f"<pre>{escape(printable(block.text))}</pre>"
        case Table():
            return html_table(block)
        case Picture():
            dark = f'<source media="(prefers-color-scheme: dark)" srcset="{data_uri(block.dark)}">'
            alt = escape(one_line(block.alt))
            shown = f'<img alt="{alt}" src="{data_uri(block.light)}">'
            return f"<figure><picture>{dark}{shown}</picture></figure>"
        case Columns():
            columns = ("\n".join(map(html_block, column)) for column in block.columns)
            inside = "".join(f"<div>{column}</div>" for column in columns)
            return f'<div class="columns">{inside}</div>'
        case Details():
            inside = "\n".join(map(html_block, block.blocks))
            summary = f"<summary>{escape(one_line(block.summary))}</summary>"
            return f"<details>{summary}\n{inside}</details>"


def html_table(table: Table) -> str:
    """Return a table that scrolls by itself where the page is narrow."""
    columns = range(len(table.headings))
    numbers = [' class="number"' if c >= table.text_columns else "" for c in columns]
    cells = zip(numbers, table.headings, strict=True)
    head = "".join(f"<th{kind}>{html_inline(name)}</th>" for kind, name in cells)
    lines = []
    for row in table.rows:
        total = ' class="total"' if table.has_total and row is table.rows[-1] else ""
        line = "".join(
            f"<td{kind or long_cell(cell)}>{html_inline(cell)}</td>"
            for kind, cell in zip(numbers, row, strict=True)
        )
        lines.append(f"<tr{total}>{line}</tr>")
    body = "".join(lines)
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def long_cell(cell: Inline) -> str:
    """Return the class of a cell with more text than stands on a line."""
    return ' class="long"' if len(cell if isinstance(cell, str) else cell.text) > LONG_CELL else ""


def html_inline(part: Inline) -> str:
    """Return a piece of a line as HTML."""
    match part:
        case Link():
            shown = escape(one_line(part.text))
            return f'<a href="{escape(part.safe_url)}">{shown}</a>' if part.safe_url else shown
        case Code():
            return f"<code>{escape(one_line(part.text))}</code>"
        case _:
            return escape(printable(part))


def data_uri(file: Path) -> str:
    """Return a PNG as part of a page."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
