"""Blocks as one HTML file that needs nothing else, light or dark as the reader's system is."""

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from pathlib import Path

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
tr.total td { font-weight: 600 } small { color: var(--soft) }
.even { width: 100%; table-layout: fixed } .lines { white-space: pre-wrap }
.even td { overflow-wrap: anywhere } .even td.long { max-width: none }
ul { max-width: 60rem; padding-left: 1.2rem }
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
LONG_CELL = 24
"""Characters from which on a cell may be wrapped."""


def html_page(
    title: str, blocks: Iterable[Block], after: str = "", style: str = "", script: str = ""
) -> str:
    """Return blocks as one HTML file; pictures are inside.

    Args:
        title: of the window.
        blocks: in their order.
        after: HTML that follows them, in which all text is escaped.
        style: rules beside those of every page.
        script: the only one that a browser runs, known by its hash.
    """
    policy, run = LOADS_NOTHING, ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy, run = f"{policy}; script-src 'sha256-{digest}'", f"<script>{script}</script>\n"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(one_line(title))}</title><style>{STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(map(html_block, blocks))
        + f"{after}\n{run}</body></html>\n"
    )


def html_block(block: Block) -> str:
    """Return one block as HTML."""
    match block:
        case Heading():
            name = escape(block.anchor[1:])
            return f'<h{block.level} id="{name}">{html_inline(block.text)}</h{block.level}>'
        case Paragraph():
            return f"<p>{''.join(map(html_inline, block.parts))}</p>"
        case Items():
            return f"<ul>{''.join(f'<li>{html_line(item)}</li>' for item in block.items)}</ul>"
        case Preformatted():
            return f"<pre>{escape(printable(block.text))}</pre>"
        case Table():
            return html_table(block)
        case Picture():
            return html_picture(block)
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
            f"<td{kind or long_cell(cell)}>{html_line(cell)}</td>"
            for kind, cell in zip(numbers, row, strict=True)
        )
        lines.append(f"<tr{total}>{line}</tr>")
    even = ' class="even"' if table.is_even else ""
    return (
        f'<div class="table"><table{even}><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def long_cell(cell: Line) -> str:
    """Return the class of a cell with more text than stands on a line."""
    parts = parts_of(cell)
    count = sum(len(part if isinstance(part, str) else part.text) for part in parts)
    return ' class="long"' if count > LONG_CELL else ""


def html_picture(picture: Picture) -> str:
    """Return a picture, and its dark form for dark pages."""
    alt = escape(one_line(picture.alt))
    shown = f'<img alt="{alt}" src="{data_uri(picture.file)}">'
    if not picture.dark:
        return f"<figure>{shown}</figure>"
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{data_uri(picture.dark)}">'
    return f"<figure><picture>{dark}{shown}</picture></figure>"


def html_line(line: Line) -> str:
    """Return a piece or several as HTML."""
    return "".join(map(html_inline, parts_of(line)))


def html_inline(part: Inline) -> str:
    """Return a piece of a line as HTML."""
    match part:
        case Link():
            shown = escape(one_line(part.text))
            return f'<a href="{escape(part.safe_url)}">{shown}</a>' if part.safe_url else shown
        case Code():
            return f"<code>{escape(one_line(part.text))}</code>"
        case Strong():
            return f"<strong>{escape(one_line(part.text))}</strong>"
        case Small():
            return f"<small>{escape(one_line(part.text))}</small>"
        case Lines():
            return f'<span class="lines">{escape(printable(part.text))}</span>'
        case _:
            return escape(printable(part))


def data_uri(file: Path) -> str:
    """Return a PNG as part of a page."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
