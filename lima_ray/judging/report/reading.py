"""Replies side by side with what judges say of them, as HTML to read and to filter.

Whatever was written by others is text: Markdown is drawn without HTML and without images, and the
page's policy runs no script but its own.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt

from lima_ray.config.terminal import printable
from lima_ray.judging.report.items import BAD, DISAGREE, FAILS, UNREAD, Place, ReadingItem, label_of
from lima_ray.judging.report.loading import is_vote
from lima_ray.records.attribution import Attribution
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict
from lima_ray.results.page.blocks import one_line
from lima_ray.results.statistics.verdict_table import TIE
from lima_ray.web.markdown import MARKS, MAX_MARKS

HERE = Path(__file__).parent
STYLE = (HERE / "reading.css").read_text(encoding="utf-8")
SCRIPT = (HERE / "reading.js").read_text(encoding="utf-8")
MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table")
MARKDOWN.disable("image")
ITEMS_A_PAGE = 1000
SUMMARY_CHARACTERS = 110
WHY_CHARACTERS = 6000
TURNS = "\n\n"
GOOD = {"excellent", "safe", "up", "5", "6"}

Rows = Mapping[tuple[str, Place], Attribution]
"""Training rows behind a system's reply in a place."""


def reading_pages(items: Sequence[ReadingItem], rows: Rows) -> list[str]:
    """Return the HTML of the replies, of so many places each as a browser shows with ease.

    Args:
        items: in their order.
        rows: of training.
    """
    chunks = [items[n : n + ITEMS_A_PAGE] for n in range(0, len(items), ITEMS_A_PAGE)]
    pages = []
    for number, chunk in enumerate(chunks):
        where = ""
        if len(chunks) > 1:
            first = number * ITEMS_A_PAGE + 1
            where = f"<p>{first:,} to {first + len(chunk) - 1:,} of {len(items):,}; "
            where += f"{_page_links(number, len(chunks))}</p>"
        pages.append(_html_page(chunk, rows, where))
    return pages


def page_name(number: int) -> str:
    """Return the file of a page of replies, from 0; the first is the report itself."""
    return f"replies-{number + 1}.html" if number else "report.html"


def drawn(reply: str) -> str:
    """Return a reply's Markdown as HTML in which all of its HTML is text."""
    shown = printable(reply.strip())
    if len(MARKS.findall(shown)) > MAX_MARKS:
        return f'<div class="reply plain">{escape(shown)}</div>'
    return f'<div class="reply">{MARKDOWN.render(shown)}</div>'


def _html_page(items: Sequence[ReadingItem], rows: Rows, where: str) -> str:
    counts: dict[str, int] = defaultdict(int)
    for item in items:
        for label in item.labels():
            counts[label] += 1
    special = [label for label in (FAILS, DISAGREE, UNREAD) if label in counts]
    ordered = [*special, *sorted(set(counts) - set(special))]
    numbers = {label: str(number) for number, label in enumerate(ordered, start=1)}
    groups = {name: str(number) for number, name in enumerate(
        dict.fromkeys(item.group for item in items if item.group), start=1)}  # fmt: skip
    body = "\n".join(_html_item(item, numbers, groups, rows) for item in items)
    return (
        f'\n<h2 id="replies">Replies side by side</h2>\n{where}'
        f"{_html_filters(numbers, counts, groups)}\n{body}\n{where}"
    )


def _html_filters(
    numbers: Mapping[str, str], counts: Mapping[str, int], groups: Mapping[str, str]
) -> str:
    by_judge: dict[str, list[str]] = defaultdict(list)
    for label, number in numbers.items():
        judge, tab, said = label.partition("\t")
        option = f'<option value="{number}">{escape(said if tab else label)} ({counts[label]:,})'
        by_judge[judge if tab else ""].append(f"{option}</option>")
    options = "".join(by_judge.pop("", []))
    for judge, own in by_judge.items():
        options += f'<optgroup label="{escape(judge, quote=True)}">{"".join(own)}</optgroup>'
    parts = "".join(
        f'<option value="{number}">{escape(name)}</option>' for name, number in groups.items()
    )
    return (
        '<div class="filters" hidden>'
        f'<select aria-label="Verdict"><option value="">all verdicts</option>{options}</select>'
        f'<select aria-label="Group"{"" if groups else " hidden"}>'
        f'<option value="">all groups</option>{parts}</select>'
        '<input type="search" placeholder="words" aria-label="Words in prompt or reply">'
        '<button type="button">open or close</button><output></output></div>'
    )


def _html_item(
    item: ReadingItem,
    numbers: Mapping[str, str],
    groups: Mapping[str, str],
    rows: Rows,
) -> str:
    labels = " ".join(numbers[label] for label in item.labels())
    shown = one_line(item.prompt)
    if len(shown) > SUMMARY_CHARACTERS:
        shown = f"{shown[:SUMMARY_CHARACTERS]}…"
    id, sample, turn = item.place
    told = [f"sample {sample}"] * (sample > 0) + [f"turn {turn + 1}"] * (turn > 0)
    note = f" <small>{', '.join(told)}</small>" if told else ""
    sides = "".join(
        _html_side(system, reply, item, rows.get((system, item.place)))
        for system, reply in item.replies.items()
    )
    pairs = [v for v in item.verdicts if len(v.models) > 1]
    return (
        f'<details class="item" data-labels="{labels}" data-group="{groups.get(item.group, "")}">'
        f"<summary>{escape(shown)}{note}{''.join(_chips(item))}</summary>"
        f"<p><small>{escape(one_line(id))}</small></p>{''.join(_turns(item))}"
        f'<div class="sides">{sides}</div>{_html_verdicts(pairs)}</details>'
    )


def _turns(item: ReadingItem) -> Iterator[str]:
    """Yield the turns before the replies; of several systems' dialogues the first one's."""
    reply = next(iter(item.replies.values()))
    if reply.system:
        yield f'<div class="turn"><b>system</b>{escape(printable(reply.system))}</div>'
    for number, turn in enumerate(reply.conversations):
        who = "assistant" if number % 2 else "user"
        yield f'<div class="turn"><b>{who}</b>{escape(printable(turn))}</div>'


def _html_side(system: str, reply: Reply, item: ReadingItem, taught: Attribution | None) -> str:
    own = [v for v in item.verdicts if v.models == (system,)]
    stopped = "" if reply.stopped else " <small>did not stop</small>"
    return (
        f'<div class="side"><h4>{escape(one_line(system))}{stopped}</h4>{drawn(reply.reply)}'
        f"{_html_verdicts(own)}{_html_rows(taught) if taught else ''}</div>"
    )


def _html_rows(taught: Attribution) -> str:
    """Return the training rows behind a reply."""
    lines = "".join(
        f"<li><small>{row.score:.2f} {escape(one_line(row.id))}</small>"
        f'<div class="plain">{escape(printable(TURNS.join(row.conversations)))}</div></li>'
        for row in taught.rows
    )
    told = f"training rows nearest to it, by {taught.method}"
    return f"<details><summary>{escape(told)}</summary><ol>{lines}</ol></details>"


def _html_verdicts(verdicts: Sequence[Verdict]) -> str:
    lines = "".join(f"<li>{_html_verdict(verdict)}</li>" for verdict in verdicts)
    return f'<ul class="said">{lines}</ul>' if lines else ""


def _html_verdict(verdict: Verdict) -> str:
    said = label_of(verdict) if verdict.was_read else verdict.status
    if verdict.kind == "pairwise":
        first = verdict.models[verdict.order[0]]
        said = f"prefers {said}" if verdict.was_read else said
        said += f" ({first} shown first)"
    if verdict.kind == "audit" and verdict.grade is not None:
        said += f", grade {verdict.grade:g}"
    if verdict.turn is None and verdict.sample is not None and not is_vote(verdict):
        said += " (the whole dialogue)"
    if faults := verdict.extra.get("faults"):
        said += f": {', '.join(map(str, faults))}" if isinstance(faults, list) else ""
    why = verdict.explanation[:WHY_CHARACTERS]
    reason = (
        f' <details><summary>why</summary><div class="why">{escape(printable(why))}</div></details>'
        if why
        else ""
    )
    return f"<b>{escape(one_line(verdict.annotator))}</b> {escape(one_line(said))}{reason}"


def _chips(item: ReadingItem) -> Iterator[str]:
    """Yield what the verdicts say in short, each once."""
    found: dict[tuple[str, str], None] = {}
    for verdict in item.verdicts:
        if verdict.was_read:
            label = label_of(verdict)
            if verdict.kind == "pairwise":
                found[f"{label} preferred" if label != TIE else TIE, ""] = None
            else:
                kind = "good" if label in GOOD else "bad" if label in BAD else ""
                found[f"{', '.join(verdict.models)}: {label}", kind] = None
        else:
            found["not read", ""] = None
    for said, kind in found:
        yield f'<span class="chip {kind}">{escape(one_line(said))}</span>'


def _page_links(number: int, pages: int) -> str:
    names = [
        f"<b>{n + 1}</b>" if n == number else f'<a href="{page_name(n)}#replies">{n + 1}</a>'
        for n in range(pages)
    ]
    return f"page {' '.join(names)}"
