"""Messages as the chat's Markdown: all text is seen, code is left as it is, nesting is bounded."""

import html
import re
import time

import pytest
from markdown_it import MarkdownIt

from lima_ray.web.markdown import MAX_FORMULA_CHARACTERS, MAX_FORMULA_DEPTH, formatted, plain, typed
from serve.conversations.dialogue import Dialogue, Turn
from serve.page.rendering import messages

TEXTS = [
    "What is List<int> in C++?",
    "<think>plan</think> ok",
    "# no *heading* 1. `x` [a](b) ~~c~~ www.a.de https://a.de\n\n    no code\n- no list\n> q",
    "  two  spaces\n\ttab\nà ß 漢字 🌍 \\( x \\) $$ y $$ &lt; &#60; </p> %%%LATEX_BLOCK_0%%%",
]


@pytest.mark.parametrize("text", TEXTS)
def test_message_of_a_person_is_one_paragraph_of_its_letters(text: str) -> None:
    """Drawn by a Markdown with HTML in it, as the browser's is."""
    drawn = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    inner = drawn.render(plain(text)).removeprefix("<p>").removesuffix("</p>\n")
    assert "<" not in inner and html.unescape(inner) == text


def test_edited_message_comes_as_it_was_typed() -> None:
    for text in [*TEXTS, "&#8203;", "&#38;", "x"]:
        letters = "".join(c if c.isascii() and c.isalnum() else f"&#{ord(c)};" for c in text)
        assert typed("&#8203;" + letters) == text
    assert typed("a &#60; b") == "a &#60; b"


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("while (i<n && n>0)", "while (i&#60;n && n>0)"),
        ("a <b>c</b> `<d>` ``<e>`<f>``", "a &#60;b>c&#60;/b> `<d>` ``<e>`<f>``"),
        ("`<a>\\`<b>`", "`<a>\\`&#60;b>`"),
        ("\\`<a> `<b>`", "\\`&#60;a> `<b>`"),
        ("```html\n<p>\n```\n<p>", "```html\n<p>\n```\n&#60;p>"),
        ("- x\n  ~~~\n  <a>\n  ~~~\n  <b>", "- x\n  ~~~\n  <a>\n  ~~~\n  &#60;b>"),
        ("x\n\n    <a>\n\n<b>", "x\n\n    <a>\n\n&#60;b>"),
        ("|a|`<b|\n|-|-|\n|`<c>`|<d>|", "|a|`&#60;b|\n|-|-|\n|`<c>`|&#60;d>|"),
        ("&lt; &#60; a & b", "&#38;lt; &#38;#60; a & b"),
        ("\\(a<b\\) $$c<d$$", "\\(a&#60;b\\) $$c&#60;d$$"),
        ("```py\na<b", "```py\na<b\n```"),
        ("\\( a $$b$$ \\) \\[ c", "&#92;( a $$b$$ \\) &#92;[ c"),
        ("$$ a `$$ \\(`", "$$ a `$$ &#92;(`"),
        ("`\\(` $$", "`\\(` &#36;$"),
        ("```mermaid\n<b>", "``` mermaid\n<b>\n```"),
    ],
)
def test_markup_of_a_reply_is_text_but_in_code(text: str, drawn: str) -> None:
    assert formatted(text) == drawn


@pytest.mark.parametrize(
    "source",
    [
        "\\frac{1}{" * 300 + "}" * 300,
        "\\frac" * 300,
        "\\left(" * 300 + "\\right)" * 300,
        "\\def\\a{\\frac{1}{\\a}}\\a",
        "x+" * 2000,
        "\\rule{1000em}{900.5 em}",
        "\\rule{12.1000em}{1em}",
    ],
)
def test_formula_that_ends_a_tab_is_shown_as_code(source: str) -> None:
    for left, right in (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)")):
        shown = formatted(f"so {left}{source}{right} is")
        assert re.fullmatch(r"so ` .* ` is", shown) and source[:20] in shown


def test_formulas_of_daily_use_are_drawn() -> None:
    nested = "\\sqrt{" * MAX_FORMULA_DEPTH + "x" + "}" * MAX_FORMULA_DEPTH
    matrix = "\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix} \\left( \\frac{a}{b} \\right)" * 5
    for source in (nested, matrix, "\\alpha\\beta\\gamma \\{x\\}"):
        assert formatted(f"$${source}$$") == f"$${source}$$"


def test_quotes_and_lists_nest_to_a_bound() -> None:
    for marker in ("> ", "- ", "1. ", ">"):
        assert formatted(marker * 10 + "x") == marker * 10 + "x"
        levels = MarkdownIt().parse(formatted(marker * 3000 + "x"))
        assert max(token.level for token in levels) < 5
        assert formatted(marker * 3000).count("\\") == 1, "each escape is a piece"


@pytest.mark.parametrize("piece", ["*a ", "\\* ", "`a` ", "- a\n", "a\n\n", "<a@b.c> ", "[a](b) "])
def test_message_of_too_many_pieces_is_one_block_of_code(piece: str) -> None:
    few = piece * 100
    assert not formatted(few).startswith("```")
    many = "````\n" + piece * 10_000
    (block,) = MarkdownIt().parse(formatted(many))
    assert block.type == "fence" and block.content == f"{many}\n"


@pytest.mark.parametrize(
    "piece",
    ["`", "` ", "\\( ", "$$ ", "> ", "<a ", "```mermaid\n", "\n", "|", "1", "1.", "100 ", "\\a "],
)
def test_hostile_text_takes_no_time(piece: str) -> None:
    began = time.monotonic()
    formatted(piece * (30_000 // len(piece)))
    for left, right in (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)")):
        formatted(f"{left}{piece * (MAX_FORMULA_CHARACTERS // len(piece) - 4)}{right}" * 15)
    assert time.monotonic() - began < 1


def test_reply_that_is_not_complete_says_so_unless_it_was_mended() -> None:
    def shown(busy: bool = False, **how: str | None) -> str:
        turns = [Turn("user", "Hi"), Turn("assistant", "```\nx", **how)]  # pyright: ignore
        (part,) = messages(Dialogue(turns=turns), busy)[1]["content"]
        return part["text"]

    for reason, words in (
        ("length", "at its length limit"),
        ("stopped", "stopped here"),
        ("error", "broke off"),
        (None, "its end was lost"),
    ):
        assert re.fullmatch(rf"```\nx\n```\n\n\*⋯ .*{words}.*\*", shown(finish_reason=reason))
        assert "⋯" not in shown(finish_reason=reason, original="y")
        assert "⋯" not in shown(busy=True, finish_reason=reason)
    assert "⋯" not in shown(finish_reason="stop")
