"""Rows of Stack Exchange's XML: what dumps of all years hold, and what XML forbids."""

import re

import pytest
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]
from stack_exchange import answer, question, row

from lima_ray.curation.sources.stackexchange import posts

LAST_CODE = 0x10FFFF


def is_char(code: int) -> bool:
    """Return whether a code point is a character of XML 1.0 (its production 2)."""
    return (
        code in (0x9, 0xA, 0xD)
        or 0x20 <= code <= 0xD7FF
        or 0xE000 <= code <= 0xFFFD
        or 0x10000 <= code <= LAST_CODE
    )


@pytest.mark.parametrize("form", ["&#%d;", "&#x%x;", "&#x00%X;"])
def test_illegal_references_are_those_of_xml(form: str) -> None:
    """Every code point there is, and the first ones after the last."""
    forms = {code: (form % code).encode() for code in range(LAST_CODE + 3000)}
    found = set(posts.ILLEGAL.findall(b" ".join(forms.values())))
    assert found == {text for code, text in forms.items() if not is_char(code)}


def test_numbers_beyond_all_characters_are_illegal() -> None:
    for power in range(21, 90, 3):
        for code in (2**power - 1, 2**power, 2**power + 1, 10**power):
            for text in (b"&#%d;" % code, b"&#x%x;" % code):
                assert bool(posts.ILLEGAL.fullmatch(text)) == (not is_char(code)), text


def test_lxml_agrees_on_what_is_legal() -> None:
    edges = [0, 8, 9, 10, 11, 13, 14, 31, 32, 0xD7FF, 0xD800, 0xDFFF, 0xE000, 0xFFFD, 0xFFFE]
    for code in [*edges, 0xFFFF, 0x10000, LAST_CODE, LAST_CODE + 1]:
        text = b'<row Body="&#%d;" />' % code
        try:
            etree.fromstring(text)
            legal = True
        except etree.XMLSyntaxError:
            legal = False
        assert legal == (not posts.ILLEGAL.search(text))
        assert posts.read_row(text) is not None


@pytest.mark.parametrize(
    "bad", ["&#x1E;", "&#x0;", "&#xFFFF;", "&#1114112;", "\x00", "\x1b", "\uffff"]
)
def test_a_body_with_an_illegal_character_keeps_the_rest(bad: str) -> None:
    line = row(Id=1, Body="before|after").replace("|", bad).encode()
    assert posts.read_row(line) == {"Id": "1", "Body": "beforeafter"}


def test_white_space_and_markup_of_a_body_survive() -> None:
    body = '<p>a &amp; "b" &lt;c&gt;</p>\r\n<pre>x\n\ty</pre> ünï 𝄞'
    assert posts.read_row(row(Id=1, Body=body).encode() + b"\r") == {"Id": "1", "Body": body}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"<posts>",
        b"</posts>",
        b'\xef\xbb\xbf<?xml version="1.0"?>',
        b"<!-- licence: see license.txt",
        b"<!DOCTYPE posts SYSTEM 'posts.dtd'>",
        b'<row Id="1" Body="cut o',
        b'<row Id="1" Id="2" />',
        b'<row Id="1" Body="\xff\xfe" />',
        b'<row Id="1" Body="&bomb;" />',
        b'<rows Id="1" />',
    ],
)
def test_what_is_no_row_is_none(line: bytes) -> None:
    assert posts.read_row(line) is None


def test_an_entity_bomb_cannot_be_declared_in_a_row() -> None:
    head = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    assert posts.read_row(f"{head}{row(Id=1)}".encode()) is None
    assert posts.read_row(row(Id=1, Body="x").replace("x", "&b;").encode()) is None


def test_an_attribute_over_10_mb_is_read_and_a_row_of_absurd_length_is_not() -> None:
    body = "<p>long</p>" * 1_000_000
    found = posts.read_row(row(Id=1, Body=body).encode())
    assert found is not None
    assert found["Body"] == body
    assert posts.read_row(b'<row Id="1" Body="' + b"x" * posts.MAX_ROW_BYTES + b'" />') is None


@pytest.mark.parametrize("said", ["<c++><.net>", "|c++|.net|"])
def test_tags_of_both_forms(said: str) -> None:
    line = question(1, Tags=said).encode()
    assert posts.tags(posts.read_row(line) or {}) == ("c++", ".net")
    assert posts.tags({}) == ()


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        ("2011-04-07T23:59:59.999", "CC BY-SA 2.5"),
        ("2011-04-08T00:00:00.000", "CC BY-SA 3.0"),
        ("2018-05-01T23:59:59.999", "CC BY-SA 3.0"),
        ("2018-05-02T00:00:00.000", "CC BY-SA 4.0"),
        ("2024-01-01T00:00:00.000", "CC BY-SA 4.0"),
    ],
)
def test_a_licence_is_named_or_follows_from_the_date(day: str, expected: str) -> None:
    assert posts.licence({"CreationDate": day}) == expected
    assert posts.licence({"CreationDate": day, "ContentLicense": "CC BY-SA 9"}) == "CC BY-SA 9"


def test_authors_with_and_without_an_account() -> None:
    site = "beer.stackexchange.com"
    assert posts.author({"OwnerUserId": "8"}, site) == f"https://{site}/users/8"
    assert posts.author({"OwnerDisplayName": "user42"}, site) == "user42"
    assert posts.author({}, site) == ""


def test_numbers_are_of_the_named_attribute_alone() -> None:
    line = answer(44, 7, Score=-3, Body='Id="9" ParentId="9" Score="9"').encode()
    assert posts.number(posts.ID, line) == 44
    assert posts.number(posts.PARENT, line) == 7
    assert posts.number(posts.SCORE, line) == -3
    for bad in (b"1e9", b"", b"-", b"\xb2", b"9" * 5000, b"--1", b"1_0", b" 1"):
        assert posts.number(posts.SCORE, b'<row Score="%s" />' % bad) is None


def test_illegal_pattern_leaves_common_references() -> None:
    legal = b"&#xA; &#xD; &#x9; &#10; &#13; &#32; &#x1F600; &amp; &#39; &lt;"
    assert not posts.ILLEGAL.search(legal)
    assert re.fullmatch(posts.ILLEGAL, b"&#xd800;")
