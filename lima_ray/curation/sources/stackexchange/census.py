"""The census of a Stack Exchange dump: what it holds, and which of the known traps are in it.

    print(census(Path("cooking.stackexchange.com.7z")).table())

Traps by the age of a dump (meta.stackexchange 401324, 402501, 402153, 412018): see `posts`.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps import sevenzip
from lima_ray.curation.dumps.damage import DumpError
from lima_ray.curation.dumps.ranges import read_blocks, split
from lima_ray.curation.recipe import BEFORE_CHATGPT
from lima_ray.curation.sources.stackexchange import posts
from lima_ray.curation.sources.stackexchange.scan import END_BYTES, POSTS, check_end
from lima_ray.curation.stages import files_below
from lima_ray.results.units import align

LARGE_BYTES = 10_000_000
"""Of a row; what lxml refuses without `huge_tree`."""
BOM = b"\xef\xbb\xbf"
TYPES = {b"1": "questions", b"2": "answers"}
TABLES = ("Posts", "Comments", "Users", "PostHistory", "Badges", "Votes", "PostLinks", "Tags")


@dataclass
class Census:
    """What a dump holds."""

    path: Path
    files: dict[str, str] = field(default_factory=dict)
    """Each file, with how it is packed."""
    tables: set[str] = field(default_factory=set)
    """Such as Comments."""
    rows: Counter[str] = field(default_factory=Counter)
    """Posts by type."""
    traps: Counter[str] = field(default_factory=Counter)
    recent: int = 0
    """Posts of the day from which on people posted what a model had written, or later."""
    last: str = ""
    """Latest day of a post, which is about the dump's own."""
    damage: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return it as lines to print."""
        total = sum(self.rows.values())
        lines = [("file", f"{name}: {how}") for name, how in self.files.items()]
        lines += [("tables", ", ".join(t for t in TABLES if t in self.tables) or "none")]
        lines += [("missing", ", ".join(t for t in TABLES[:4] if t not in self.tables) or "none")]
        lines += [(name, f"{count:,}") for name, count in sorted(self.rows.items())]
        lines += [("last post", self.last or "none")]
        share = f"{self.recent / total:.1%} of posts" if total else "none"
        lines += [(f"from {BEFORE_CHATGPT} on", share)]
        lines += [(f"trap: {name}", f"{count:,}") for name, count in sorted(self.traps.items())]
        lines += [("damage", said) for said in self.damage]
        return align(lines)


def census(path: Path) -> Census:
    """Count what a site's archive, folder or file holds, in one pass with few lines in memory.

    Raises:
        UserError: nothing of a dump there, or an archive that cannot be read here.
    """
    found = Census(path)
    for file in files_below(path, ["*.xml", "*.7z"]):
        if file.suffix.lower() == ".7z":
            describe_archive(file, found)
        else:
            found.files[file.name] = "plain"
            note_tables([file.name], found)
        if file.suffix.lower() == ".7z" or file.name.lower() == "posts.xml":
            count_posts(file, found)
    return found


def describe_archive(file: Path, found: Census) -> None:
    """Note how an archive is packed, and what it holds."""
    try:
        streams = sevenzip.streams(file)
    except DumpError:
        found.files[file.name] = "damaged"
        return
    coders = ", ".join(sorted({stream.codec for stream in streams}))
    solid = "solid" if any(len(stream.members) > 1 for stream in streams) else "not solid"
    found.files[file.name] = f"{coders}, {solid}"
    note_tables([name for stream in streams for name, *_ in stream.members], found)


def note_tables(names: list[str], found: Census) -> None:
    """Note the tables that files hold, case and folders aside."""
    stems = {Path(name).name.lower().removesuffix(".xml") for name in names}
    found.tables |= {table for table in TABLES if table.lower() in stems}


def count_posts(file: Path, found: Census) -> None:
    """Count posts and traps of a file; damage is noted."""
    try:
        pieces = split(file, member="Posts.xml")
    except UserError:
        return  # an archive of another table
    for piece in pieces:
        try:
            end = b""
            for _, block in read_blocks(piece):
                end = block[-END_BYTES:]
                for line in block.splitlines(keepends=True):
                    count_line(line, found)
            check_end(piece, end, POSTS)
        except DumpError as error:
            found.damage.append(str(error))


def count_line(line: bytes, found: Census) -> None:
    """Count one line."""
    traps = found.traps
    at = line.find(posts.KIND)
    if at < 0:
        if line.startswith(BOM):
            traps["byte order mark"] += 1
        if b"<!DOCTYPE" in line:
            traps["DOCTYPE"] += 1
        if line.lstrip(BOM + b" \t").startswith(b"<!--"):
            traps["licence comment before the root"] += 1
        return
    kind = line[at + len(posts.KIND) : line.find(b'"', at + len(posts.KIND))]
    found.rows[TYPES.get(kind, "other posts")] += 1
    day = line[(start := line.find(b' CreationDate="') + 15) : start + 10].decode(
        "ascii", "replace"
    )
    if start > 14:
        found.last = max(found.last, day)
        found.recent += day >= BEFORE_CHATGPT.isoformat()
    owner = posts.number(posts.OWNER, line)
    checks = {
        "CRLF": line.endswith(b"\r\n"),
        "illegal characters": bool(posts.ILLEGAL.search(line) or posts.RAW_ILLEGAL.search(line)),
        "fabricated rows": posts.number(posts.ID, line) in posts.FABRICATED,
        "Answer Bot": owner == posts.ANSWER_BOT,
        "rows without an owner": owner is None,
        "rows without a licence": b' ContentLicense="' not in line,
        "rows over 10 MB": len(line) > LARGE_BYTES,
    }
    traps.update(name for name, is_there in checks.items() if is_there)
