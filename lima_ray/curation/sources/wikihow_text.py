"""The text of wikiHow articles: titles as prompts, and bodies as Markdown without what the site
adds (citations, polls, pictures, links)."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PAGE_SUFFIXES = re.compile(r"\s+-\s+wikiHow$|\s*\((?:with|and) [^)]*\)$", re.IGNORECASE)
WAYS = re.compile(
    r"^(?:(?:\d+\+?|the|best|easy|simple|quick|effective|proven|expert advice on)\s+)*"
    r"(?:(?:ways?|steps|methods|tips)\s+to|how\s+to)\s+",
    re.IGNORECASE,
)
"""What begins a title: How to, 3 Ways to, Simple Ways to."""
COUNT = re.compile(r"\s+in \d+\b[^:]*\b(?:steps|ways|minutes)$", re.IGNORECASE)
PART_NUMBER = re.compile(r"(?<=[a-z)])(\d{1,2})$")
"""Of a title in wikihowAll.csv, which has a row for each part: `... Artist1`."""

PICTURE = re.compile(r'\{"smallUrl":.*?(?:<\\?/div>"|")\}\s*', re.DOTALL)
POLL = re.compile(r"\s*Reader Poll:.*?(?:\[Take Poll\]|$)", re.DOTALL)
CITATION = re.compile(
    r"\s*\[\d+\]\s*X\s*(?:"
    r"Research source(?:\s*h*ttps?:\S+)?"
    r"|(?:Trustworthy|Expert) Source\b.*?(?:Go to source|Expert Interview\. \d{1,2} \w+ \d{4}\.?)"
    r"|\w+ source)",
    re.DOTALL | re.IGNORECASE,
)
MARK = re.compile(r"\[\d+\]|\[Take Poll\]")
LINK = re.compile(r"https?:\S|\bwww\.\w")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"“'(]?[A-Z0-9])")
ABOUT_THE_PAGE = re.compile(
    r"co-?authored|\bwikihow\b|has been viewed|\d+ references cited|testimonials|reader-approved",
    re.IGNORECASE,
)
OPENING = re.compile(r"^(?:This (?:wikiHow )?(?:article|guide|tutorial)|This wikiHow)\b", re.I)
THIS_ARTICLE = re.compile(r"\b((?:in|throughout|of) this) article\b", re.IGNORECASE)
STRAY_END = re.compile(r"(?<=[.!?:)\"'”])\s*;+\s*$|(?:^|\s+);+\s*$")
MARKUP = re.compile(
    r"</?[a-z][^>]*>|https?:|\bwikihow\b|\bX \w+ source|Expert Interview|\[\[|\{\"|&[a-z]+;",
    re.IGNORECASE,
)
"""What cleaning left of markup, the site's name or a citation."""
LOST_APOSTROPHES = re.compile(
    r"\b(?:dont|doesnt|isnt|arent|youre|youll|youve|youd|theyre|theyll|cant|wont|didnt|thats"
    r"|wouldnt|shouldnt|couldnt|havent|hasnt|wasnt)\b",
    re.IGNORECASE,
)
PRUNED = re.compile(
    r"(?:sources?|references?|citations?|related|videos?|(?:community |expert )?q ?& ?a|see also"
    r"|quick summary|article info|about this article|reader success stories|external links)\b.*",
    re.IGNORECASE,
)
"""Sections that are left out (LIMA section 2.1: "some sections")."""


@dataclass
class Section:
    """A section's heading and its steps, each a heading and a text."""

    label: str = ""
    steps: list[tuple[str, str]] = field(default_factory=list)


def clean_title(title: str, page: bool = False) -> str:
    """Return a title as wikiHow's own, `How to ...`; another text where it is none.

    Args:
        title: of an article.
        page: it is a page's, which adds `: 14 Steps (with Pictures) - wikiHow`.
    """
    text = " ".join(html.unescape(title).split())
    while (shorter := PAGE_SUFFIXES.sub("", text)) != text:
        text = shorter
    if page:
        text = COUNT.sub("", text.split(": ")[0])
    begin = WAYS.match(text)
    return f"How to {text[begin.end() :]}" if begin else text


def split_part(title: str) -> tuple[str, int]:
    """Return a title of wikihowAll.csv without the number of the part, and that; 0 where none."""
    found = PART_NUMBER.search(title.strip())
    return (title.strip()[: found.start()], int(found[1])) if found else (title.strip(), 0)


def split_steps(headline: str, text: str) -> list[tuple[str, str]] | None:
    """Return the steps of a row of wikihowAll.csv; none where headings and texts do not pair.

    Args:
        headline: headings, a line each, a comma at the end of all but the last.
        text: their paragraphs, with a comma and a blank between them.
    """
    headings = [h.strip().rstrip(",").strip() for h in headline.splitlines()]
    headings = [h for h in headings if h]
    texts = re.split(r"(?:(?<=[.!?:;)\"'”’\n])|^)\s*, (?=[A-Z0-9\"“'(,]|\s*$)", text.strip("\r\n"))
    return list(zip(headings, texts, strict=True)) if len(headings) == len(texts) else None


def clean_lines(text: str) -> list[str]:
    """Return a text's lines without what the site adds; a sentence with a link goes."""
    text = MARK.sub("", CITATION.sub(" ", POLL.sub(" ", PICTURE.sub("", html.unescape(text)))))
    lines = (STRAY_END.sub("", line.strip()) for line in text.splitlines())
    return [clean for line in lines if (clean := clean_line(line))]


def clean_line(line: str) -> str:
    """Return a line without links, and with single blanks."""
    if LINK.search(line):
        line = " ".join(s for s in SENTENCE.split(line) if not LINK.search(s))
    # A blank that stood before what is gone, not the one of "20 °C : 5".
    return re.sub(r" +([.,;])(?=\s|$)", r"\1", " ".join(line.split()))


def clean_overview(text: str) -> str:
    """Return an introduction without what it says about the page; "This article" becomes "The
    following answer" (LIMA section 2.1)."""
    text = OPENING.sub("The following answer", " ".join(clean_lines(text)))
    return " ".join(s for s in SENTENCE.split(text) if not ABOUT_THE_PAGE.search(s))


def to_markdown(overview: str, sections: Sequence[Section]) -> str:
    """Return an article: its introduction, and numbered steps under the sections' headings."""
    kept = [s for s in sections if s.steps and not PRUNED.fullmatch(s.label.strip())]
    blocks = [clean_overview(overview)]
    for section in kept:
        label = " ".join(html.unescape(section.label).split()).strip(" ;:")
        if label and len(kept) > 1:
            blocks.append(f"## {label}")
        blocks.append("\n".join(number_steps(section.steps)))
    body = "\n\n".join(block for block in blocks if block)
    return THIS_ARTICLE.sub(r"\1 answer", OPENING.sub("The following answer", body))


def number_steps(steps: Iterable[tuple[str, str]]) -> list[str]:
    """Return steps as a numbered list; further lines of a step are a list in it."""
    lines = []
    for heading, text in steps:
        title = " ".join(clean_lines(heading))
        said = clean_lines(text)
        if said and title and said[0].startswith(title):
            title = ""
        if title and title[-1] not in ".!?:\"'”)":
            title += "."
        first, *rest = said or [""]
        if title or first:
            lines.append(
                f"{sum(not s.startswith(' ') for s in lines) + 1}. {title} {first}".strip()
            )
            lines[-1] = " ".join(lines[-1].split())
            lines += [f"   * {line}" for line in rest]
    return lines
