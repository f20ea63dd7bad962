"""Reports as pages: Markdown beside its pictures, or one HTML file that needs nothing else.

    page.markdown_page("# study", page.embed_figure("study", file), page.markdown_table(rows))
    page.html_page("Replies side by side", page.html_text(summary), page.html_table(names, rows))

Cells of an HTML table and what `html_page` is given are HTML already; text passes `html.escape`.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
td, th { border-top: 1px solid #ccc; padding: .6rem; vertical-align: top; text-align: left }
td { white-space: pre-wrap; overflow-wrap: anywhere } small { color: #666 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } }
"""


def markdown_page(*parts: str) -> str:
    """Join paragraphs, tables and figures to a Markdown page; empty ones are left out."""
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Write rows, each with the same headings as the first, as a Markdown table."""
    if not rows:
        return "None yet."
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(map(markdown_row, lines))


def markdown_row(cells: Iterable[str]) -> str:
    """Write a line of a Markdown table; the bars between cells cannot stand in one."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def embed_figure(name: str, file: Path) -> str:
    """Show a picture that stands beside the Markdown page."""
    return f"![{name}]({file.name})"


def html_page(title: str, *parts: str) -> str:
    """Return a whole HTML page, light or dark as the reader's system is."""
    head = f'<!doctype html><meta charset="utf-8"><title>{escape(title)}</title>'
    return f"{head}<style>{STYLE}</style>{''.join(parts)}\n"


def html_text(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def html_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of headings, as text, and cells, as HTML."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = ("".join(f"<td>{cell}</td>" for cell in cells) for cells in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
