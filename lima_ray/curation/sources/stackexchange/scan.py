"""The first pass over posts: bytes are tested where they stand, in a range of a dump.

The places of answered questions and of answers with enough score are noted. Of a packed dump their
lines are kept too, so that it is unpacked once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

import pyarrow as pa

from lima_ray.curation.candidate import SHORT_ROWS_PER_GROUP, Part, PartWriter
from lima_ray.curation.dumps.bzip2 import MAX_BLOCK_BYTES
from lima_ray.curation.dumps.compression import zstd
from lima_ray.curation.dumps.damage import DumpError
from lima_ray.curation.dumps.ranges import Range, read_spans
from lima_ray.curation.dumps.unpacking import unpack
from lima_ray.curation.sources.stackexchange import posts

QUESTIONS = pa.schema({"id": pa.int64(), "offset": pa.int64(), "length": pa.int32()})
ANSWERS = pa.schema(
    {
        "parent": pa.int64(),
        "id": pa.int64(),
        "score": pa.int64(),
        "line": pa.binary(),
        "offset": pa.int64(),
        "length": pa.int32(),
    }
)
"""The line stands here where the dump is packed, else in the dump."""
POSTS = "Posts.xml"
END_BYTES = 256
"""Of a file's end, in which its last tag stands."""
SPILL = "questions.zst"
"""Lines of a packed dump's questions, so that it is unpacked once."""
SPILL_LEVEL = 1
SPILL_BYTES = 1 << 20


class PostScan:
    """One pass over a range of a site's posts."""

    def __init__(self, site: str, piece: Range, least: int, out: PartWriter) -> None:
        """Open the tables of a part.

        Args:
            site: its name.
            piece: the range.
            least: score of an answer that is copied.
            out: the part.
        """
        self.site, self.piece, self.least, self.out = site, piece, least, out
        self.questions = out.table("questions", QUESTIONS, SHORT_ROWS_PER_GROUP)
        self.answers = out.table("answers", ANSWERS)
        self.spill = None if piece.codec == "plain" else SpillWriter(out.partial / SPILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.spill:
            self.spill.close()

    def run(self) -> None:
        """Read the range.

        Raises:
            DumpError: it is damaged, after what stands before was noted.
        """
        last = b""
        for offset, block, start, end in read_spans(self.piece):
            self.read_lines(block, start, end, offset - start)
            last = block[max(start, end - END_BYTES) : end]
        check_end(self.piece, last, POSTS)

    def read_lines(self, block: bytes, start: int, last: int, offset: int) -> None:
        """Read whole lines.

        Args:
            block: that holds them.
            start: first byte of the first.
            last: the byte after the last.
            offset: place of the block's first byte.
        """
        find, match_usual, least = block.find, posts.USUAL_HEAD.match, self.least
        digits = len(str(max(least, 0)))  # that a score needs
        while start < last:
            end = find(b"\n", start, last) + 1 or last
            if usual := match_usual(block, start):
                score = usual[3]
                if score is None:
                    self.note_question(int(usual[1]), block, start, end, offset)
                # Most scores have too few digits, which is seen sooner than their value.
                elif len(score) >= digits and int(score) >= least:
                    ids = int(usual[1]), int(usual[2])
                    self.note_answer(*ids, int(score), block, start, end, offset)
            else:
                self.read_unusual(block, start, end, offset)
            start = end

    def read_unusual(self, block: bytes, start: int, end: int, offset: int) -> None:
        """Read a line that is no post, or one whose attributes stand in another order."""
        at = block.find(posts.KIND, start, end)
        kind = block[at : at + len(posts.ANSWER)]
        if kind == posts.QUESTION:
            id = posts.number(posts.ID, block, start, end)
            if id is None:
                self.out.notes["questions without an id"] += 1
            else:
                self.note_question(id, block, start, end, offset)
        elif kind == posts.ANSWER:
            score = posts.number(posts.SCORE, block, start, end)
            if score is None:
                self.out.notes["answers without a score"] += 1
            elif score >= self.least:
                id = posts.number(posts.ID, block, start, end)
                parent = posts.number(posts.PARENT, block, start, end)
                if id is None or parent is None:
                    self.out.notes["answers without an id or a question"] += 1
                else:
                    self.note_answer(id, parent, score, block, start, end, offset)

    def note_question(self, id: int, block: bytes, start: int, end: int, offset: int) -> None:
        """Note a question's place, if it has an answer."""
        if id in posts.FABRICATED:
            self.out.notes["fabricated rows"] += 1
        elif posts.is_unanswered(block, start, end):
            self.out.seen += 1
            self.out.drop(f"{self.site}/{id}", "unanswered")
        else:
            place = self.spill.write(block[start:end]) if self.spill else offset + start
            self.questions.add_values(id, place, end - start)

    def note_answer(
        self, id: int, parent: int, score: int, block: bytes, start: int, end: int, offset: int
    ) -> None:
        """Note the place of an answer of enough score; of a packed dump its line is copied."""
        if id in posts.FABRICATED:
            self.out.notes["fabricated rows"] += 1
        elif block.find(posts.OF_ANSWER_BOT, start, end) >= 0:
            self.out.notes["answers of the answer bot"] += 1
        else:
            line = block[start:end] if self.spill else None
            self.answers.add_values(parent, id, score, line, offset + start, end - start)


def check_end(piece: Range, end: bytes, table: str) -> None:
    """Check that a file ends as its XML does, if a range is its last.

    Args:
        piece: the range.
        end: last bytes of its lines; none where an earlier range's last lines fill it.
        table: file that is read, such as Posts.xml.

    Raises:
        DumpError: it was cut off before it was packed, or is no such XML in UTF-8.
    """
    if piece.codec == "plain":
        with Path(piece.path).open("rb") as file:
            file.seek(max(0, piece.end - END_BYTES))
            end = file.read(END_BYTES)
    elif not (piece.members and piece.members[-1][0].lower().endswith(table.lower())):
        return
    elif piece.ends_stream and not end:
        end = last_bytes(piece)
    tag = f"</{table.lower().removesuffix('.xml')}>"
    if piece.ends_stream and not end.rstrip().endswith(tag.encode()):
        at = f"{piece.path} is cut off at byte {piece.end:,}"
        raise DumpError(f"{at}: it does not end with {tag}, as {table} in UTF-8 does")


def last_bytes(piece: Range) -> bytes:
    """Return the last unpacked bytes of a range of bzip2, which an earlier block may hold."""
    end, start = b"", max(piece.stream_start, piece.end - MAX_BLOCK_BYTES)
    for part, _ in unpack(replace(piece, start=start)):
        end = (end + part)[-END_BYTES:]
    return end


class SpillWriter:
    """Lines kept for the second stage, packed."""

    def __init__(self, path: Path) -> None:
        self.file = zstd.open(path, "wb", level=SPILL_LEVEL)
        self.offset = self.waiting_bytes = 0
        self.waiting: list[bytes] = []

    def write(self, line: bytes) -> int:
        """Write a line, and return its place among the unpacked bytes."""
        at = self.offset
        self.waiting.append(line)
        self.offset, self.waiting_bytes = at + len(line), self.waiting_bytes + len(line)
        if self.waiting_bytes >= SPILL_BYTES:
            self.flush()
        return at

    def flush(self) -> None:
        """Pack what waits: many lines at once, for each call costs as much as a line."""
        self.file.write(b"".join(self.waiting))
        self.waiting, self.waiting_bytes = [], 0

    def close(self) -> None:
        """Write the rest and end the file."""
        self.flush()
        self.file.close()


@contextmanager
def open_lines(part: Part, piece: Range) -> Iterator[Callable[[int, int], bytes]]:
    """Open what holds the lines of a part's questions, and of any answers where the dump is plain.

    It gives a function that returns a line by its place and length; those of a packed dump are to
    be asked for in the order of the dump.
    """
    plain = piece.codec == "plain"
    # Of plain text without a buffer: lines stand far apart.
    with Path(piece.path).open("rb", 0) if plain else zstd.open(part.folder / SPILL, "rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        yield read
