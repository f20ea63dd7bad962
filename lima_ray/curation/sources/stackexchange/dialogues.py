"""Dialogues in Stack Exchange's comments: asker and answerer speak on below the top answer.

A comment names its post and its writer, and not whom it answers (LIMA section 6 takes 20 of its 30
dialogues from such chains). So a chain holds what the two say in order of time; it ends where a
third person speaks, or where nothing but thanks is said.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from lima_ray.config.errors import UserError
from lima_ray.curation import filters
from lima_ray.curation.candidate import Part, PartWriter
from lima_ray.curation.dumps.ranges import Range, read_blocks, split
from lima_ray.curation.recipe import StackExchangeDialogues
from lima_ray.curation.sources.joining import join_tasks, unpack_tops
from lima_ray.curation.sources.sites import Site, find_sites
from lima_ray.curation.sources.stackexchange import posts
from lima_ray.curation.sources.stackexchange.questions import StackExchangeReader
from lima_ray.curation.sources.stackexchange.scan import END_BYTES, check_end
from lima_ray.curation.stages import Task, stamp

COMMENTS = "Comments.xml"
TABLE = pa.schema({"post": pa.int64(), "line": pa.binary()})
LINK = re.compile(r"\[([^\]\n]*)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)")
ADDRESS = re.compile(r"(?<!\w)(?:https?://|www\.)\S+")
NAME = re.compile(r"(?<![\w.`])@[\w.-]*\w\.?(?:'s)?(?:\s*[,:;]|\s+[-–—](?=\s))?\s*")
THANKS = re.compile(
    r"(?:(?:ok(?:ay)?|ah+|oh|great|perfect|excellent|awesome|got it|good (?:point|answer)|"
    r"(?:many |big )?thanks|thank ?you|thx|cheers|ty|you(?:'re| are) welcome|no problem|\+1|"
    r"so much|very much|a lot|again|for (?:the|your) \w+(?: \w+)?|and|that helps?)"
    r"[\s,.!;:)-]*)+",
    re.IGNORECASE,
)
Comment = tuple[int, str]
"""User id, 0 where the account is gone; and text."""


class DialogueReader(StackExchangeReader):
    """Questions, top answers and comments as dialogues."""

    section: StackExchangeDialogues

    def __init__(self, section: StackExchangeDialogues, inputs: Path, seed: int) -> None:
        super().__init__(section, inputs, seed)
        self.filters = (*self.filters, "people", "exchanges")
        self.said: dict[int, list[dict[str, str]]] = {}

    def tasks(self, stage: int, parts: Sequence[Part]) -> list[Task]:
        if stage == 0:
            sites = find_sites(self.path, self.section.sites)
            return [*super().tasks(0, parts), *(t for site in sites for t in self.comments(site))]
        if stage > 1:
            return []
        of_posts = [part for part in parts if "comments_of" not in part.counts["extra"]]
        of_comments: dict[str, list[str]] = {}
        for part in parts:
            if name := part.counts["extra"].get("comments_of"):
                of_comments.setdefault(name, []).append(str(part.folder))
        return [
            Task(task.name, {**task.arguments, "comments": of_comments[task.arguments["site"]]})
            for task in join_tasks(of_posts)
        ]

    def comments(self, site: Site) -> Iterator[Task]:
        """Yield the tasks that read a site's comments."""
        file = comments_beside(Path(site.files[0]))
        made = {"stamp": stamp(file), "comments_of": site.name}
        for n, piece in enumerate(split(file, self.range_bytes, COMMENTS)):
            yield Task(f"{site.name}-comments-{n:05}", {"piece": asdict(piece)} | made)

    def run(self, task: Task, out: PartWriter) -> None:
        if "comments_of" in task.arguments:
            out.extra = {"comments_of": task.arguments["comments_of"]}
            read_comments(Range(**task.arguments["piece"]), out)
            return
        if "comments" in task.arguments:
            found = [Part(Path(folder)) for folder in task.arguments["comments"]]
            answers = {id for _, _, id in unpack_tops(task.arguments).values()}
            self.said = comments_on(answers, found)
        super().run(task, out)

    def keep(
        self, id: str, row: dict[str, str], answer: dict[str, str], site: Site, out: PartWriter
    ) -> None:
        asker, answerer = row.get("OwnerUserId", ""), answer.get("OwnerUserId", "")
        if not asker or not answerer or asker == answerer:
            what = "are one" if asker and asker == answerer else "are not both known"
            out.drop(id, "people", f"asker and answerer {what}")
            return
        before = [
            comment
            for comment in self.said.get(int(answer["Id"]), [])
            if filters.written_before(comment.get("CreationDate", ""), self.section.written_before)
            is True
        ]
        chain = follow(before, asker, answerer)
        exchanges = 1 + len(chain) // 2
        if exchanges < self.section.min_exchanges:
            out.drop(id, "exchanges", f"{exchanges} of at least {self.section.min_exchanges}")
            return
        found = self.candidate(f"{id}-dialogue", row, answer, site)
        rows = [comment for turn in chain for _, comment in turn]
        licences = dict.fromkeys([found.licence, *map(posts.licence, rows)])
        found = replace(
            found,
            turns=(*found.turns, *("\n\n".join(text for text, _ in turn) for turn in chain)),
            created=rows[-1].get("CreationDate", "")[:10],
            licence=", ".join(dict.fromkeys(", ".join(licences).split(", "))),
            why=f"{exchanges} exchanges; {found.why}",
        )
        super().keep_whole(found, out)


def comments_beside(file: Path) -> Path:
    """Return the file that holds the comments on a file's posts.

    Raises:
        UserError: there is none.
    """
    if file.suffix.lower() == ".7z":
        beside = file.with_name(re.sub(r"(?i)-posts(?=\.7z$)", "-Comments", file.name))
        if beside == file or beside.is_file():
            return beside
    for found in sorted(file.parent.iterdir()):
        if found.name.lower() == COMMENTS.lower():
            return found
    raise UserError(f"no {COMMENTS} beside {file}; dialogues are made of comments")


def read_comments(piece: Range, out: PartWriter) -> None:
    """Note the post of every comment of a range."""
    table, end = out.table("comments", TABLE), b""
    for _, block in read_blocks(piece):
        for line in block.splitlines():
            post = posts.number(posts.POST, line)
            # In a solid archive other tables have posts too; comments alone have a text of a user.
            if post is not None and b' Text="' in line and b" PostHistoryTypeId=" not in line:
                table.add({"post": post, "line": line})
        end = block[-END_BYTES:]
    check_end(piece, end, COMMENTS)


def comments_on(answers: set[int], parts: Sequence[Part]) -> dict[int, list[dict[str, str]]]:
    """Return the comments on each of some posts, in order of time."""
    found: dict[int, list[dict[str, str]]] = {}
    for part in parts:
        post_N = part.read("comments", ["post"])["post"].to_numpy()
        wanted = np.flatnonzero(np.isin(post_N, list(answers)))
        if len(wanted):
            for comment in part.take(wanted.tolist(), "comments").to_pylist():
                if row := posts.read_row(comment["line"]):
                    found.setdefault(comment["post"], []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: (row.get("CreationDate", ""), len(id := row.get("Id", "")), id))
    return found


def follow(
    comments: Sequence[dict[str, str]], asker: str, answerer: str
) -> list[list[tuple[str, dict[str, str]]]]:
    """Return what asker and answerer say in turns, the asker first, the answerer last; each turn is
    comments with their cleaned texts.

    Args:
        comments: on the answer, in order of time.
        asker: user id.
        answerer: user id.
    """
    said: list[tuple[str, dict[str, str]]] = []
    for comment in comments:
        user, text = comment.get("UserId", ""), clean_comment(comment.get("Text", ""))
        if not said and user != asker:
            continue
        if user not in (asker, answerer) or not text or THANKS.fullmatch(text):
            break
        said.append((text, comment))
    turns = [list(those) for _, those in groupby(said, key=lambda one: one[1]["UserId"])]
    return turns[: len(turns) // 2 * 2]


def clean_comment(text: str) -> str:
    """Return a comment without addresses and names; links keep their text, code stays."""
    text = NAME.sub("", ADDRESS.sub("", LINK.sub(r"\1", text)))
    return re.sub(r"\s+([.,;:!?](?:\s|$))", r"\1", " ".join(text.split()))
