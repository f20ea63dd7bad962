"""Ranges of a dump's lines: plain text, zstd, and what a .7z holds.

    for piece in split(Path("stackoverflow.com-Posts.7z")):
        for block in read_blocks(piece):
            ...  # some whole lines

Plain text splits at any byte and bzip2 at any of its blocks, so several tasks share one file; other
codecs are one range. A line belongs to the range that holds the newline before it, so every line is
read once whatever the ranges are, which depend on the file alone.
"""

import io
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps import bzip2, sevenzip
from lima_ray.curation.dumps.compression import zstd

RANGE_BYTES = 64 << 20
"""Of plain text; of bzip2 a quarter, which holds as many lines or more."""
BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20
MAX_EXPANSION = 2000
"""Unpacked bytes for each packed one, beyond which a stream is a decompression bomb."""
ZSTD_WINDOW_LOG = 31
"""Reddit's dumps need the largest window."""

Codec = Literal["plain", "zstd", "bzip2", "lzma1", "lzma2", "copy"]


class DumpError(UserError):
    """A dump that is damaged; what was read before it is kept."""


class Decompressor(Protocol):
    """What bz2, lzma and zstd share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class Range:
    """Bytes of a file: text, or a packed stream or a part of one."""

    path: str
    codec: Codec
    start: int
    end: int
    stream_start: int = 0
    """Where the packed stream begins in the file."""
    stream_end: int = 0
    properties: str = ""
    """Of the codec, in hex."""

    @property
    def place(self) -> str:
        """Name it in messages and in files' names."""
        return f"{self.path} from byte {self.start:,}"


def split(path: Path, range_bytes: int = RANGE_BYTES) -> list[Range]:
    """Return the ranges of a file, the same at every call.

    Args:
        path: plain text, .zst or .7z.
        range_bytes: of plain text in a range.

    Raises:
        UserError: it is missing, or a .7z that cannot be read here.
    """
    try:
        size = path.stat().st_size
        kind = path.suffix.lower()
        if kind in (".zst", ".zstd"):
            return [Range(str(path), "zstd", 0, size, 0, size)]
        streams = sevenzip.streams(path) if kind == ".7z" else []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if kind != ".7z":
        return [Range(str(path), "plain", *ends, 0, size) for ends in cuts(0, size, range_bytes)]
    found = []
    for stream in streams:
        ends = stream.start, stream.start + stream.size
        step = range_bytes // 4 if stream.codec == "bzip2" else stream.size
        found += [
            Range(str(path), stream.codec, *part, *ends, stream.properties)
            for part in cuts(*ends, step)
        ]
    return found


def cuts(start: int, end: int, step: int) -> list[tuple[int, int]]:
    """Return consecutive pieces of a span; one, where it is empty."""
    points = list(range(start, end, max(step, 1))) or [start]
    return list(zip(points, [*points[1:], end], strict=True))


def read_blocks(piece: Range) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of whole lines, each with the offset of its first byte.

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
        if not begun:
            cut = part.find(b"\n") + 1
            begun, offset = bool(cut), offset + (cut or len(part))
            if not own and cut:
                return  # the range lies inside one line, which another began
            part = part[cut:] if cut else b""
        if not own:
            end = part.find(b"\n") + 1
            rest += part[:end] if end else part
            if end:
                break
        else:
            end = part.rfind(b"\n") + 1
            if end:
                yield offset, rest + part[:end]
                offset, rest = offset + len(rest) + end, part[end:]
            else:
                rest += part
        if len(rest) > MAX_LINE_BYTES:
            raise DumpError(
                f"{piece.path} has a line of more than {MAX_LINE_BYTES >> 20} MiB, {offset:,} "
                f"bytes into the range that starts at byte {piece.start:,}"
            )
    if rest:
        yield offset, rest


def unpack(piece: Range) -> Iterator[tuple[bytes, bool]]:
    """Yield a range's unpacked bytes, and after them those that follow, with whether they are own.

    Raises:
        DumpError: it is cut off or damaged.
    """
    with Path(piece.path).open("rb") as file:
        if piece.codec in ("plain", "copy"):
            yield from read_plain(file, piece)
        elif piece.codec == "bzip2":
            yield from read_bzip2(file, piece)
        else:
            yield from ((part, True) for part in read_stream(file, piece))


def read_plain(file: io.BufferedReader, piece: Range) -> Iterator[tuple[bytes, bool]]:
    """Yield the bytes of plain text from the range's start to the file's end."""
    file.seek(piece.start)
    position = piece.start
    while position < piece.stream_end:
        own = position < piece.end
        part = file.read(min(BLOCK_BYTES, (piece.end if own else piece.stream_end) - position))
        if not part:
            break
        position += len(part)
        yield part, own


def read_bzip2(file: io.BufferedReader, piece: Range) -> Iterator[tuple[bytes, bool]]:
    """Yield what the range's bzip2 blocks hold, and then what the blocks after them hold."""
    stream = bzip2.Stream(file, piece.stream_start, piece.stream_end)
    start, end = stream.block_at(piece.start), stream.block_at(piece.end)
    if start is None:
        return  # a block that began before this range ends after it
    try:
        yield from ((part, True) for part in stream.unpack(start, end or stream.end))
        if end:
            yield from ((part, False) for part in stream.unpack(end, stream.end))
    except (OSError, EOFError) as error:
        raise damaged(piece, file.tell(), str(error)) from error
    if stream.cut_off and not end:
        raise damaged(piece, piece.stream_end, "it is cut off: its end mark is missing")


def read_stream(file: io.BufferedReader, piece: Range) -> Iterator[bytes]:
    """Yield what a packed stream holds that cannot be split."""
    file.seek(piece.stream_start)
    left, unpacked = piece.stream_end - piece.stream_start, 0
    packed = left
    decompressor = open_codec(piece)
    waiting = b""
    try:
        while left or waiting or decompressor.unused_data:
            if decompressor.eof:  # zstd files may hold several frames
                waiting = decompressor.unused_data + waiting
                decompressor = open_codec(piece)
            if not waiting and decompressor.needs_input:
                waiting = file.read(min(BLOCK_BYTES, left))
                if not waiting:
                    break
                left -= len(waiting)
            part = decompressor.decompress(waiting, BLOCK_BYTES)
            waiting = b""
            unpacked += len(part)
            check_expansion(piece, unpacked, packed - left)
            yield part
            while not decompressor.needs_input and not decompressor.eof:
                part = decompressor.decompress(b"", BLOCK_BYTES)
                unpacked += len(part)
                check_expansion(piece, unpacked, packed - left)
                yield part
            if decompressor.eof and piece.codec != "zstd":
                return
            if decompressor.eof and not left and not decompressor.unused_data:
                return
    except (OSError, EOFError, lzma.LZMAError, zstd.ZstdError) as error:
        raise damaged(piece, file.tell(), str(error)) from error
    if not decompressor.eof:
        raise damaged(piece, file.tell(), "it is cut off")


def open_codec(piece: Range) -> Decompressor:
    """Return what unpacks a stream."""
    if piece.codec == "zstd":
        return zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        )
    properties = bytes.fromhex(piece.properties)
    return lzma.LZMADecompressor(
        lzma.FORMAT_RAW, filters=[sevenzip.lzma_filter(piece.codec, properties)]
    )


def check_expansion(piece: Range, unpacked: int, packed: int) -> None:
    """Refuse a decompression bomb.

    Raises:
        DumpError: far more comes out than text packs to.
    """
    if unpacked > max(packed, BLOCK_BYTES) * MAX_EXPANSION:
        raise DumpError(
            f"{piece.path} unpacks to more than {MAX_EXPANSION:,} times its size: a decompression "
            "bomb, not text"
        )


def damaged(piece: Range, at: int, said: str) -> DumpError:
    """Return the error of a damaged stream."""
    return DumpError(f"{piece.path} is damaged or cut off at byte {at:,}: {said}")
