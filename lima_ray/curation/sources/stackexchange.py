"""Stack Exchange: the best answers to the best questions, by the paper's rule (LIMA section 2.1).

The first stage reads posts in ranges: every answer of enough score is filtered, every answered
question's place is noted. The second joins them: the top answer decides about its question, and of
questions that stay the text is read. Both stages decide by the dump alone, so the number of workers
changes nothing.
"""

import hashlib
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lima_ray.curation import filters
from lima_ray.curation.candidate import Candidate, Part, PartWriter, Table
from lima_ray.curation.dumps.compression import zstd
from lima_ray.curation.dumps.ranges import Range, read_blocks, split
from lima_ray.curation.filters import Result
from lima_ray.curation.markdown import to_markdown, to_prose, to_text
from lima_ray.curation.recipe import StackExchange
from lima_ray.curation.sources import posts
from lima_ray.curation.sources.sites import Site, find_sites
from lima_ray.curation.stages import Task, stamp

QUESTIONS = pa.schema({"id": pa.int64(), "offset": pa.int64(), "length": pa.int32()})
ANSWERS = pa.schema(
    {
        "parent": pa.int64(),
        "id": pa.int64(),
        "score": pa.int32(),
        "reason": pa.string(),
        "detail": pa.string(),
        "body": pa.string(),
        "created": pa.string(),
        "author": pa.string(),
        "licence": pa.string(),
    }
)
SPILL = "questions.zst"
"""Lines of a packed dump's questions, so that it is unpacked once."""
SPILL_LEVEL = 1


@dataclass(frozen=True)
class Answer:
    """An answer of enough score, as the filters see it."""

    row: dict[str, str]

    @property
    def body(self) -> str:
        """Its HTML."""
        return self.row.get("Body", "")


class StackExchangeReader:
    """Questions and answers of the sites that a recipe's section names."""

    def __init__(self, section: StackExchange, inputs: Path, seed: int) -> None:
        self.section, self.seed = section, seed
        self.path = inputs / section.path
        self.tests = answer_filters(section)
        self.least = -(1 << 31) if section.unfiltered else section.min_answer_score
        self.filters = ("unanswered", "answer_score", *self.tests, "unreadable")

    def tasks(self, stage: int, parts: Sequence[Part]) -> list[Task]:
        if stage == 0:
            return [
                Task(f"{site.name}-{n:05}", {"site": asdict(site), "piece": asdict(piece)} | made)
                for site in find_sites(self.path, self.section.sites)
                for file in site.files
                for made in [{"stamp": stamp(Path(file))}]
                for n, piece in enumerate(split(Path(file)))
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
        questions, answers = out.table("questions", QUESTIONS), out.table("answers", ANSWERS)
        out.extra = {"site": asdict(site), "piece": asdict(piece)}
        spill = None if piece.codec == "plain" else SpillWriter(out.partial / SPILL)
        try:
            for offset, block in read_blocks(piece):
                self.read_block(block, offset, site, questions, answers, out, spill)
        finally:
            if spill:
                spill.close()

    def read_block(
        self,
        block: bytes,
        offset: int,
        site: Site,
        questions: Table,
        answers: Table,
        out: PartWriter,
        spill: "SpillWriter | None",
    ) -> None:
        """Read some whole lines, of which `offset` is the place of the first."""
        for line in block.split(b"\n"):
            length = len(line) + 1
            if b' PostTypeId="2"' in line:
                score = posts.number(posts.SCORE, line)
                if score is not None and score >= self.least:
                    self.read_answer(line, score, site, answers, out)
            elif b' PostTypeId="1"' in line:
                id = posts.number(posts.ID, line)
                if id is None or id in posts.FABRICATED:
                    out.notes["fabricated rows" if id else "rows without an id"] += 1
                elif b' AnswerCount="0"' in line:
                    out.seen += 1
                    out.drop(f"{site.name}/{id}", "unanswered")
                else:
                    place = spill.write(line) if spill else offset
                    questions.add({"id": id, "offset": place, "length": len(line)})
            offset += length

    def read_answer(
        self, line: bytes, score: int, site: Site, answers: Table, out: PartWriter
    ) -> None:
        """Filter one answer, and write what the join needs of it."""
        row = posts.read_row(line)
        if row is None or not row.get("ParentId"):
            out.notes["answers that cannot be read"] += 1
            return
        if int(row["Id"]) in posts.FABRICATED:
            out.notes["fabricated rows"] += 1
            return
        if row.get("OwnerUserId") == posts.ANSWER_BOT:
            out.notes["answers of the answer bot"] += 1
            return
        reason, detail = filters.first_failure(self.tests, Answer(row)) or ("", "")
        answers.add(
            {
                "parent": int(row["ParentId"]),
                "id": int(row["Id"]),
                "score": score,
                "reason": reason,
                "detail": detail,
                "body": "" if reason else row.get("Body", ""),
                "created": row.get("CreationDate", "")[:10],
                "author": posts.author(row, site.host),
                "licence": posts.licence(row),
            }
        )

    def join(self, task: Task, out: PartWriter) -> None:
        """Make candidates of the questions of one part, each with its top answer."""
        part = Part(Path(task.arguments["part"]))
        site = Site(**part.counts["extra"]["site"])
        piece = Range(**part.counts["extra"]["piece"])
        tops = {int(id): place for id, place in task.arguments["tops"].items()}
        answers = AnswerReader([Part(Path(p)) for p in task.arguments["answers"]])
        table = part.read("questions").to_pylist()
        lines = read_lines(part, piece, [q for q in table if q["id"] in tops])
        for question in table:
            out.seen += 1
            id = f"{site.name}/{question['id']}"
            if question["id"] not in tops:
                out.drop(id, "answer_score", f"none of {self.least:,} or more")
                continue
            line = next(lines)
            answer = answers.read(*tops[question["id"]])
            if answer["reason"]:
                out.drop(id, answer["reason"], answer["detail"])
            elif (row := posts.read_row(line)) is None:
                out.drop(id, "unreadable", "the question's row is no XML")
            else:
                out.keep(self.candidate(id, row, answer, site))

    def candidate(
        self, id: str, row: dict[str, str], answer: dict[str, Any], site: Site
    ) -> Candidate:
        """Return a question with its answer."""
        return Candidate(
            id=id,
            turns=(self.prompt(id, row), to_markdown(answer["body"])),
            source=self.section.source,
            group=site.name,
            score=float(row.get("Score", 0)),
            created=answer["created"],
            url=f"https://{site.host}/a/{answer['id']}",
            authors=tuple(a for a in (posts.author(row, site.host), answer["author"]) if a),
            licence=", ".join(dict.fromkeys((posts.licence(row), answer["licence"]))),
            why=f"question score {row.get('Score')}, answer score {answer['score']}",
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
        tests["first_person"] = lambda answer: filters.no_first_person(to_prose(answer.body))
    if not section.references:
        tests["references"] = lambda answer: filters.no_references(to_prose(answer.body))
    return tests


def join_tasks(parts: Sequence[Part]) -> list[Task]:
    """Return a task for each part that holds questions, with the top answer of each of them.

    Of a question's answers that with the highest score is the top one, of equal ones the oldest.
    """
    by_site: dict[str, list[Part]] = {}
    for part in parts:
        by_site.setdefault(part.counts["extra"]["site"]["name"], []).append(part)
    return [task for name, those in by_site.items() for task in join_site(name, those)]


def join_site(name: str, parts: Sequence[Part]) -> Iterator[Task]:
    """Yield the tasks of one site."""
    columns = ["parent", "id", "score"]
    tables = [part.read("answers", columns) for part in parts]
    source_N = np.repeat(np.arange(len(parts)), [len(t) for t in tables])
    row_N = np.concatenate([np.arange(len(t)) for t in tables])
    parent_N, id_N, score_N = (
        np.concatenate([t[c].to_numpy() for t in tables]).astype(np.int64) for c in columns
    )
    order_N = np.lexsort((id_N, -score_N, parent_N))
    _, first = np.unique(parent_N[order_N], return_index=True)
    top_Q = order_N[first]  # one for each question that has an answer of enough score
    parent_Q = parent_N[top_Q]
    for number, part in enumerate(parts):
        ids = part.read("questions", ["id"])["id"].to_numpy()
        if not len(ids):
            continue
        found = np.flatnonzero(np.isin(parent_Q, ids))
        needed = sorted({int(source_N[top_Q[f]]) for f in found})
        index = {source: i for i, source in enumerate(needed)}
        tops = {
            str(parent_Q[f]): [index[int(source_N[top_Q[f]])], int(row_N[top_Q[f]])] for f in found
        }
        arguments = {"part": str(part.folder), "tops": tops}
        arguments |= {"answers": [str(parts[n].folder) for n in needed]}
        yield Task(f"{name}-joined-{number:05}", arguments)


class AnswerReader:
    """Answers by part and row; a part is read when the first of it is needed."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.tables: dict[int, pa.Table] = {}

    def read(self, part: int, row: int) -> dict[str, Any]:
        """Return one answer."""
        if part not in self.tables:
            self.tables[part] = self.parts[part].read("answers")
        return self.tables[part].slice(row, 1).to_pylist()[0]


class SpillWriter:
    """Lines kept for the second stage, packed."""

    def __init__(self, path: Path) -> None:
        self.file = zstd.open(path, "wb", level=SPILL_LEVEL)
        self.offset = 0

    def write(self, line: bytes) -> int:
        """Write a line, and return its place among the unpacked bytes."""
        at = self.offset
        self.offset += self.file.write(line)
        return at

    def close(self) -> None:
        """End the file."""
        self.file.close()


def read_lines(part: Part, piece: Range, wanted: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the lines of questions, in the order of the dump."""
    if piece.codec == "plain":
        with Path(piece.path).open("rb") as file:
            for question in wanted:
                file.seek(question["offset"])
                yield file.read(question["length"])
        return
    with zstd.open(part.folder / SPILL, "rb") as file:
        for question in wanted:
            file.seek(question["offset"])  # forward alone: it reads on
            yield file.read(question["length"])
