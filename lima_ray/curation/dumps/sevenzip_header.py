"""The header of a .7z, which stands at its end: packed streams, their coders, the files in them.

Every count is held against the bytes that are left, so that a header made to harm costs no more
time or memory than its own length. Format: 7zFormat.txt of the LZMA SDK.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

END, HEADER, ARCHIVE_PROPERTIES, ADDITIONAL, MAIN, FILES, PACK, UNPACK, SUBSTREAMS = range(9)
SIZES, CRCS, FOLDERS, UNPACK_SIZES, COUNTS, EMPTY = 9, 10, 11, 12, 13, 14
NAMES, PACKED_HEADER = 17, 23


class HeaderError(ValueError):
    """It makes no sense, or says what no archive of a dump does."""


@dataclass
class Folder:
    """Coders that make one stream of one packed stream, and the files in it."""

    methods: list[bytes]
    properties: bytes
    """Of the first coder."""
    packed_streams: int
    outputs: int
    """Of all coders."""
    sizes: list[int] = field(default_factory=list)
    """Unpacked bytes of each output."""
    crc: int = -1
    files: list[tuple[int, int]] = field(default_factory=list)
    """Unpacked bytes and CRC-32 of each file; -1 where none is named."""


@dataclass
class Streams:
    """What is packed."""

    start: int = 0
    """In bytes after the archive's head."""
    packed_sizes: list[int] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)


class Reader:
    """Reads numbers off a header's bytes.

    Raises:
        HeaderError: it ends too early.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if count > self.left:
            raise HeaderError(f"its header ends at byte {self.at:,} of what it says to hold")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        """Return a number: the ones that lead its first byte tell how many bytes follow."""
        first = self.byte()
        more = 8 - (first ^ 0xFF).bit_length()
        low = int.from_bytes(self.take(more), "little")
        return low + ((first & (0x7F >> more)) << (8 * more))

    def count(self) -> int:
        """Return a number of things, each of which takes a byte or more of what is left."""
        if (count := self.number()) > self.left:
            raise HeaderError(f"its header names {count:,} things in {self.left:,} bytes")
        return count

    def bits(self, count: int) -> list[bool]:
        """Return flags, the highest bit of a byte first."""
        data = self.take((count + 7) // 8)
        return [bool(data[i // 8] & 0x80 >> i % 8) for i in range(count)]

    def crcs(self, count: int) -> list[int]:
        """Return checksums, -1 where one is not named."""
        named = [True] * count if self.byte() else self.bits(count)
        return [struct.unpack("<I", self.take(4))[0] if one else -1 for one in named]


def read_header(reader: Reader, size: int) -> tuple[Streams, list[str]]:
    """Return the streams, and the names of the files in them, in order."""
    streams, names = Streams(), list[str]()
    kind = reader.number()
    if kind == ARCHIVE_PROPERTIES:
        while reader.number() != END:
            reader.take(reader.number())
        kind = reader.number()
    if kind == ADDITIONAL:
        raise HeaderError("its header stands in several places")
    if kind == MAIN:
        streams = read_streams(reader, size)
        kind = reader.number()
    if kind == FILES:
        names = read_names(reader)
        kind = reader.number()
    if kind != END:
        raise HeaderError(f"its header goes on with {kind}")
    return streams, names


def read_streams(reader: Reader, size: int) -> Streams:
    """Return packed streams with their folders, from the header's bytes.

    Args:
        reader: at their start.
        size: of what stands between an archive's head and its header, in bytes.

    Raises:
        HeaderError: it makes no sense, or they are longer than the archive.
    """
    streams = Streams()
    while (kind := reader.number()) != END:
        if kind == PACK:
            read_packed_sizes(reader, streams)
        elif kind == UNPACK:
            streams.folders = read_folders(reader)
        elif kind == SUBSTREAMS:
            read_files_of(reader, streams.folders)
        else:
            raise HeaderError(f"its header has {kind} among the streams")
    wanted = sum(folder.packed_streams for folder in streams.folders)
    if wanted != len(streams.packed_sizes):
        raise HeaderError(f"it has {len(streams.packed_sizes)} packed streams of {wanted}")
    if streams.start + sum(streams.packed_sizes) > size:
        raise HeaderError("its streams are longer than it is")
    return streams


def read_packed_sizes(reader: Reader, streams: Streams) -> None:
    """Read where packed streams stand."""
    streams.start, count = reader.number(), reader.count()
    while (kind := reader.number()) != END:
        if kind == SIZES:
            streams.packed_sizes = [reader.number() for _ in range(count)]
        elif kind == CRCS:
            reader.crcs(count)
        else:
            raise HeaderError(f"its header has {kind} among the sizes")


def read_folders(reader: Reader) -> list[Folder]:
    """Return the folders, without what is known of their files."""
    if reader.number() != FOLDERS:
        raise HeaderError("its header names no folders")
    count = reader.count()
    if reader.byte():
        raise HeaderError("its header stands in several places")
    folders = [read_folder(reader) for _ in range(count)]
    while (kind := reader.number()) != END:
        if kind == UNPACK_SIZES:
            for folder in folders:
                folder.sizes = [reader.number() for _ in range(folder.outputs)]
        elif kind == CRCS:
            for folder, crc in zip(folders, reader.crcs(count), strict=True):
                folder.crc = crc
        else:
            raise HeaderError(f"its header has {kind} among the folders")
    if not all(folder.sizes for folder in folders):
        raise HeaderError("its header does not say what comes out of its streams")
    for folder in folders:
        folder.files = [(folder.sizes[-1], folder.crc)]
    return folders


def read_folder(reader: Reader) -> Folder:
    """Return the coders of one folder."""
    methods, properties, inputs, outputs = [], [], 0, 0
    for _ in range(reader.count()):
        flags = reader.byte()
        methods.append(reader.take(flags & 0x0F))
        into, out = (reader.count(), reader.count()) if flags & 0x10 else (1, 1)
        inputs, outputs = inputs + into, outputs + out
        properties.append(reader.take(reader.number()) if flags & 0x20 else b"")
    if not outputs:
        raise HeaderError("a folder of it has no coder")
    for _ in range(2 * (outputs - 1)):  # which output goes into which input
        reader.number()
    packed = inputs - (outputs - 1)
    if packed > 1:
        for _ in range(packed):
            reader.number()
    return Folder(methods, properties[0], packed, outputs)


def read_files_of(reader: Reader, folders: Sequence[Folder]) -> None:
    """Read how many files a folder holds, their sizes and checksums."""
    counts, kind = [1] * len(folders), reader.number()
    if kind == COUNTS:
        counts = [reader.count() for _ in folders]
        kind = reader.number()
    if sum(counts) > len(folders) + reader.left:
        raise HeaderError(f"its header names {sum(counts):,} files in {reader.left:,} bytes")
    for folder, count in zip(folders, counts, strict=True):
        # The last of several has what is left.
        sizes = [reader.number() if kind == SIZES else 0 for _ in range(count - 1)]
        last = folder.sizes[-1] - sum(sizes)
        if last < 0:
            raise HeaderError("files of it are longer than their stream")
        folder.files = [(size, -1) for size in [*sizes, last][:count]]
    kind = reader.number() if kind == SIZES else kind
    unknown = [f for f in folders if len(f.files) != 1 or f.crc == -1]
    crcs = [-1] * sum(len(f.files) for f in unknown)
    while kind != END:
        if kind != CRCS:
            raise HeaderError(f"its header has {kind} among the files")
        crcs, kind = reader.crcs(len(crcs)), reader.number()
    known = iter(crcs)
    for folder in folders:
        if len(folder.files) == 1 and folder.crc != -1:
            folder.files = [(folder.files[0][0], folder.crc)]
        else:
            folder.files = [(size, next(known)) for size, _ in folder.files]


def read_names(reader: Reader) -> list[str]:
    """Return the names of the files that hold something."""
    count = reader.count()
    names, is_empty = [""] * count, [False] * count
    while (kind := reader.number()) != END:
        part = Reader(reader.take(reader.number()))
        if kind == EMPTY:
            is_empty = part.bits(count)
        elif kind == NAMES:
            if part.byte():
                raise HeaderError("its header stands in several places")
            said = part.take(part.left).decode("utf-16-le", "replace").split("\0")
            if len(said) != count + 1:
                raise HeaderError(f"it has {count:,} files and {len(said) - 1:,} names")
            names = said[:-1]
    return [name for name, empty in zip(names, is_empty, strict=True) if not empty]
