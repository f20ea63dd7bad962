"""The card of a dataset: data_card.json, card.md and card.html with figures, and ATTRIBUTION.md."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lima_ray.curation.candidate import Candidate
from lima_ray.curation.card.attribution import attribution_blocks
from lima_ray.curation.card.facts import collect_facts
from lima_ray.curation.card.figures import Figures, draw_figures, filter_name
from lima_ray.curation.card.lengths import CountTokens
from lima_ray.curation.card.licences import find_licence, split_licences
from lima_ray.curation.card.provenance import CARD, provenance_blocks
from lima_ray.curation.funnel import Funnel
from lima_ray.curation.recipe import Curation
from lima_ray.records.files import explain_write_errors, write_json, write_text
from lima_ray.results.page.blocks import (
    Block,
    Code,
    Columns,
    Details,
    Heading,
    Link,
    Picture,
    Preformatted,
    Table,
    text,
)
from lima_ray.results.page.files import write_page
from lima_ray.results.page.markdown import markdown_page
from lima_ray.results.units import counted, format_number, format_share

ATTRIBUTION, FIGURES = "ATTRIBUTION.md", "figures"
SHOWN_CHARS = 1200
"""Of a turn in an example row."""
PERCENTILES = (5, 50, 95)
"""Of the rows' lengths: which rows are shown."""


def write_card(
    curation: Curation,
    funnels: Sequence[Funnel],
    chosen: Mapping[str, Sequence[Candidate]],
    rows_file: Path,
    out: Path,
    *,
    made: Mapping[str, Any],
    names: Mapping[str, str] | None = None,
    count_tokens: CountTokens | None = None,
) -> dict[str, Any]:
    """Write data_card.json, card.md, card.html, their figures and ATTRIBUTION.md.

    Args:
        curation: the recipe.
        funnels: one for each source, in the recipe's order.
        chosen: rows by the name of their source in the recipe, in order.
        rows_file: the dataset as JSONL.
        out: folder of the files, which is there.
        made: how it was made, any JSON; known are `command`, `versions` (by package), `inputs` (by
            file: bytes and date), `edited` (ids of rows that people changed).
        names: of authors by the address of their profile, as `read_author_names` returns them.
        count_tokens: of a text; without it the card counts words.

    Returns:
        what data_card.json holds.

    Raises:
        UserError: a file cannot be written.
        ValueError: recipe, funnels, rows and file do not belong together.
    """
    facts = collect_facts(curation, funnels, chosen, rows_file, made, count_tokens)
    attribution = attribution_blocks(curation, chosen, names or {}, made.get("edited", ()))
    rows = [candidate for candidates in chosen.values() for candidate in candidates]
    with explain_write_errors(out, "--out"):
        figures = draw_figures(facts, out / FIGURES)
        blocks = list(page_blocks(facts, rows, figures, rows_file))
        write_page(blocks, out / "card", f"{facts['name']}: data card")
        write_text(out / ATTRIBUTION, markdown_page(attribution))
        # The facts last: where they stand, the rest does.
        write_json(out / CARD, facts)
    return facts


def page_blocks(
    facts: Mapping[str, Any],
    rows: Sequence[Candidate],
    figures: Figures,
    rows_file: Path,
) -> Iterator[Block]:
    """Yield the page, from the whole to the details."""
    yield Heading(facts["name"] or "Dataset", 1)
    yield text(summary(facts["rows"], facts["sources"]))
    yield from how_to_train(facts["rows"], rows_file)
    yield Heading("Beside the paper")
    yield from paper_blocks(facts)
    yield Heading("From the dumps to the rows")
    yield from funnel_blocks(facts["sources"], figures.funnels)
    if figures.lengths and figures.groups:
        yield Heading("Lengths")
        yield from length_blocks(facts, figures.lengths)
        yield Heading("Where the rows are from")
        yield from group_blocks(facts["sources"], figures.groups)
        yield Heading("When they were written")
        yield text(describe_dates(facts["dates"]))
        yield Heading("Licences")
        yield from licence_blocks(facts["licences"])
        yield Heading("Three rows")
        yield from example_blocks(rows)
    yield Heading("Make it again")
    yield from provenance_blocks(facts)


def summary(rows: Mapping[str, int], sources: Mapping[str, Any]) -> str:
    """Return one paragraph on the size of the dataset."""
    used = sum(source["chosen"] > 0 for source in sources.values())
    kinds = [f"{counted(rows['dialogues'], 'dialogue')} of several exchanges among them"]
    kinds += [f"{counted(rows['prompts_alone'], 'prompt')} alone"] if rows["prompts_alone"] else []
    held = f"{rows['words']:,} words, {rows['characters']:,} characters"
    held += f", {rows['tokens']:,} tokens" if "tokens" in rows else ""
    count = counted(rows["count"], "row")
    return f"{count} from {counted(used, 'source')}, {', '.join(kinds)}: {held}."


def how_to_train(rows: Mapping[str, int], rows_file: Path) -> Iterator[Block]:
    """Yield the command that trains on the rows, or that measures with prompts alone."""
    file = shlex.quote(rows_file.as_posix())
    if rows["count"] and rows["prompts_alone"] == rows["count"]:
        yield text("They are prompts to measure with, none of which may be trained on:")
        yield Preformatted(f"python -m lima_ray.train lima-7b --data.test {file}")
    else:
        yield text("Train on them:")
        yield Preformatted(f"python -m lima_ray.train lima-7b --data.train {file}")


def paper_blocks(facts: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the paper's table 1 with this dataset's numbers."""
    unit, columns = facts["table_1_unit"], ("rows", "prompt", "reply")
    rows = []
    for row in facts["table_1"]:
        paper = row["paper"]
        own = [row["rows"], row["prompt"], row["reply"]]
        theirs = [paper["rows"], paper["prompt_tokens"], paper["reply_tokens"]]
        rows.append([row["source"], *map(format_number, own + theirs)])
    headings = ["source", *(f"{of}{what}" for of in ("", "paper: ") for what in columns)]
    yield Table(headings, rows, has_total=True)
    said = f"Rows, and the mean prompt and reply in {unit}, beside table 1 of LIMA"
    said += ", which counts tokens: a word has one or more." if unit == "words" else "."
    yield text(f"{said} {facts['counting']}")
    yield text(f"The paper's rows have about {facts['paper_tokens']:,} tokens in all.")


def funnel_blocks(sources: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Iterator[Block]:
    """Yield what each filter left of each source, as a picture and a table, and what was found."""
    yield text(
        "Rows left after each filter, in the filters' order; the bars are logarithmic. Each row "
        "that was dropped stands with its reason in dropped.parquet."
    )
    for name, source in sources.items():
        yield Heading(name, 3)
        for damage in source["damage"]:
            yield text(f"Read up to where the dump is damaged: {damage}")
        if name not in pictures:
            yield text("No row was read.")
            continue
        yield Columns([[pictures[name]], [funnel_table(source["funnel"])]])
        idle = [filter_name(s["filter"]) for s in source["funnel"]["steps"] if not s["dropped"]]
        if idle:
            yield text(f"Dropped nothing: {', '.join(idle)}.")
        if source["notes"]:
            found = (f"{what}: {format_number(count)}" for what, count in source["notes"].items())
            yield text(f"Also found: {'; '.join(found)}.")


def funnel_table(funnel: Mapping[str, Any]) -> Table:
    """Return rows dropped by each filter that dropped some, and left after it."""
    steps = [
        [filter_name(step["filter"]), format_number(step["dropped"]), format_number(step["left"])]
        for step in funnel["steps"]
        if step["dropped"]
    ]
    ends = (
        ["seen", "", format_number(funnel["seen"])],
        ["chosen", "", format_number(funnel["chosen"])],
    )
    return Table(["filter", "dropped", "left"], [ends[0], *steps, ends[1]], has_total=True)


def length_blocks(facts: Mapping[str, Any], picture: Picture) -> Iterator[Block]:
    """Yield lengths of prompts and replies, by source and of all."""
    unit = facts["table_1_unit"]
    everything = {name: s["lengths"] for name, s in facts["sources"].items() if s["chosen"]}
    everything |= {"all": facts["lengths"]} if len(everything) > 1 else {}
    yield text(
        f"In {unit}. The axes of the histograms are logarithmic, the same for all sources; p5 and "
        "p95 are percentiles."
    )
    keys = ("mean", "median", "p5", "p95", "longest")
    tables = []
    for side in ("prompts", "replies"):
        rows = [
            [name, *(format_number(lengths[side][unit][key]) for key in keys)]
            for name, lengths in everything.items()
            if lengths[side][unit]["count"]
        ]
        headings = [side, "mean", "median", "p5", "p95", "max"]
        tables += [Table(headings, rows, has_total=len(everything) > 1)] if rows else []
    yield Columns([[picture], tables])


def group_blocks(sources: Mapping[str, Any], picture: Picture) -> Iterator[Block]:
    """Yield rows by source, and by site or category."""
    wanted = [
        [name, format_number(source["wanted"]), format_number(source["chosen"])]
        for name, source in sources.items()
    ]
    table = Table(["source", "rows wanted", "chosen"], wanted)
    yield Columns([[picture], [table]])
    groups = [
        [name, group or "(none)", format_number(count)]
        for name, source in sources.items()
        for group, count in source["groups"].items()
    ]
    count = counted(len(groups), "site or category", "sites and categories")
    yield Details(f"All {count}", [Table(["source", "group", "rows"], groups, text_columns=2)])


def describe_dates(dates: Mapping[str, Any]) -> str:
    """Return a sentence on the days on which rows were written."""
    said = f"From {dates['first']} to {dates['last']}. " if dates["first"] else ""
    return said + (
        f"{format_share(dates['later_share'])} of the rows ({dates['later']:,}) were written on "
        f"{dates['later_from']} or later, when people began to post what models had written; "
        f"{format_share(dates['without_date_share'])} ({dates['without_date']:,}) have no date."
    )


def licence_blocks(licences: Mapping[str, Any]) -> Iterator[Block]:
    """Yield the rows under each licence, and what holds for the dataset as a whole."""
    rows = [
        [licence or "none named", format_number(count)]
        for licence, count in licences["rows"].items()
    ]
    yield Table(["licence", "rows"], rows)
    known = dict.fromkeys(n for said in licences["rows"] for n in split_licences(said))
    links = [Link(name, url) for name in known if (url := find_licence(name).url)]
    if links:
        yield text("Their texts: ", *(part for link in links for part in (link, ". ")))
    if licences["whole"]:
        yield text(f"Passed on as a whole, the dataset carries {licences['whole']}.")
    else:
        yield text("No one licence covers the dataset as a whole; each row keeps its own:")
        for conflict in licences["conflicts"]:
            yield text(conflict)
    yield text("Authors, addresses and licences of all rows stand in ", Code(ATTRIBUTION), ".")


def example_blocks(rows: Sequence[Candidate]) -> Iterator[Block]:
    """Yield a short row, one of middle length and a long one."""
    by_length = sorted(rows, key=lambda row: (len(row.text), row.id))
    places = [round((len(rows) - 1) * percentile / 100) for percentile in PERCENTILES]
    for place in dict.fromkeys(places):
        row = by_length[place]
        yield Heading(f"{row.id}, {len(row.text):,} characters", 3)
        told = (row.source, row.group, row.created, row.why)
        yield text(", ".join(part for part in told if part))
        for turn_number, turn in enumerate(row.turns):
            yield text(("User", "Assistant")[turn_number % 2])
            yield Preformatted(cut(turn))


def cut(turn: str) -> str:
    """Return the start of a turn, and how much more there is."""
    left = len(turn) - SHOWN_CHARS
    # A few characters more are shorter than the words that tell of them.
    return turn if left < 50 else f"{turn[:SHOWN_CHARS]}\n[and {left:,} characters more]"
