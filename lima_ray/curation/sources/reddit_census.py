"""The census of a dump of Reddit: what it holds, and which of the known traps are in it.

print(census(Path("reddit/WritingPrompts_submissions.zst")).table())
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from lima_ray.curation.dumps.ranges import DumpError, Range, read_blocks, split
from lima_ray.curation.dumps.tables import UNEVEN, find_form, read_table
from lima_ray.curation.recipe import BEFORE_CHATGPT, Reddit
from lima_ray.curation.sources.reddit_posts import (
    FORMS,
    GONE,
    NO_POST,
    NOT_JSON,
    PATTERNS,
    UNREADABLE,
    Post,
    number,
    read_post,
)
from lima_ray.curation.stages import files_below
from lima_ray.results.units import align

DRIFTING = ("created_utc", "edited", "score", "retrieved_on", "retrieved_utc")
"""Fields whose type differs between months."""
JSON_TYPES = {bool: "bool", int: "number", float: "number", str: "text", type(None): "null"}
EARLY_H = Reddit.model_fields["min_age_h"].default
"""Hours that a score has to settle by default."""
MOST_NAMES = 1000
"""Subreddits counted by name; a dump of a month holds 100,000."""
SHOWN_NAMES = 5


@dataclass
class RedditCensus:
    """What a dump holds."""

    files: dict[str, str] = field(default_factory=dict)
    """Each file, with how it is packed."""
    rows: Counter[str] = field(default_factory=Counter)
    """Submissions and comments."""
    subreddits: Counter[str] = field(default_factory=Counter)
    types: dict[str, Counter[str]] = field(default_factory=dict)
    """Of fields that drift, how often each JSON type stands, `absent` among them."""
    traps: Counter[str] = field(default_factory=Counter)
    recent: int = 0
    """Posts of the day from which on people posted what a model had written, or later."""
    first: str = ""
    last: str = ""
    """Days of the earliest and the latest post."""
    damage: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return it as lines to print."""
        total = sum(self.rows.values())
        lines = [("file", f"{name}: {how}") for name, how in self.files.items()]
        missing = [what for what in ("submissions", "comments") if not self.rows[what]]
        lines += [("missing", ", ".join(missing) or "none")]
        lines += [(name, f"{count:,}") for name, count in sorted(self.rows.items())]
        names = [f"{name} {n:,}" for name, n in self.subreddits.most_common(SHOWN_NAMES)]
        more = len(self.subreddits) - SHOWN_NAMES
        names += [f"{more:,} others{' or more' * (more + SHOWN_NAMES >= MOST_NAMES)}"] * (more > 0)
        lines += [("subreddits", ", ".join(names) or "none")]
        lines += [("posts", f"{self.first} to {self.last}" if self.last else "none with a date")]
        share = f"{self.recent / total:.1%} of posts" if total else "none"
        lines += [(f"from {BEFORE_CHATGPT} on", share)]
        for name, types in self.types.items():
            said = ", ".join(f"{kind} {count:,}" for kind, count in sorted(types.items()))
            lines += [(f"type of {name}", said)]
        lines += [(f"trap: {name}", f"{count:,}") for name, count in sorted(self.traps.items())]
        lines += [("damage", said) for said in self.damage]
        return align(lines)


def census(path: Path) -> RedditCensus:
    """Count what a file or a folder's files hold, in one pass with few lines in memory.

    Raises:
        UserError: no such file, or none that is named as those of Reddit are.
    """
    found = RedditCensus()
    for file in files_below(path, PATTERNS):
        kind = file.suffix.lower()
        if kind in UNREADABLE:
            found.files[file.name] = f"{kind}, which is not read: repack it as .zst"
            continue
        is_packed = kind in (".zst", ".zstd")
        found.files[file.name] = "zstd" if is_packed else "plain"
        try:
            if ".csv" in file.name.lower():
                count_table(file, found)
            else:
                for piece in split(file):
                    count_lines(piece, found)
        except DumpError as error:
            found.damage.append(str(error))
    return found


def count_table(file: Path, found: RedditCensus) -> None:
    """Count the rows of a listing.

    Raises:
        DumpError: it is damaged, after what stands before it was counted.
    """
    if not find_form(file, FORMS):
        found.files[file.name] += ", no listing of posts"
        return
    notes = Counter[str]()
    try:
        for _, record in read_table(file, notes):
            count_record(record, found)
    finally:
        found.traps.update({UNEVEN: notes[UNEVEN]} if notes[UNEVEN] else {})


def count_lines(piece: Range, found: RedditCensus) -> None:
    """Count the lines of a piece.

    Raises:
        DumpError: it is damaged, after what stands before it was counted.
    """
    for _, block in read_blocks(piece):
        for line in block.splitlines():
            try:
                count_record(orjson.loads(line), found)
            except orjson.JSONDecodeError:
                if line.strip():
                    found.traps[NOT_JSON] += 1


def count_record(record: Any, found: RedditCensus) -> None:
    """Count one record."""
    post = read_post(record)
    if post is None:
        found.traps[NO_POST] += 1
        return
    found.rows["comments" if post.is_comment else "submissions"] += 1
    name = post.subreddit
    if name in found.subreddits or len(found.subreddits) < MOST_NAMES:
        found.subreddits[name or "(none named)"] += 1
    for key in DRIFTING:
        value = record.get(key, ...)
        kind = "absent" if value is ... else JSON_TYPES.get(type(value), "other")
        found.types.setdefault(key, Counter())[kind] += 1
    if day := post.day:
        found.first, found.last = min(found.first or day, day), max(found.last, day)
        found.recent += day >= BEFORE_CHATGPT.isoformat()
    found.traps.update(traps_of(post))


def traps_of(post: Post) -> Iterator[str]:
    """Yield the traps that a post is in."""
    record, meta = post.record, post.record.get("_meta")
    for text in {post.text, str(record.get("selftext") or "")}:
        if (said := text.strip()) in GONE:
            yield f"text is {said}"
    if str(record.get("author")) in GONE:
        yield "author is gone"
    if post.pinned:
        # Such as "a moderator's": the words of the filter `pinned`.
        yield f"pinned or official: {post.pinned}"
    if isinstance(meta, dict):
        yield "read twice (_meta)"
        if kind := meta.get("removal_type"):
            yield f"removal type {kind}"
        yield from (f"_meta.{key}" for key in ("was_deleted_later", "is_edited") if meta.get(key))
    if category := record.get("removed_by_category"):
        yield f"removed by {category}"
    if number(record.get("score")) is None:
        yield "no score"
    if post.created is None:
        yield "no date"
    if (age := post.score_age_h) is None:
        yield "score read at an unknown time"
    elif age < EARLY_H:
        yield f"score read within {EARLY_H:g} hours"
