"""Stack Exchange: the best answers to the best questions, by the paper's rule (LIMA section 2.1).

The first stage tests the bytes of posts in ranges: answers of enough score are copied, the place of
each answered question is noted. The second joins them: the top answer decides about its question,
and only then is XML parsed. Both decide by the dump alone, so any number of workers does the same.
"""

import hashlib
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from lima_ray.curation import filters
from lima_ray.curation.candidate import Candidate, Part, PartWriter
from lima_ray.curation.dumps.ranges import RANGE_BYTES, Range, split
from lima_ray.curation.filters import Result
from lima_ray.curation.markdown import to_markdown, to_prose, to_text
from lima_ray.curation.recipe import StackExchange
from lima_ray.curation.sources.joining import join_tasks, read_answers, unpack_tops
from lima_ray.curation.sources.sites import Site, find_sites
from lima_ray.curation.sources.stackexchange import posts
from lima_ray.curation.sources.stackexchange.scan import POSTS, QUESTIONS, PostScan, open_lines
from lima_ray.curation.stages import Task, stamp


@dataclass(frozen=True)
class Answer:
    """A top answer, as the filters see it."""

    row: dict[str, str]

    @property
    def body(self) -> str:
        """Its HTML."""
        return self.row.get("Body", "")

    @cached_property
    def prose(self) -> str:
        """Its text without code."""
        return to_prose(self.body)


class StackExchangeReader:
    """Questions and answers of the sites that a recipe's section names."""

    range_bytes = RANGE_BYTES

    def __init__(self, section: StackExchange, inputs: Path, seed: int) -> None:
        self.section, self.seed = section, seed
        self.path = inputs / section.path
        self.tests = answer_filters(section)
        self.least = -(1 << 31) if section.unfiltered else section.min_answer_score
        self.filters = ("unanswered", "answer_score", "unreadable", *self.tests, "empty")

    def tasks(self, stage: int, parts: Sequence[Part]) -> list[Task]:
        if stage == 0:
            return [
                Task(f"{site.name}-{n:05}", {"site": asdict(site), "piece": asdict(piece)} | made)
                for site in find_sites(self.path, self.section.sites)
                for file in site.files
                for made in [{"stamp": stamp(Path(file))}]
                for n, piece in enumerate(split(Path(file), self.range_bytes, POSTS))
            ]
        return join_tasks(parts) if stage == 1 else []

    def run(self, task: Task, out: PartWriter) -> None:
        if "piece" in task.arguments:
            self.read_posts(task, out)
        else:
            self.join(task, out)

    def read_posts(self, task: Task, out: PartWriter) -> None:
        """Read the posts of one range."""
        site, piece = Site(**task.arguments["site"]), Range(**task.arguments["piece"])
        out.extra = {"site": asdict(site), "piece": asdict(piece)}
        with PostScan(site.name, piece, self.least, out) as scan:
            scan.run()

    def join(self, task: Task, out: PartWriter) -> None:
        """Make candidates of the questions of one part, each with its top answer."""
        part = Part(Path(task.arguments["part"]))
        site = Site(**part.counts["extra"]["site"])
        piece = Range(**part.counts["extra"]["piece"])
        tops = unpack_tops(task.arguments)
        answers = read_answers([Part(Path(p)) for p in task.arguments["answers"]], tops)
        table = part.read("questions", QUESTIONS.names)
        columns = [column.to_pylist() for column in table.columns]
        none = f"none of {self.least:,} or more"
        with open_lines(part, piece) as read_line:
            for question, offset, length in zip(*columns, strict=True):
                out.seen += 1
                id = f"{site.name}/{question}"
                top = answers.get(question)
                if top is None:
                    out.drop(id, "answer_score", none)
                    continue
                row = posts.read_row(read_line(offset, length))
                answer = posts.read_row(top["line"] or read_line(top["offset"], top["length"]))
                if row is None or answer is None:
                    what = "question" if row is None else f"answer {top['id']}"
                    out.drop(id, "unreadable", f"the row of the {what} is no XML")
                elif failure := filters.first_failure(self.tests, Answer(answer)):
                    out.drop(id, *failure)
                else:
                    self.keep(id, row, answer, site, out)

    def keep(
        self, id: str, row: dict[str, str], answer: dict[str, str], site: Site, out: PartWriter
    ) -> None:
        """Write a question and its answer, which passed the filters."""
        self.keep_whole(self.candidate(id, row, answer, site), out)

    def keep_whole(self, candidate: Candidate, out: PartWriter) -> None:
        """Write a candidate of which no turn is empty, as one of pictures alone is."""
        empty = [number for number, turn in enumerate(candidate.turns, start=1) if not turn]
        if empty:
            out.drop(candidate.id, "empty", f"turn {empty[0]} has no text")
        else:
            out.keep(candidate)

    def candidate(
        self, id: str, row: dict[str, str], answer: dict[str, str], site: Site
    ) -> Candidate:
        """Return a question with its answer."""
        authors = (posts.author(row, site.host), posts.author(answer, site.host))
        score = row.get("Score", "")
        is_number = score.removeprefix("-").isdecimal() and len(score) <= posts.MAX_DIGITS
        return Candidate(
            id=id,
            turns=(self.prompt(id, row), to_markdown(answer.get("Body", ""))),
            source=self.section.source,
            group=site.name,
            score=float(score) if is_number else 0.0,
            created=answer.get("CreationDate", "")[:10],
            url=f"https://{site.host}/a/{answer['Id']}",
            authors=tuple(author for author in authors if author),
            licence=", ".join(dict.fromkeys((posts.licence(row), posts.licence(answer)))),
            why=f"question score {score}, answer score {answer['Score']}; "
            f"tags {' '.join(posts.tags(row)) or 'none'}",
        )

    def prompt(self, id: str, row: dict[str, str]) -> str:
        """Return the title or the description; which one is drawn by the seed and the id alone."""
        title = html.unescape(row.get("Title", "")).strip()
        body = to_markdown(row.get("Body", ""))
        drawn = hashlib.sha256(f"{self.seed}/{id}".encode()).digest()[0] % 2
        choice = ("title", "body")[drawn] if self.section.prompt == "mixed" else self.section.prompt
        return (title or body) if choice == "title" else (body or title)


def answer_filters(section: StackExchange) -> Mapping[str, Callable[[Answer], Result]]:
    """Return the filters of a top answer, in order."""

    def recent(answer: Answer) -> Result:
        return filters.written_before(answer.row.get("CreationDate", ""), section.written_before)

    if section.unfiltered:
        return {"too_recent": recent}
    tests: dict[str, Callable[[Answer], Result]] = {
        "too_recent": recent,
        "answer_length": lambda answer: filters.length_between(
            to_text(answer.body), section.min_chars, section.max_chars
        ),
    }
    if not section.first_person:
        tests["first_person"] = lambda answer: filters.no_first_person(answer.prose)
    if not section.references:
        tests["references"] = lambda answer: filters.no_references(answer.prose)
    return tests
