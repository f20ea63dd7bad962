"""The attribution of every row, as CC BY-SA asks: author, address, licence and changes."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from lima_ray.curation.candidate import Candidate
from lima_ray.curation.card.blocks import Link, escape_markdown, markdown_inline
from lima_ray.curation.card.licences import find_licence, split_licences, whole_licence
from lima_ray.curation.recipe import Curation

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


def write_attribution(
    curation: Curation,
    chosen: Mapping[str, Sequence[Candidate]],
    names: Mapping[str, str],
    edited: Collection[str] = (),
) -> str:
    """Return the attribution of a dataset as Markdown, by source and site.

    Args:
        curation: the recipe.
        chosen: rows by the name of their source in the recipe.
        names: of authors, by the address of their profile.
        edited: ids of rows that people changed.
    """
    lines = [f"# Attribution: {escape_markdown(curation.name)}", "", HOW_TO_READ, ""]
    lines += licence_lines(chosen)
    for source, candidates in chosen.items():
        if not candidates:
            continue
        lines += [f"## {escape_markdown(source)}", ""]
        lines += [f"Changes: {CHANGES[curation.sources[source].kind]}", ""]
        groups: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            groups.setdefault(candidate.group, []).append(candidate)
        for group, rows in sorted(groups.items()):
            lines += [f"### {escape_markdown(group)}", ""] if group else []
            lines += [describe_row(row, names, row.id in edited) for row in rows] + [""]
    return "\n".join(lines).rstrip() + "\n"


def licence_lines(chosen: Mapping[str, Sequence[Candidate]]) -> Iterator[str]:
    """Yield which licences there are, on how many rows, and what holds for all of them."""
    said = [candidate.licence for rows in chosen.values() for candidate in rows]
    yield from ("## Licences", "", "| licence | rows |", "| --- | ---: |")
    counts = Counter(name for row in said for name in (split_licences(row) or [NO_LICENCE]))
    for name, count in counts.most_common():
        yield f"| {markdown_inline(Link(name, find_licence(name).url))} | {count:,} |"
    yield ""
    if any(len(split_licences(row)) > 1 for row in said):
        yield from ("A row made of several posts counts under the licence of each.", "")
    whole = whole_licence(said)
    if whole.name:
        address = markdown_inline(Link(whole.name, find_licence(whole.name).url))
        yield f"Passed on as a whole, the dataset carries {address}; each row keeps its own."
    else:
        yield "No one licence covers the dataset as a whole; each row keeps its own:"
        yield from ("", *(f"- {escape_markdown(conflict)}" for conflict in whole.conflicts))
    yield from ("", "This is a reading of the licences and no legal advice.", "")


def describe_row(candidate: Candidate, names: Mapping[str, str], edited: bool) -> str:
    """Return the line of one row."""
    prompt = " ".join(candidate.turns[0].split())
    start = prompt if len(prompt) <= PROMPT_CHARS else prompt[:PROMPT_CHARS].rstrip() + "…"
    authors = dict.fromkeys(candidate.authors)
    by = ", ".join(markdown_inline(author_link(a, names)) for a in authors) or "author not known"
    where = Link(candidate.url, candidate.url)
    at = markdown_inline(where) if candidate.url else "no address"
    under = [Link(name, find_licence(name).url) for name in split_licences(candidate.licence)]
    licence = ", ".join(map(markdown_inline, under)) or f"**{NO_LICENCE}**"
    changed = "; edited by hand" if edited else ""
    id = escape_markdown(candidate.id)
    return f"- “{escape_markdown(start)}” ({id}) by {by}; {at}; {licence}{changed}"


def author_link(author: str, names: Mapping[str, str]) -> Link:
    """Return an author's name, which leads to the profile where there is one."""
    return Link(names.get(author, author), author)
