"""Rows of Stack Exchange's XML: one a line, attributes alone; bytes are tested before parsing.

A dump's XML holds, by its age: a licence comment before the root, CRLF, references to characters
that XML forbids, fabricated rows, posts of the official answer bot (meta.stackexchange 401324,
402501, 402153, 412018).
"""

import re
from datetime import date

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # it has no stubs

KIND, ID, PARENT = b' PostTypeId="', b' Id="', b' ParentId="'
POST, USER = b' PostId="', b' UserId="'
SCORE, OWNER = b' Score="', b' OwnerUserId="'
"""Attributes as bytes: no text holds one, for its quotation marks are references."""
QUESTION, ANSWER = b' PostTypeId="1"', b' PostTypeId="2"'
ANSWER_COUNT = b' AnswerCount="'
USUAL_HEAD = re.compile(
    rb'[ \t]*<row Id="(\d{1,18})" PostTypeId="(?:1"'
    rb'|2" ParentId="(\d{1,18})" CreationDate="[^"\n]*" Score="(-?\d{1,17})")'
)
"""The first attributes of a question's or an answer's row in the order of every dump so far."""
MAX_DIGITS = 18
ILLEGAL = re.compile(
    rb"""&\#(?:
        x0*(?: [0-8bcef] | 1[0-9a-f] | d[89a-f][0-9a-f]{2} | fff[ef]
            | 1[1-9a-f][0-9a-f]{4} | [2-9a-f][0-9a-f]{5} | [1-9a-f][0-9a-f]{6,} )
        | 0*(?: [0-8] | 1[124-9] | 2[0-9] | 3[01] | 6553[45]
            | 5529[6-9] | 55[3-9][0-9]{2} | 56[0-9]{3} | 57[0-2][0-9]{2} | 573[0-3][0-9] | 5734[0-3]
            | 111411[2-9] | 11141[2-9][0-9] | 1114[2-9][0-9]{2} | 111[5-9][0-9]{3}
            | 11[2-9][0-9]{4} | 1[2-9][0-9]{5} | [2-9][0-9]{6} | [1-9][0-9]{7,} )
    );""",
    re.VERBOSE | re.IGNORECASE,
)
"""References to what XML 1.0 allows nowhere (all but its production Char); lxml drops the whole
text that holds one."""
RAW_ILLEGAL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]")
TAG = re.compile(r"[^<>|]+")
MAX_ROW_BYTES = 32 << 20
FABRICATED = frozenset({1000000001, 1000000010})
"""Ids of rows that were put into the dumps of June 2025 and are no posts."""
ANSWER_BOT = -2
OF_ANSWER_BOT = b' OwnerUserId="%d"' % ANSWER_BOT
PARSER = etree.XMLParser(huge_tree=True, resolve_entities=False, no_network=True)
LICENCES = (
    (date(2011, 4, 8), "CC BY-SA 2.5"),
    (date(2018, 5, 2), "CC BY-SA 3.0"),
)
"""Of posts before a day, where a row names none; CC BY-SA 4.0 from then on."""


def read_row(line: bytes) -> dict[str, str] | None:
    """Return a row's attributes; none where the line is no row that can be read.

    Args:
        line: `<row ... />`, white space around it.
    """
    text = line.strip()
    if not text.startswith(b"<row ") or len(text) > MAX_ROW_BYTES:
        return None
    try:
        return dict(etree.fromstring(text, PARSER).attrib)
    except etree.XMLSyntaxError:
        text = RAW_ILLEGAL.sub(b"", ILLEGAL.sub(b"", text))
    try:
        return dict(etree.fromstring(text, PARSER).attrib)
    except etree.XMLSyntaxError:
        return None


def is_unanswered(block: bytes, start: int, end: int) -> bool:
    """Return whether a question's row in a block says that it has no answer."""
    at = block.rfind(ANSWER_COUNT, start, end)  # from the end, near which it stands
    return at >= 0 and block.startswith(b'0"', at + len(ANSWER_COUNT))


def number(name: bytes, block: bytes, start: int = 0, end: int | None = None) -> int | None:
    """Return the whole number that an attribute of a row in a block holds; none where it has none.

    Args:
        name: with what stands around it, such as ` Id="`.
        block: some lines.
        start: the row's first byte.
        end: the byte after its last; none takes the block's end.
    """
    at = block.find(name, start, end)
    if at < 0:
        return None
    at += len(name)
    found = block[at : block.find(b'"', at, end)]
    if not found.isdigit() and not (found[:1] == b"-" and found[1:].isdigit()):
        return None
    return int(found) if len(found) <= MAX_DIGITS else None


def tags(row: dict[str, str]) -> tuple[str, ...]:
    """Return a question's tags, which stand as `<a><b>`, in newer dumps as `|a|b|`."""
    return tuple(TAG.findall(row.get("Tags", "")))


def licence(row: dict[str, str]) -> str:
    """Return the licence of a row, by its date where it names none; without one no version."""
    if named := row.get("ContentLicense"):
        return named
    day = row.get("CreationDate", "")[:10]
    if not day:
        return "CC BY-SA"
    return next((name for end, name in LICENCES if day < end.isoformat()), "CC BY-SA 4.0")


def author(row: dict[str, str], site: str) -> str:
    """Return the address of the author's profile, or the name where the account is gone."""
    if owner := row.get("OwnerUserId"):
        return f"https://{site}/users/{owner}"
    return row.get("OwnerDisplayName", "")
