"""Pieces of the review page as HTML; every text of others is escaped."""

import json
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from html import escape
from urllib.parse import quote

from lima_ray.curation.review.decisions import Decision, Outcome
from lima_ray.curation.review.queue import Progress, ReviewItem

WORDS = re.compile(r"\s+|\S+")
WEB = re.compile(r"https?://", re.IGNORECASE)
NEAR = 0.4
"""A cosine of texts worth a second look."""
MAX_DIFF_WORDS = 3000
"""Longer edits are not compared."""
SHOWN_CHARS = 90
SAID = {"keep": "kept", "edit": "edited", "drop": "dropped"}
ALL_DONE = {
    "open": "Nothing is left to decide here. Second opinions and disagreements are in the list "
    "above. Ctrl-C in the terminal ends the review; the same command without --review then takes "
    "the decisions in.",
    "second": "You have decided whatever others decided.",
    "disagreements": "No more disagreements.",
    "kept": "No more kept candidates.",
    "dropped": "No more dropped candidates.",
    "all": "That was the last candidate.",
}


def texts(turns: Sequence[str]) -> str:
    """Return turns as JSON, for `page.js`."""
    return json.dumps(list(turns))


def progress(title: str, sources: dict[str, Progress], reviewer: str) -> str:
    """Return the bar: how far all reviewers are, in all and by source."""
    every = list(sources.values())
    decided, left = sum(p.decided for p in every), sum(p.open for p in every)
    differ = sum(p.disagreements for p in every)
    facts = [f"<b>{decided:,}</b> of {decided + left:,} decided"]
    facts += [f"<b>{sum(p.kept for p in every):,}</b> of {sum(p.asked for p in every):,} rows kept"]
    facts += [f"<b>{sum(p.dropped for p in every):,}</b> dropped"]
    if differ:
        plural = "s" if differ > 1 else ""
        facts.append(f'<span class="differ"><b>{differ:,}</b> disagreement{plural}</span>')
    many = "".join(
        f"<span>{escape(name)} <b>{p.kept:,}</b>/{p.asked:,}</span>" for name, p in sources.items()
    )
    by_source = f'<div class="sources">{many}</div>' if len(sources) > 1 else ""
    return (
        f'<div class="bar"><h1>{escape(title)}</h1>'
        f'<progress max="{decided + left}" value="{decided}"></progress>'
        f'<span class="facts">{" ".join(f"<span>{fact}</span>" for fact in facts)}</span>'
        f'<span class="who">{escape(reviewer)}</span></div>{by_source}'
    )


def head(item: ReviewItem, own: Decision | None, outcome: Outcome | None, edited: str) -> str:
    """Return the line above a candidate: which it is, how long, and what was decided.

    Args:
        item: the candidate.
        own: the reviewer's decision.
        outcome: of all reviewers' decisions.
        edited: whose edit is shown; empty for the text as it came.
    """
    turns = item.candidate.turns
    place = f"pick {item.rank}" if item.picked else f"spare, rank {item.rank}"
    lengths = f"prompt {len(turns[0]):,}"
    if len(turns) > 1:
        words = len(turns[1].split())
        lengths += f" · reply {len(turns[1]):,} characters, {words:,} words"
    else:
        lengths += " characters, no reply"
    if len(turns) > 2:
        lengths += f" · {len(turns)} turns"
    marks = []
    if own:
        marks.append(f'<span class="mark {own.verdict}">you {SAID[own.verdict]} it</span>')
    if outcome and outcome.disagreement:
        marks.append('<span class="mark differ">disagreement</span>')
    if edited:
        marks.append(f'<span class="mark edit">with the edit of {escape(edited)}</span>')
    return (
        f'<div class="head"><span class="chip">{escape(item.source)}</span>'
        f"<span>{place}</span><span>{lengths}</span>{''.join(marks)}</div>"
    )


def details(item: ReviewItem) -> str:
    """Return why a candidate was picked, and where it comes from."""
    one = item.candidate
    rows = {
        "Why": escape(one.why),
        "Group": escape(one.group),
        "Score": f"{one.score:,g}" if one.score else "",
        "Written": escape(one.created),
        "Licence": escape(one.licence),
        "Authors": "<br>".join(map(link, one.authors)),
        "Page": link(one.url),
        "Id": escape(one.id),
    }
    shown = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows.items() if value)
    return f'<section class="card"><dl>{shown}</dl></section>'


def link(url: str) -> str:
    """Return a link of the web, and anything else as text."""
    text, scheme = escape(url), WEB.match(url)
    if not scheme:
        return text
    shown = escape(url[scheme.end() :])
    return f'<a href="{text}" target="_blank" rel="noopener noreferrer nofollow">{shown}</a>'


def neighbours(found: Sequence[tuple[ReviewItem, float, Outcome | None]] | None) -> str:
    """Return the candidates most alike: similarity, prompt, and what was decided.

    Args:
        found: them; none while they are being looked for.
    """
    if found is None:
        return '<section class="card"><p>The candidates are being compared.</p></section>'
    if not found:
        return ""
    lines = "".join(
        f'<li><a href="?c={quote(item.candidate.id, safe="")}&amp;view=all">'
        f'<b class="{"near" if cosine >= NEAR else ""}">{cosine:.2f}</b> '
        f"{escape(shorten(item.candidate.turns[0]))}</a>"
        f"<small>{escape(item.source)} · {standing_of(item, outcome)}</small></li>"
        for item, cosine, outcome in found
    )
    return f'<section class="card"><h2>Most alike</h2><ol>{lines}</ol></section>'


def standing_of(item: ReviewItem, outcome: Outcome | None) -> str:
    """Return what stands of a candidate, in a word or two."""
    if outcome is None:
        return "picked, not decided" if item.picked else "spare"
    return SAID.get(outcome.verdict, "undecided")


def others(outcome: Outcome | None, reviewer: str, turns: Sequence[str]) -> str:
    """Return what other reviewers decided, with their notes and edits.

    It stays hidden until the reviewer has decided, so that a second opinion is one of its own.
    """
    said = [d for d in (outcome.decisions if outcome else ()) if d.reviewer != reviewer]
    if not outcome or not said:
        return ""
    if len(said) == len(outcome.decisions) and not outcome.disagreement:
        return (
            '<section class="card"><p>Decided by another; you see how once you have.</p></section>'
        )
    lines = "".join(
        f'<li><b>{escape(d.reviewer)}</b> <span class="mark {d.verdict}">{SAID[d.verdict]}</span>'
        f"{f'<q>{escape(d.note)}</q>' if d.note else ''}"
        f"{changes(turns, d.turns) if d.turns else ''}</li>"
        for d in said
    )
    return f'<section class="card"><h2>Other reviewers</h2><ul>{lines}</ul></section>'


def changes(before: Sequence[str], after: Sequence[str]) -> str:
    """Return what an edit changed, word by word."""
    old, new = WORDS.findall("\n\n".join(before)), WORDS.findall("\n\n".join(after))
    if max(len(old), len(new)) > MAX_DIFF_WORDS:
        return "<p>the edit is too long to compare here</p>"
    parts = []
    # Words that are many are no anchors (autojunk): with them a repeated word takes minutes.
    for kind, a, b, c, d in SequenceMatcher(None, old, new).get_opcodes():
        if kind == "equal":
            same = "".join(old[a:b])
            middle = f"{same[:30]} … {same[-30:]}" if len(same) > 70 else same
            parts.append(escape(middle))
            continue
        parts.append(f"<del>{escape(''.join(old[a:b]))}</del>" if a < b else "")
        parts.append(f"<ins>{escape(''.join(new[c:d]))}</ins>" if c < d else "")
    return f'<details><summary>the edit</summary><p class="diff">{"".join(parts)}</p></details>'


def shorten(text: str) -> str:
    """Return the first words of a text."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARS else f"{line[: SHOWN_CHARS - 1]}…"
