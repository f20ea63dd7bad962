"""Posts of Reddit: the files they come in, and records whose fields change type between months.

Over the dumps of 2005 to 2025 `created_utc` is a number or a string, `edited` a bool or a number,
`score` a number or null; when the score was read is `retrieved_on`, `retrieved_utc` or, of objects
that are read twice (from November 2023), `_meta.retrieved_2nd_on`. CSV listings have texts alone.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps.ranges import DumpError, Range, read_blocks, split
from lima_ray.curation.dumps.tables import find_form, read_table
from lima_ray.curation.stages import Task, files_below, stamp

PATTERNS = ("rs_*", "rc_*", "*_submissions*", "*_comments*", "*.ndjson", "*.jsonl", "*.csv*")
SUBMISSIONS = re.compile(r"^rs_|_submissions\b", re.IGNORECASE)
COMMENTS = re.compile(r"^rc_|_comments\b", re.IGNORECASE)
FORMS = {"comments": ("body", "link_id", "id"), "submissions": ("title", "id", "score")}
"""Columns of listings as CSV."""
UNREADABLE = frozenset({".zst_blocks", ".bz2", ".xz", ".gz", ".torrent"})
IS_COMMENT = re.compile(rb'"parent_id"\s*:')
ANSWERS_SUBMISSION = re.compile(rb'"parent_id"\s*:\s*"t3_')
MOST_BAD_LINES = 100
MOST_BAD_SHARE = 0.01
NOT_JSON = "lines that are no JSON"
NO_POST = "records that are neither submission nor comment"
GONE = frozenset({"[removed]", "[deleted]", "[deleted by user]", "[ removed by reddit ]"})
PERMALINK = re.compile(r"/r/(\w+)/", re.IGNORECASE)
BASE36 = re.compile(r"[0-9a-z]{1,12}", re.IGNORECASE)
NUMBERS = (int, float, str)
NSFW = re.compile(r"\bNSFW\b", re.IGNORECASE)
MODERATOR_BOT = "AutoModerator"
MOST_SECONDS = 253402300800
"""Of Unix time, at the end of the year 9999; dates end there."""


@dataclass(frozen=True)
class Post:
    """A submission, or a comment on one; what most are never asked for is read when it is."""

    record: dict[str, Any]
    """As the dump has it."""
    id: str
    """Base 36."""
    is_comment: bool
    text: str
    """A submission's title, a comment's body."""

    @property
    def subreddit(self) -> str:
        """Where it stands, by its address if a listing has no column of it; empty if unknown."""
        if named := self.record.get("subreddit"):
            return str(named)
        found = PERMALINK.search(str(self.record.get("permalink") or ""))
        return found[1] if found else ""

    @property
    def score(self) -> int | None:
        """Votes for it less votes against it."""
        score = number(self.record.get("score"))
        return None if score is None else int(score)

    @property
    def created(self) -> float | None:
        """When it was written, in seconds of Unix time; none where that is not known."""
        created = number(self.record.get("created_utc"))
        return created if created is not None and 0 <= created < MOST_SECONDS else None

    @property
    def score_age_h(self) -> float | None:
        """Hours between writing and reading the score; none where that is not known."""
        meta = self.record.get("_meta")
        second = number(meta.get("retrieved_2nd_on")) if isinstance(meta, dict) else None
        times = [number(self.record.get(key)) for key in ("retrieved_utc", "retrieved_on")]
        read = second or max((t for t in times if t), default=None)
        created = self.created
        return None if created is None or read is None else (read - created) / 3600

    @property
    def day(self) -> str:
        """On which it was written, as 2014-01-21; empty where that is not known."""
        created = self.created
        return "" if created is None else datetime.fromtimestamp(created, UTC).date().isoformat()

    @property
    def author(self) -> str:
        """Name of who wrote it; empty where the account is gone."""
        author = str(self.record.get("author") or "")
        return "" if author in GONE else author

    @property
    def submission(self) -> str:
        """Id of what a comment is on."""
        return str(self.record.get("link_id") or "").removeprefix("t3_").lower()

    @property
    def top_level(self) -> bool:
        """Whether a comment answers the submission, not another comment."""
        parent = str(self.record.get("parent_id") or "")
        return self.is_comment and parent == str(self.record.get("link_id") or "")

    @property
    def removed(self) -> str:
        """Why its text is not there, or who took it back; empty where nothing says so."""
        meta = self.record.get("_meta")
        said = meta if isinstance(meta, dict) else {}
        for key in ("removal_type", "was_deleted_later"):
            if said.get(key):
                return f"{key} {said[key]}"
        if category := self.record.get("removed_by_category"):
            return f"by {category}"
        texts = (self.text.strip(), str(self.record.get("selftext") or "").strip())
        gone = [text for text in texts if text in GONE]
        return gone[0] if gone else "" if texts[0] else "no text"

    @property
    def pinned(self) -> str:
        """What sets it apart from those that people vote up: a moderator's, or stickied."""
        if flag(self.record.get("stickied")):
            return "stickied"
        if who := self.record.get("distinguished"):
            return f"a {who}'s"
        return "a bot's" if self.author == MODERATOR_BOT else ""

    @property
    def over_18(self) -> bool:
        """Whether it is marked as for adults."""
        marked = flag(self.record.get("over_18"))
        return marked or bool(not self.is_comment and NSFW.search(self.text))

    @property
    def flair(self) -> str:
        """A submission's label, in lower case."""
        return str(self.record.get("link_flair_text") or "").strip().lower()

    @property
    def is_link(self) -> bool:
        """Whether a submission shows a page or a picture."""
        is_self = self.record.get("is_self")
        return is_self is not None and not flag(is_self)


def find_files(path: Path, comments: bool) -> list[Path]:
    """Return the files of a dump.

    Args:
        path: file or folder.
        comments: files of comments too, which their names tell.

    Raises:
        UserError: there is none, or one is packed in a form that is not read.
    """
    files = files_below(path, PATTERNS)
    if bad := [file for file in files if file.suffix.lower() in UNREADABLE]:
        raise UserError(
            f"{bad[0]}: {bad[0].suffix} is not read; repack it as .zst (such as xzcat FILE | "
            "zstd -o FILE.zst), or move it away"
        )
    if comments:
        check_both(path, files)
    return [file for file in files if comments or not COMMENTS.search(file.name)]


def check_both(path: Path, files: Sequence[Path]) -> None:
    """Refuse files of submissions alone, or of comments alone, as far as their names tell.

    Raises:
        UserError: a story needs both.
    """
    for missing, names in (("comments", SUBMISSIONS), ("submissions", COMMENTS)):
        if all(names.search(file.name) for file in files):
            raise UserError(
                f"{path} holds no file of {missing}, and a story is a comment on a submission; put "
                "both in one folder (RS_* and RC_*, or *_submissions and *_comments), or take "
                "`take: titles`"
            )


def file_tasks(file: Path) -> Iterator[Task]:
    """Yield the tasks of a file: one of a table, one for each range of JSON lines.

    Raises:
        UserError: a table that is no listing.
    """
    made = {"stamp": stamp(file)}
    name = re.sub(r"\W+", "-", file.name)
    if ".csv" not in file.name.lower():
        for number, piece in enumerate(split(file)):
            yield Task(f"{name}-{number:05}", {"piece": vars(piece)} | made)
    elif find_form(file, FORMS):
        yield Task(name, {"table": str(file)} | made)
    else:
        needed = " or ".join(",".join(columns) for columns in FORMS.values())
        raise UserError(f"{file} is no listing of Reddit: its columns need {needed}")


def read_posts(
    arguments: Mapping[str, Any], name: str, comments: bool, notes: Counter[str]
) -> Iterator[Post]:
    """Yield the posts of a piece that may be of a subreddit.

    Args:
        arguments: of a task of `file_tasks`.
        name: the subreddit, in lower case.
        comments: submissions' answers too.
        notes: counts what cannot be read.

    Raises:
        DumpError: it is damaged, or many lines are no JSON, after what could be read.
    """
    if "table" in arguments:
        records = (row for _, row in read_table(Path(arguments["table"]), notes))
    else:
        records = read_records(Range(**arguments["piece"]), name, comments, notes)
    for record in records:
        if post := read_post(record):
            yield post
        else:
            notes[NO_POST] += 1


def read_records(piece: Range, name: str, comments: bool, notes: Counter[str]) -> Iterator[Any]:
    """Yield the parsed lines of a piece that name a subreddit; answers to comments are left out.

    Raises:
        DumpError: it is damaged, or many lines are no JSON, after what could be read.
    """
    lines = bad = 0
    pattern = of_subreddit(name)
    for _, block in read_blocks(piece):
        for line in lines_of(block, pattern):
            if IS_COMMENT.search(line) and not (comments and ANSWERS_SUBMISSION.search(line)):
                continue
            lines += 1
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError:
                bad += 1
                notes[NOT_JSON] += 1
    if bad >= MOST_BAD_LINES and bad > lines * MOST_BAD_SHARE:
        raise DumpError(f"{piece.place}: {bad:,} of {lines:,} lines are no JSON")


def of_subreddit(name: str) -> re.Pattern[bytes]:
    """Return what stands in lines of a subreddit, whose name may be in other cases.

    It begins with a fixed text, for which `re` searches fast; case is ignored in the name alone.
    """
    return re.compile(rb'"subreddit"\s*:\s*"(?i:%s)"' % re.escape(name.encode()))


def lines_of(block: bytes, pattern: re.Pattern[bytes]) -> Iterator[bytes]:
    """Yield the lines of a block in which a pattern stands."""
    end = -1
    for found in pattern.finditer(block):
        if found.start() > end:
            end = block.find(b"\n", found.end())
            end = len(block) if end < 0 else end
            yield block[block.rfind(b"\n", 0, found.start()) + 1 : end]


def read_post(record: Any) -> Post | None:
    """Return a record of a dump as a post; none where it is neither submission nor comment."""
    if not isinstance(record, dict):
        return None
    id = str(record.get("id") or "").removeprefix("t1_").removeprefix("t3_")
    is_comment = "body" in record and str(record.get("link_id") or "").startswith("t3_")
    text = record.get("body" if is_comment else "title")
    post = Post(record, id.lower(), is_comment, text) if isinstance(text, str) else None
    ids = [id, post.submission] if post and is_comment else [id]
    return post if all(map(BASE36.fullmatch, ids)) else None


def number(value: Any) -> float | None:
    """Return a number, which may stand as a text; none where there is none or it is absurd."""
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if abs(found) < 1 << 40 else None


def flag(value: Any) -> bool:
    """Return whether something is said, as JSON or as a text."""
    return value.strip().lower() in ("true", "1") if isinstance(value, str) else bool(value)
