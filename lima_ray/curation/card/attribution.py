"""The attribution of every row, as CC BY-SA asks: author, address, licence and changes."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from lima_ray.curation.candidate import Candidate
from lima_ray.curation.card.licences import find_licence, split_licences, whole_licence
from lima_ray.curation.recipe import Curation
from lima_ray.results.page.blocks import Block, Heading, Inline, Items, Link, Strong, Table, text

PROMPT_CHARS = 90
"""Of a prompt's start, in a row's line."""
NO_LICENCE = "no licence named"
CHANGES = {
    "stackexchange": "The posts' HTML was made Markdown; links lost their addresses, pictures "
    "went. The prompt is the question's title or its description, the reply one answer to it; in "
    "dialogues, comments follow.",
    "wikihow": "An article's parts were joined to one Markdown text, without links, pictures and "
    "some sections; `This article` at its start became `The following answer`.",
    "reddit": "The prompt is a submission's title, the reply one comment on it; links and marks of "
    "the site were taken out.",
    "natural_instructions": "A task's definition and one input were joined to a prompt; one output "
    "is the reply.",
    "examples": "Rows were taken as they are, and white space around turns went.",
}
"""By kind of source: CC BY-SA asks to say whether changes were made."""
HOW_TO_READ = (
    "Each line is a row: how its prompt begins, its id in the dataset, who wrote it (the asker "
    "first), where it is from, and its licence."
)


def attribution_blocks(
    curation: Curation,
    chosen: Mapping[str, Sequence[Candidate]],
    names: Mapping[str, str],
    edited: Collection[str] = (),
) -> Iterator[Block]:
    """Yield the attribution of a dataset, by source and site.

    Args:
        curation: the recipe.
        chosen: rows by the name of their source in the recipe.
        names: of authors, by the address of their profile.
        edited: ids of rows that people changed.
    """
    yield Heading(f"Attribution: {curation.name}", 1)
    yield text(HOW_TO_READ)
    yield from licence_blocks(chosen)
    for source, candidates in chosen.items():
        if not candidates:
            continue
        yield Heading(source)
        yield text(f"Changes: {CHANGES[curation.sources[source].kind]}")
        groups: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            groups.setdefault(candidate.group, []).append(candidate)
        for group, rows in sorted(groups.items()):
            if group:
                yield Heading(group, 3)
            yield Items([tuple(describe_row(row, names, row.id in edited)) for row in rows])


def licence_blocks(chosen: Mapping[str, Sequence[Candidate]]) -> Iterator[Block]:
    """Yield which licences there are, on how many rows, and what holds for all of them."""
    said = [candidate.licence for rows in chosen.values() for candidate in rows]
    yield Heading("Licences")
    counts = Counter(name for row in said for name in (split_licences(row) or [NO_LICENCE]))
    rows = [[licence_link(name), f"{count:,}"] for name, count in counts.most_common()]
    yield Table(["licence", "rows"], rows)
    if any(len(split_licences(row)) > 1 for row in said):
        yield text("A row made of several posts counts under the licence of each.")
    whole = whole_licence(said)
    if whole.name:
        link = licence_link(whole.name)
        yield text("Passed on as a whole, the dataset carries ", link, "; each row keeps its own.")
    else:
        yield text("No one licence covers the dataset as a whole; each row keeps its own:")
        yield Items(whole.conflicts)
    yield text("This is a reading of the licences and no legal advice.")


def describe_row(candidate: Candidate, names: Mapping[str, str], edited: bool) -> Iterator[Inline]:
    """Yield the line of one row."""
    prompt = " ".join(candidate.turns[0].split())
    start = prompt if len(prompt) <= PROMPT_CHARS else prompt[:PROMPT_CHARS].rstrip() + "…"
    yield f"“{start}” ({candidate.id}) by "
    authors = [author_link(author, names) for author in dict.fromkeys(candidate.authors)]
    yield from separated(authors) if authors else ["author not known"]
    yield "; "
    yield Link(candidate.url, candidate.url) if candidate.url else "no address"
    yield "; "
    licences = [licence_link(name) for name in split_licences(candidate.licence)]
    yield from separated(licences) if licences else [Strong(NO_LICENCE)]
    yield "; edited by hand" if edited else ""


def separated(links: Sequence[Link]) -> Iterator[Inline]:
    """Yield links with a comma between each two."""
    for number, link in enumerate(links):
        yield from (", ", link) if number else (link,)


def licence_link(name: str) -> Link:
    """Return a licence's name, which leads to its text where that is known."""
    return Link(name, find_licence(name).url)


def author_link(author: str, names: Mapping[str, str]) -> Link:
    """Return an author's name, which leads to the profile where there is one."""
    return Link(names.get(author, author), author)
