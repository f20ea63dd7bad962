"""Filters: each looks at a text and returns `True`, or `False` with what it found.

The values are LIMA's (section 2.1). `first_failure` runs several in order, so that every row that
is dropped has one reason, and a funnel can be counted.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Literal, TypeVar

Result = Literal[True] | tuple[Literal[False], str]
Item = TypeVar("Item")

FIRST_PERSON = re.compile(r"\bI\b(?!\.[a-z])|\b(?:me|my|mine|myself)\b|\b(?:Me|My|Mine|Myself)\b")
"""`I` in capitals alone: `i.e.` and a variable `i` are not the writer."""
REFERENCES = re.compile(
    r"\b(?:as (?:mentioned|stated|noted|said|pointed out|explained)"
    r"|stack ?exchange|stack ?overflow"
    r"|(?:other|another|previous|above|accepted|top)"
    r" (?:answer|answerer|poster|comment|repl(?:y|ie))s?"
    r"|(?:answer|post|comment|repl(?:y|ie))s? (?:above|below)"
    r"|answered (?:above|below|elsewhere))\b"
    r"|(?<![\w.])@\w+",
    re.IGNORECASE,
)


def first_failure(
    filters: Mapping[str, Callable[[Item], Result]], item: Item
) -> tuple[str, str] | None:
    """Return the name of the first filter that drops an item and what it found; none keeps it."""
    for name, test in filters.items():
        result = test(item)
        if result is not True:
            return name, result[1]
    return None


def length_between(text: str, least: int, most: int) -> Result:
    """Keep a text of so many characters."""
    if least <= len(text) <= most:
        return True
    return False, f"{len(text):,} characters; {least:,} to {most:,} are kept"


def at_least(value: float, least: float) -> Result:
    """Keep a number that is high enough."""
    return True if value >= least else (False, f"{value:,g}, less than {least:,g}")


def no_first_person(text: str) -> Result:
    """Keep a text whose writer does not speak of themselves."""
    return without(FIRST_PERSON, text)


def no_references(text: str) -> Result:
    """Keep a text that stands by itself: it names no other answer, user or the site."""
    return without(REFERENCES, text)


def without(pattern: re.Pattern[str], text: str) -> Result:
    """Keep a text in which a pattern does not occur; else tell what stands around it."""
    found = pattern.search(text)
    if not found:
        return True
    around = text[max(0, found.start() - 20) : found.end() + 20]
    return False, f"...{' '.join(around.split())}..."


def written_before(day: str, limit: date | None) -> Result:
    """Keep what was written before a day, and what has no date.

    Args:
        day: as 2014-01-21, or longer; empty where it is not known.
        limit: the first day that is too late; none keeps all.
    """
    if limit is None or not day or day[:10] < limit.isoformat():
        return True
    return False, f"written on {day[:10]}, not before {limit}"
