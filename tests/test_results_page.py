"""Pages: every block as Markdown and as HTML shows its text and nothing else."""

from pathlib import Path
from random import Random

import matplotlib as mpl
import pytest
from lxml import html  # pyright: ignore[reportAttributeAccessIssue]  # it has no stubs
from markdown_it import MarkdownIt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lima_ray.config.errors import UserError
from lima_ray.results.page import pictures
from lima_ray.results.page.bars import Bars, draw_bars
from lima_ray.results.page.blocks import (
    Block,
    Code,
    Columns,
    Details,
    Heading,
    Inline,
    Items,
    Lines,
    Link,
    Picture,
    Preformatted,
    Small,
    Strong,
    Table,
    one_line,
    rows_table,
    text,
)
from lima_ray.results.page.files import write_page
from lima_ray.results.page.html import html_page
from lima_ray.results.page.markdown import escape_markdown, markdown_inline, markdown_page

NASTY = "<b>x</b> | `y` [z](http://x.org) \x1b[31m *a*"
SHOWN = "<b>x</b> | `y` [z](http://x.org) \\x1b[31m *a*"


def rendered(said: str) -> html.HtmlElement:
    """What a browser gets of Markdown."""
    return html.fromstring(MarkdownIt("commonmark", {"html": True}).enable("table").render(said))


@pytest.mark.parametrize("part", [NASTY, Code(NASTY), Strong(NASTY), Small(NASTY), Lines(NASTY)])
@pytest.mark.parametrize("form", ["markdown", "html"])
def test_every_piece_of_a_line_in_every_block_shows_text_of_others_as_text(
    part: Inline, form: str
) -> None:
    blocks: list[Block] = [
        text("In a paragraph: ", part),
        Items([part, ("and ", part)]),
        Table([NASTY, "n"], [[part, "1"], [("by ", part), "2"]]),
        Details(NASTY, [Columns([[text(part)], [Preformatted(NASTY)]])]),
    ]
    page = markdown_page(blocks) if form == "markdown" else html_page("t", blocks)
    tree = rendered(page) if form == "markdown" else html.fromstring(page)
    assert "\x1b" not in page
    assert not tree.xpath("//b | //a | //em")
    whole = " ".join(tree.text_content().split())
    assert whole.count(SHOWN) == 9
    for row in tree.xpath("//tr"):
        assert len(row.xpath("./th | ./td")) == 2


def test_pieces_beside_each_other_show_what_each_says() -> None:
    random = Random(0)
    signs = [*"[]():\\`*_|~$<>&#!-+1.a/= ^", "b ", "lt;", "b>", "http://x.org"]
    for _ in range(2000):
        said = ["".join(random.choices(signs, k=random.randint(1, 9))) for _ in range(3)]
        said = [" ".join(words.split()) or "x" for words in said]
        kinds = random.choices([str, Code, Strong, Small, lambda s: Link(s, "https://y.org")], k=3)
        line = tuple(kind(words) for kind, words in zip(kinds, said, strict=True))
        page = markdown_page([text(*line), Table(["heading"], [[line]])])
        tree = rendered(f"<div>\n\n{page}\n\n</div>")
        shown = [part.text_content() for part in tree.xpath("./p | .//td")]
        assert [words.strip() for words in shown] == ["".join(said).strip()] * 2, page
        assert len(tree.xpath("//a")) == 2 * sum(isinstance(part, Link) for part in line)
        assert set(tree.xpath("//@href")) <= {"https://y.org"}


@pytest.mark.parametrize("said", ["In C #", "a ##", "#", "# a #b#", "<1@b.co> wrote", "a <+b@c.d>"])
def test_a_heading_shows_all_of_its_text(said: str) -> None:
    tree = rendered(markdown_page([Heading(said)]))
    assert tree.tag == "h2" and tree.text_content() == said and not tree.xpath(".//a")


def test_plain_names_are_code_and_bold_as_people_write_them() -> None:
    assert markdown_inline(Code("a_b.yaml")) == "`a_b.yaml`"
    assert markdown_inline(Code("a`b")) == "<code>a\\`b</code>"
    assert markdown_inline(Strong("Not finished")) == "**Not finished**"
    assert markdown_inline(Strong("so.")) == "<strong>so.</strong>"
    assert markdown_inline("4.3 [4.1, 4.5], p <0.1 & a_b") == "4.3 [4.1, 4.5], p <0.1 & a_b"
    assert markdown_inline(Lines("a\n# b")) == "a<br>\\# b"


def test_a_link_leads_to_a_heading_of_the_page() -> None:
    heading = Heading("How it was made, in 3 steps")
    assert heading.anchor == "#how-it-was-made-in-3-steps"
    link = text(Link("there", heading.anchor))
    tree = html.fromstring(html_page("t", [link, heading]))
    assert tree.xpath("//a/@href") == [heading.anchor]
    assert tree.xpath("//h2/@id") == [heading.anchor[1:]]
    assert "[there](#how-it-was-made-in-3-steps)" in markdown_page([link])


def test_rows_make_a_table_of_text_and_none_say_so() -> None:
    rows = [{"point": "a", "p": "<0.001"}, {"point": "b", "p": ""}]
    assert markdown_page([rows_table(rows)]) == (
        "| point | p |\n| --- | --- |\n| a | <0.001 |\n| b |  |\n"
    )
    assert markdown_page([rows_table([])]) == "None yet.\n"


def test_a_page_in_both_forms_with_pictures_of_one_and_of_two_themes(tmp_path: Path) -> None:
    (tmp_path / "figures of it").mkdir()
    alone = tmp_path / "one.png"
    Figure(figsize=(1, 1)).savefig(alone)
    both = pictures.draw_picture(
        lambda colours: draw_bars([Bars(["a"], [1])], colours),
        "Bars <of> a",
        tmp_path / "figures of it",
        "bars",
    )
    blocks = [Heading("Report & more", 1), Picture("one", alone), both]
    page = write_page(blocks, tmp_path / "report.v1")
    assert page == tmp_path / "report.v1.html"
    markdown = (tmp_path / "report.v1.md").read_text()
    assert "![one](one.png)" in markdown
    assert 'srcset="figures%20of%20it/bars-dark.png"' in markdown
    tree = html.fromstring(page.read_text())
    assert tree.findtext(".//title") == "Report & more"
    assert len(tree.xpath("//img")) == 2 and len(tree.xpath("//source")) == 1
    assert all(src.startswith("data:image/png;base64,") for src in tree.xpath("//@src | //@srcset"))
    with pytest.raises(UserError, match=r"cannot be written: .*choose another --page"):
        write_page(blocks, alone / "report", flag="--page")


def test_labels_fit_beside_their_bars() -> None:
    panel = Bars(["W" * 40, "i"], [123_456_789, 1], "W" * 80)
    with mpl.rc_context(pictures.style(pictures.LIGHT)):
        figure = draw_bars([panel], pictures.LIGHT)
        canvas, page = FigureCanvasAgg(figure), figure.bbox
        canvas.draw()
    renderer = canvas.get_renderer()
    for axes in figure.axes:
        for label in [*axes.get_yticklabels(), *axes.texts, *figure.texts]:
            box = label.get_window_extent(renderer)
            assert page.x0 <= box.x0, label
            assert box.x1 <= page.x1, label


def test_addresses_are_links_of_the_web_alone() -> None:
    assert markdown_inline(Link("a", "javascript:x")) == "a"
    assert markdown_inline(Link("a", "http://[x")) == "a"
    assert (
        markdown_inline(Link("a", "https://x.org/a b)(<c>"))
        == "[a](https://x.org/a%20b%29%28%3Cc%3E)"
    )
    assert markdown_inline(Link("https://x.org/é", "https://x.org/é")) == "<https://x.org/%C3%A9>"


@pytest.mark.parametrize(
    "said",
    [
        NASTY,
        "# no heading",
        "- no item",
        "1. no item",
        "6.6",
        "a_b _c_ ~~d~~ &lt; &",
        "![x](http://x.org)",
    ],
)
def test_markdown_shows_a_line_of_any_text(said: str) -> None:
    tree = rendered(escape_markdown(said))
    assert tree.tag == "p"
    assert len(tree) == 0
    assert tree.text == one_line(said)


def test_markdown_keeps_the_spaces_between_the_pieces_of_a_line() -> None:
    said = text("Rows stand in ", Code("a.md"), ", texts: ", Link("b", "https://x.org"), ". 6.6 ")
    assert markdown_page([said]) == ("Rows stand in `a.md`, texts: [b](https://x.org). 6.6 \n")
