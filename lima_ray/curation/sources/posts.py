"""Rows of Stack Exchange's XML: one a line, attributes alone; bytes are tested before parsing.

A dump's XML holds, by its age: a licence comment before the root, CRLF, references to characters
that XML forbids, fabricated rows, posts of the official answer bot (meta.stackexchange 401324,
402501, 402153, 412018).
"""

import re
from datetime import date

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]  # it has no stubs

ID = re.compile(rb'\bId="(-?\d+)"')
SCORE = re.compile(rb' Score="(-?\d+)"')
TYPE = re.compile(rb' PostTypeId="(\d+)"')
ILLEGAL = re.compile(
    rb"&#(?:x0*(?:[0-8bcef]|1[0-9a-f]|fff[ef]|d[89a-f][0-9a-f]{2})|"
    rb"0*(?:[0-8]|1[124-9]|2[0-9]|3[01]));",
    re.IGNORECASE,
)
"""References to characters that XML 1.0 forbids; lxml drops the whole text that holds one."""
RAW_ILLEGAL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
MAX_ROW_BYTES = 32 << 20
FABRICATED = frozenset({1000000001, 1000000010})
"""Ids of rows that were put into the dumps of June 2025 and are no posts."""
ANSWER_BOT = "-2"
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
    text = RAW_ILLEGAL.sub(b"", ILLEGAL.sub(b"", text))
    parser = etree.XMLParser(huge_tree=True, resolve_entities=False, no_network=True)
    try:
        return {str(k): str(v) for k, v in etree.fromstring(text, parser).attrib.items()}
    except etree.XMLSyntaxError:
        return None


def number(pattern: re.Pattern[bytes], line: bytes) -> int | None:
    """Return the number that an attribute of a row holds."""
    found = pattern.search(line)
    return int(found[1]) if found else None


def licence(row: dict[str, str]) -> str:
    """Return the licence of a row, by its date where it names none."""
    if named := row.get("ContentLicense"):
        return named
    day = row.get("CreationDate", "")[:10]
    return next((name for end, name in LICENCES if day < end.isoformat()), "CC BY-SA 4.0")


def author(row: dict[str, str], site: str) -> str:
    """Return the address of the author's profile, or the name where the account is gone."""
    if owner := row.get("OwnerUserId"):
        return f"https://{site}/users/{owner}"
    return row.get("OwnerDisplayName", "")
