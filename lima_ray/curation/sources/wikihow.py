"""wikiHow: an article's title is the prompt, its body the reply (LIMA section 2.1).

The first stage shares a file's rows out by article over tables on disk, since a file's rows of one
article need not stand together (the parts in wikihowAll.csv do not). The second makes candidates of
one such table's articles, so memory holds a share of the file however large it is.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa

from lima_ray.config.errors import UserError
from lima_ray.curation import filters
from lima_ray.curation.candidate import Candidate, Part, PartWriter
from lima_ray.curation.dumps.tables import find_form, read_header, read_table
from lima_ray.curation.filters import Result
from lima_ray.curation.recipe import WikiHow
from lima_ray.curation.sources import wikihow_text
from lima_ray.curation.sources.wikihow_text import Section
from lima_ray.curation.stages import Task, files_below, stamp

FORMS = {
    "paragraphs": ("overview", "headline", "text", "sectionlabel", "title"),
    "pages": ("title", "heading", "paragraph"),
    "parts": ("headline", "title", "text"),
}
"""Columns of wikihowSep.csv, of tables made of pages, and of wikihowAll.csv."""
ROWS = pa.schema(
    {
        "key": pa.string(),
        "title": pa.string(),
        "part": pa.int32(),
        "overview": pa.string(),
        "section": pa.string(),
        "heading": pa.string(),
        "text": pa.string(),
    }
)
SHARE_BYTES = 32 << 20
"""Of the files in a table of rows."""
MOST_SHARES = 64
LICENCE = "CC BY-NC-SA 3.0"
UNQUOTED = "!$&'()*+,;:@~"
"""In an article's address, besides letters, digits and `-._`."""
LOST_APOSTROPHES = 2
"""From so many words such as `dont` on, a text has lost its apostrophes on the way."""


@dataclass(frozen=True)
class Article:
    """An article as the filters see it."""

    title: str
    body: str
    steps: int
    category: str | None
    """None where a list of categories does not have it."""
    problem: str = ""
    """Why its rows make no whole article."""


class WikiHowReader:
    """Articles of the tables in a file or folder."""

    def __init__(self, section: WikiHow, inputs: Path, seed: int) -> None:
        self.section = section
        self.path = inputs / section.path
        self.categories = inputs / section.categories if section.categories else None
        self.tests = article_filters(section)
        self.filters: tuple[str, ...] = ("duplicate_title", *self.tests)

    def tasks(self, stage: int, parts: Sequence[Part]) -> list[Task]:
        if self.categories:
            check_categories(self.categories)
        if stage == 0:
            files = find_tables(self.path)
            size = sum(file.stat().st_size for file, _ in files)
            shares = min(max(size // SHARE_BYTES, 1), MOST_SHARES)
            return [
                Task(
                    f"{file.stem}-{n:03}",
                    {"file": str(file), "form": form, "shares": shares, "stamp": stamp(file)},
                )
                for n, (file, form) in enumerate(files)
            ]
        if stage > 1:
            return []
        said: dict[str, Any] = {"parts": [str(part.folder) for part in parts]}
        if self.categories:
            said["categories"] = stamp(self.categories)
        shares = parts[0].counts["extra"]["shares"]
        return [Task(f"articles-{n:03}", said | {"share": n}) for n in range(shares)]

    def run(self, task: Task, out: PartWriter) -> None:
        if "file" in task.arguments:
            share_rows(task.arguments, out)
        else:
            self.make_candidates(task.arguments, out)

    def make_candidates(self, arguments: Mapping[str, Any], out: PartWriter) -> None:
        """Make a candidate of each article of one share of the rows."""
        articles: dict[tuple[str, int], list[dict[str, Any]]] = {}
        forms = []
        for number, folder in enumerate(arguments["parts"]):
            part = Part(Path(folder))
            forms.append(part.counts["extra"]["form"])
            for row in part.read(f"rows-{arguments['share']:03}").to_pylist():
                articles.setdefault((row["key"], number), []).append(row)
        found = {key for key, _ in articles}
        categories = read_categories(self.categories, found) if self.categories else None
        done: dict[str, str] = {}
        for (key, number), rows in articles.items():
            out.seen += 1
            id = f"wikihow/{page_name(rows[0]['title'])}"
            if key in done:
                out.drop(id, "duplicate_title", f"as in {done[key]}")
                continue
            done[key] = Path(arguments["parts"][number]).name
            category = categories.get(key) if categories is not None else ""
            article = make_article(rows, forms[number], category, out)
            if failure := filters.first_failure(self.tests, article):
                out.drop(id, *failure)
            else:
                out.keep(self.candidate(id, article))

    def candidate(self, id: str, article: Article) -> Candidate:
        """Return an article as a candidate."""
        return Candidate(
            id=id,
            turns=(f"{article.title.rstrip('?. ')}?", article.body),
            source=self.section.source,
            group=article.category or "",
            url=f"https://www.wikihow.com/{quote(page_name(article.title), safe=UNQUOTED)}",
            authors=("wikiHow",),
            licence=LICENCE,
            why=f"article of {article.steps} steps",
        )


def find_tables(path: Path) -> list[tuple[Path, str]]:
    """Return the tables of articles in a file or folder, and the form of each.

    Raises:
        UserError: there is none.
    """
    files = files_below(path, ["*.csv", "*.csv.zst"])
    found = [(file, form) for file in files if (form := find_form(file, FORMS))]
    if not found:
        known = "; ".join(",".join(names) for names in FORMS.values())
        raise UserError(
            f"{path} holds no table of wikiHow: the columns are {known} in any order, those of "
            f"{files[0].name} are {','.join(read_header(files[0]))}"
        )
    return found


def share_rows(arguments: Mapping[str, Any], out: PartWriter) -> None:
    """Write each row of a file into the table of its article's share."""
    form = arguments["form"]
    out.extra = {"form": form, "shares": arguments["shares"]}
    tables = [out.table(f"rows-{n:03}", ROWS) for n in range(arguments["shares"])]
    for _, cells in read_table(Path(arguments["file"]), out.notes):
        title, part = cells["title"], 0
        if form == "parts":
            title, part = wikihow_text.split_part(title)
        title = wikihow_text.clean_title(title, page=form == "pages")
        key = title_key(title)
        if not key:
            out.notes["rows without a title"] += 1
            continue
        row = {"key": key, "title": title, "part": part, "overview": cells.get("overview", "")}
        row |= {"section": cells.get("sectionlabel", "")}
        row |= {"heading": cells.get("headline", cells.get("heading", ""))}
        row |= {"text": cells.get("text", cells.get("paragraph", ""))}
        tables[zlib.crc32(key.encode()) % len(tables)].add(row)


def make_article(
    rows: Sequence[dict[str, Any]], form: str, category: str | None, out: PartWriter
) -> Article:
    """Return the article that rows make, in the order of the file; a repeated row counts once."""
    columns = ("part",) if form == "parts" else ("section", "heading", "text")
    unique = {tuple(row[c] for c in columns): row for row in reversed(rows)}
    if len(unique) < len(rows):
        out.notes["repeated rows"] += len(rows) - len(unique)
    kept = list(reversed(unique.values()))
    problem, sections = "", []
    if form == "parts":
        problem, sections = join_parts(sorted(kept, key=lambda row: row["part"]))
    else:
        by_label: dict[str, Section] = {}
        for row in kept:
            section = by_label.setdefault(row["section"], Section(row["section"]))
            section.steps.append((row["heading"], row["text"]))
        sections = list(by_label.values())
    if form == "paragraphs":
        for section in sections:
            section.label = "" if section.label.strip().lower() == "steps" else section.label
    overview = next((row["overview"] for row in kept if row["overview"].strip()), "")
    texts = [text for section in sections for _, text in section.steps]
    steps = [text for text in texts if wikihow_text.clean_lines(text)]
    body = wikihow_text.to_markdown(overview, sections) if steps else ""
    return Article(rows[0]["title"], body, len(steps), category, problem)


def join_parts(rows: Sequence[dict[str, Any]]) -> tuple[str, list[Section]]:
    """Return what is wrong with an article's parts in wikihowAll.csv, and its sections."""
    numbers = [row["part"] for row in rows]
    if numbers not in ([0], list(range(1, len(rows) + 1))):
        return f"it has the parts {', '.join(map(str, numbers))} alone", []
    sections = []
    for row in rows:
        steps = wikihow_text.split_steps(row["heading"], row["text"])
        if steps is None:
            return "its headings and paragraphs do not pair", []
        sections.append(Section(f"Part {row['part']}" if row["part"] else "", steps))
    return "", sections


def article_filters(section: WikiHow) -> Mapping[str, Callable[[Article], Result]]:
    """Return the filters of an article, in order."""
    tests: dict[str, Callable[[Article], Result]] = {
        "title": lambda article: is_how_to(article.title),
        "incomplete": lambda article: (False, article.problem) if article.problem else True,
        "empty": lambda article: True if article.steps else (False, "no step has a text"),
        "length": lambda article: filters.length_between(
            article.body, section.min_chars, section.max_chars
        ),
        "lost_apostrophes": lambda article: has_apostrophes(article.body),
        "markup": lambda article: filters.without(wikihow_text.MARKUP, article.body),
    }
    if section.categories:
        tests["no_category"] = lambda article: (
            (False, "not in the list of categories") if article.category is None else True
        )
    return tests


def is_how_to(title: str) -> Result:
    """Keep a title that asks how to do something."""
    return True if title.startswith("How to ") else (False, title)


def has_apostrophes(body: str) -> Result:
    """Keep a text that kept its apostrophes; some copies of the articles lost them."""
    found = wikihow_text.LOST_APOSTROPHES.findall(body)
    return True if len(found) < LOST_APOSTROPHES else (False, ", ".join(found[:5]))


def title_key(title: str) -> str:
    """Return what titles of one article share: its letters and digits, in lower case."""
    text = wikihow_text.clean_title(title).casefold().removeprefix("how to ")
    return "".join(c for c in text if c.isalnum())


def page_name(title: str) -> str:
    """Return an article's name in its address, where some characters are quoted."""
    return "-".join(title.removeprefix("How to ").split())


def check_categories(path: Path) -> None:
    """Refuse a list of categories that is none.

    Raises:
        UserError: it is missing, or has other columns.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `categories` names a CSV of title,category")
    if not {"title", "category"} <= set(read_header(path)):
        raise UserError(
            f"{path} has the columns {','.join(read_header(path))}; it needs title,category"
        )


def read_categories(path: Path, wanted: set[str]) -> dict[str, str]:
    """Return the category of each wanted article that a list has; the first where it has several.

    Args:
        path: CSV of title,category; a title may be an article's address.
        wanted: keys of titles.
    """
    found: dict[str, str] = {}
    for _, cells in read_table(path, Counter()):
        title = unquote(cells["title"].rsplit("wikihow.com/", 1)[-1]).replace("-", " ")
        key = title_key(title)
        if key in wanted and cells["category"].strip():
            found.setdefault(key, " ".join(cells["category"].split()))
    return found
