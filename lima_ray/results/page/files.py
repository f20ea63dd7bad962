"""A page in both forms, each written whole."""

from collections.abc import Sequence
from pathlib import Path

from lima_ray.records.files import explain_write_errors, write_text
from lima_ray.results.page.blocks import Block, Heading
from lima_ray.results.page.html import html_page
from lima_ray.results.page.markdown import markdown_page


def write_page(blocks: Sequence[Block], stem: Path, title: str = "", flag: str = "--out") -> Path:
    """Write NAME.md and NAME.html.

    Args:
        blocks: in their order; their pictures are there.
        stem: the path of both, without its ending; its folder is there.
        title: of the window; without it the first heading's text.
        flag: which says where the page stands, for the error's way out.

    Returns:
        the HTML file.

    Raises:
        UserError: a file cannot be written.
    """
    title = title or next((b.text for b in blocks if isinstance(b, Heading)), stem.name)
    page = stem.with_name(f"{stem.name}.html")
    with explain_write_errors(page, flag):
        write_text(stem.with_name(f"{stem.name}.md"), markdown_page(blocks, stem.parent))
        write_text(page, html_page(title, blocks))
    return page
