"""Ranges of a dump's lines: plain text, zstd, and what a .7z holds.

    for piece in split(Path("stackoverflow.com-Posts.7z")):
        for block in read_blocks(piece):
            ...  # some whole lines

Plain text splits at any byte and bzip2 at any of its blocks, so several tasks share one file; other
codecs are one range. A line belongs to the range that holds the newline before it, so every line is
read once whatever the ranges are, which depend on the file alone.
"""

from collections.abc import Iterator
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps import sevenzip
from lima_ray.curation.dumps.damage import DumpError
from lima_ray.curation.dumps.unpacking import Range, unpack

RANGE_BYTES = 64 << 20
"""Of plain text; of bzip2 a quarter, which holds as many lines or more."""
MAX_LINE_BYTES = 64 << 20
LEAST_PACKED_BYTES = 64
"""Of a range; more than a stream's head."""


def split(path: Path, range_bytes: int = RANGE_BYTES, member: str = "") -> list[Range]:
    """Return the ranges of a file, the same at every call.

    An archive that is damaged beyond use is one range, which says so when it is read: what else
    there is to read does not wait for it.

    Args:
        path: plain text, .zst or .7z.
        range_bytes: of plain text in a range.
        member: the file of an archive that is wanted, case and folders aside; packed streams
            without it are left out. None takes all.

    Raises:
        UserError: it is missing, or a .7z that holds no such file or cannot be read here.
    """
    try:
        size = path.stat().st_size
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    kind = path.suffix.lower()
    if kind in (".zst", ".zstd"):
        return [Range(str(path), "zstd", 0, size, 0, size)]
    if kind != ".7z":
        return [Range(str(path), "plain", *ends, 0, size) for ends in cuts(0, size, range_bytes)]
    try:
        streams = sevenzip.streams(path)
    except DumpError as error:
        return [Range(str(path), "copy", 0, size, 0, size, damage=str(error))]
    found = [stream for stream in streams if holds(stream, member)]
    if not found:
        names = ", ".join(name for stream in streams for name, *_ in stream.members) or "nothing"
        raise UserError(f"{path} holds no {member or 'file'}; it has {names}")
    return [piece for stream in found for piece in split_stream(path, stream, range_bytes // 4)]


def holds(stream: sevenzip.PackedStream, member: str) -> bool:
    """Return whether a stream holds a file, as far as is known."""
    names = {name.replace("\\", "/").rpartition("/")[2].lower() for name, *_ in stream.members}
    return not member or not names or member.lower() in names


def split_stream(path: Path, stream: sevenzip.PackedStream, step: int) -> Iterator[Range]:
    """Yield the ranges of a packed stream, of `step` packed bytes where its codec lets them."""
    ends, splits = (stream.start, stream.start + stream.size), stream.codec == "bzip2"
    packed = stream.properties, stream.members, "", stream.damage
    for part in cuts(*ends, max(step, LEAST_PACKED_BYTES) if splits else stream.size):
        yield Range(str(path), stream.codec, *part, *ends, *packed)


def cuts(start: int, end: int, step: int) -> list[tuple[int, int]]:
    """Return consecutive pieces of a span; one, where it is empty."""
    points = list(range(start, end, max(step, 1))) or [start]
    return list(zip(points, [*points[1:], end], strict=True))


def read_blocks(piece: Range) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of whole lines, each with the offset of its first byte.

    The last line of a file may lack its newline. Offsets and errors are those of `read_spans`.
    """
    for offset, data, start, end in read_spans(piece):
        yield offset, data[start:end]


def read_spans(piece: Range) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield whole lines where they stand, so that nothing is copied: the offset of the first byte,
    bytes that hold them, and where in these they start and end.

    The last line of a file may lack its newline. Offsets count from the start of the file where it
    is plain, else from the start of the range's own unpacked bytes.

    Raises:
        DumpError: the range is cut off, damaged, or holds a line of absurd length, after what
            stands before it.
    """
    first = piece.start == piece.stream_start
    offset = piece.start if piece.codec == "plain" else 0
    rest, begun = b"", first
    own = True  # whether what is read belongs to this range
    for part, own in unpack(piece):
        start = 0
        if not begun:
            cut = part.find(b"\n") + 1
            begun, offset = bool(cut), offset + (cut or len(part))
            if not own and cut:
                return  # the range lies inside one line, which another began
            start = cut or len(part)
        if not own:
            end = part.find(b"\n", start) + 1
            rest += part[start : end or None]
            if end:
                break
        else:
            end = part.rfind(b"\n", start) + 1
            if rest and end:  # the line that began before by itself
                cut = part.find(b"\n", start) + 1
                rest += part[start:cut]
                yield offset, rest, 0, len(rest)
                offset, rest, start = offset + len(rest), b"", cut
            if start < end:
                yield offset, part, start, end
                offset, start = offset + end - start, end
            rest += part[start:]
        if len(rest) > MAX_LINE_BYTES:
            raise DumpError(f"{place(piece, offset)} has a line over {MAX_LINE_BYTES >> 20} MiB")
    if rest:
        yield offset, rest, 0, len(rest)


def place(piece: Range, offset: int) -> str:
    """Return the name of a place in a file: of packed ones, among the range's unpacked bytes."""
    if piece.codec == "plain":
        return f"{piece.path} at byte {offset:,}"
    return f"{piece.path}, {offset:,} bytes into what is packed from byte {piece.start:,} on,"
