"""Ranges of files, and the bytes that come out of them by the codec they are packed with."""

import io
import lzma
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lima_ray.curation.dumps import bzip2, sevenzip
from lima_ray.curation.dumps.compression import zstd
from lima_ray.curation.dumps.damage import DumpError

BLOCK_BYTES = 1 << 18
"""What stays in a processor's cache from one pass over it to the next."""
MAX_EXPANSION = 2000
"""Unpacked bytes for each packed one, beyond which a stream is a decompression bomb."""
HARMLESS_BYTES = 64 << 20
"""Unpacked bytes that are no bomb, however they were packed."""
ZSTD_BLOCK_BYTES, LZMA_STEP_BYTES = 1 << 17, 1 << 12
"""Unpacked at a time: a block of zstd at most, and of LZMA, which has none, what may be lost."""
ZSTD_WINDOW_LOG = 31
"""Reddit's dumps need the largest window."""

Codec = Literal["plain", "zstd", "bzip2", "lzma1", "lzma2", "copy"]


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
    members: tuple[sevenzip.Member, ...] = ()
    """Files of an archive that the stream holds, in order."""
    damage: str = ""
    """Why it cannot be read at all."""
    stream_damage: str = ""
    """Why what stands after its stream cannot be read."""

    @property
    def place(self) -> str:
        """Name it in messages."""
        return f"{self.path} from byte {self.start:,}"

    @property
    def ends_stream(self) -> bool:
        """Whether nothing of its stream follows."""
        return self.end == self.stream_end


def unpack(piece: Range) -> Iterator[tuple[bytes, bool]]:
    """Yield a range's unpacked bytes, and after them those that follow, with whether they are own.

    Raises:
        DumpError: it is cut off or damaged.
    """
    if piece.damage:
        raise DumpError(piece.damage)
    with Path(piece.path).open("rb") as file:
        if piece.codec == "plain":
            yield from read_plain(file, piece)
        elif piece.codec == "bzip2":
            yield from read_bzip2(file, piece)
        else:
            yield from ((part, True) for part in read_stream(file, piece))
    if piece.stream_damage and piece.ends_stream:
        raise DumpError(piece.stream_damage)


def read_plain(file: io.BufferedReader, piece: Range) -> Iterator[tuple[bytes, bool]]:
    """Yield the bytes of plain text from the range's start to the file's end."""
    file.seek(piece.start)
    position = piece.start
    while position < piece.stream_end:
        own = position < piece.end
        part = file.read(min(BLOCK_BYTES, (piece.end if own else piece.stream_end) - position))
        if not part:
            raise damaged(piece, position, "it has become shorter")
        position += len(part)
        yield part, own


def read_bzip2(file: io.BufferedReader, piece: Range) -> Iterator[tuple[bytes, bool]]:
    """Yield what the range's bzip2 blocks hold, and then what the blocks after them hold."""
    stream = bzip2.Stream(file, piece.stream_start, piece.stream_end)
    start, end = stream.block_at(piece.start), stream.block_at(piece.end)
    if start is None or start == end:
        return  # a block that began before this range ends after it
    unpacked = 0
    try:
        for part in stream.unpack(start, end or stream.end):
            unpacked += len(part)
            check_expansion(piece, unpacked, file.tell() - piece.start)
            yield part, True
        if end:
            yield from ((part, False) for part in stream.unpack(end, stream.end))
    except (OSError, EOFError) as error:
        raise damaged(piece, file.tell(), str(error)) from error
    if stream.cut_off and not end:
        raise damaged(piece, piece.stream_end, "it is cut off: its end mark is missing")


def read_stream(file: io.BufferedReader, piece: Range) -> Iterator[bytes]:
    """Yield what a packed stream holds that cannot be split, and check what the archive says."""
    unpacked, checks = 0, check_members(piece)
    next(checks)
    for part in unpack_stream(file, piece):
        unpacked += len(part)
        check_expansion(piece, unpacked, file.tell() - piece.stream_start)
        yield part
        checks.send(part)
    if unpacked < (expected := sum(size for _, size, _ in piece.members)):
        raise damaged(piece, file.tell(), f"{unpacked:,} of {expected:,} bytes come out of it")


def check_members(piece: Range) -> Generator[None, bytes, None]:
    """Compare the CRC-32 of each file of an archive, as its bytes are sent.

    Raises:
        DumpError: it is another one than the archive's header says.
    """
    part = b""
    for name, size, expected in piece.members:
        crc, left = 0, size
        while left:
            part = part or (yield)
            crc, left, part = zlib.crc32(part[:left], crc), left - len(part[:left]), part[left:]
        if expected not in (-1, crc):
            raise DumpError(
                f"{piece.path} is damaged: {name} in it has another checksum than was stored"
            )
    while True:
        yield


def unpack_stream(file: io.BufferedReader, piece: Range) -> Iterator[bytes]:
    """Yield what comes out of a packed stream, about half a MiB at a time.

    Raises:
        DumpError: it is cut off or damaged, after what stands before that.
    """
    gathered: list[bytes] = []
    count, damage = 0, None
    try:
        for part in unpack_steps(file, piece):
            gathered.append(part)
            count += len(part)
            if count >= BLOCK_BYTES:
                yield b"".join(gathered)
                gathered, count = [], 0
    except DumpError as error:
        damage = error
    if gathered:
        yield b"".join(gathered)
    if damage:
        raise damage


def unpack_steps(file: io.BufferedReader, piece: Range) -> Iterator[bytes]:
    """Yield what comes out of a packed stream in small parts; damage costs the part it is in.

    Raises:
        DumpError: it is cut off or damaged.
    """
    step = ZSTD_BLOCK_BYTES if piece.codec == "zstd" else LZMA_STEP_BYTES
    file.seek(piece.stream_start)
    left = piece.stream_end - piece.stream_start
    decompressor, waiting = open_codec(piece), b""
    try:
        while True:
            if decompressor.eof:
                waiting = decompressor.unused_data
                if piece.codec != "zstd" or not (waiting or left):
                    return
                decompressor = open_codec(piece)  # zstd files may hold several frames
            if decompressor.needs_input and not waiting:
                waiting = file.read(min(BLOCK_BYTES, left))
                if not waiting:
                    break
                left -= len(waiting)
            part, waiting = decompressor.decompress(waiting, step), b""
            if part:
                yield part
    except (OSError, EOFError, lzma.LZMAError, zstd.ZstdError) as error:
        raise damaged(piece, file.tell(), str(error)) from error
    # LZMA in an archive has no end mark; there the number of bytes tells, where that is known.
    if piece.codec == "zstd" or left or not (piece.members or piece.codec == "copy"):
        raise damaged(piece, file.tell(), "it is cut off")


class Copy:
    """What unpacks a stream that is stored as it is."""

    eof, needs_input, unused_data = False, True, b""

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Return the bytes themselves."""
        return data


def open_codec(piece: Range) -> Decompressor:
    """Return what unpacks a stream.

    Raises:
        DumpError: its dictionary is larger than the memory.
    """
    if piece.codec == "copy":
        return Copy()
    if piece.codec == "zstd":
        return zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        )
    used = sevenzip.lzma_filter(piece.codec, bytes.fromhex(piece.properties))
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[used])
    except MemoryError as error:
        mib = used["dict_size"] >> 20
        raise DumpError(
            f"{piece.path} needs {mib:,} MiB of memory to be unpacked, and there is less"
        ) from error


def check_expansion(piece: Range, unpacked: int, packed: int) -> None:
    """Refuse a decompression bomb.

    Raises:
        DumpError: far more comes out than text packs to.
    """
    if unpacked > max(HARMLESS_BYTES, packed * MAX_EXPANSION):
        raise DumpError(
            f"{piece.path} unpacks to more than {MAX_EXPANSION:,} times its size: a decompression "
            "bomb, not text"
        )


def damaged(piece: Range, at: int, said: str) -> DumpError:
    """Return the error of a damaged stream."""
    return DumpError(f"{piece.path} is damaged or cut off at byte {at:,}: {said}")
