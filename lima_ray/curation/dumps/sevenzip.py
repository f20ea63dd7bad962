"""What a .7z holds: its packed streams and how each is packed; nothing is written to the disk.

The streams are read as bzip2 and LZMA by the standard library, which can stop, go on and split.
"""

import bz2
import lzma
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps.damage import DumpError
from lima_ray.curation.dumps.sevenzip_header import (
    END,
    HEADER,
    PACKED_HEADER,
    Folder,
    HeaderError,
    Reader,
    Streams,
    read_header,
    read_streams,
)

Coder = Literal["bzip2", "lzma1", "lzma2", "copy"]
CODERS: dict[bytes, Coder] = {
    b"\x04\x02\x02": "bzip2",
    b"\x03\x01\x01": "lzma1",
    b"\x21": "lzma2",
    b"\x00": "copy",
}
ENCRYPTION = b"\x06\xf1\x07\x01"
Member = tuple[str, int, int]
"""Name, unpacked bytes and CRC-32 of a file in an archive; -1 where the header names none."""
SIGNATURE = b"7z\xbc\xaf\x27\x1c"
SIGNATURE_BYTES = 32
"""Of the archive's head; packed streams stand after it."""
MAX_HEADER_BYTES = 1 << 20
"""Of an archive of 15,000 files."""
MAX_NESTING = 4
"""Headers packed in headers."""
BZIP2_START = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")
LOST_PROPERTIES: dict[Coder, str] = {"lzma2": "20", "lzma1": "5d00000010"}
"""Of LZMA where the header that names them is lost: a dictionary of 256 MiB, 7-Zip's largest, and
its literal and position bits."""
LZMA_SETTINGS = 9 * 5 * 5
"""Of literal context, literal position and position bits, in the first of LZMA's properties."""
MAX_LITERAL_BITS = 4
"""Of LZMA, context and position together, that liblzma reads; the format has up to 12."""
TEXT_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*[<{\[\w\"]")
TRIED_BYTES = 1 << 16


@dataclass(frozen=True)
class PackedStream:
    """One packed stream: a file, or several files one after another."""

    codec: Coder
    start: int
    """Its first byte in the archive."""
    size: int
    properties: str
    """Of the coder, in hex."""
    members: tuple[Member, ...]
    """Files in it, in order; none where the archive's header is lost."""
    damage: str = ""
    """Why only this stream of the archive is known."""


def streams(path: Path) -> list[PackedStream]:
    """Return the packed streams of an archive, in order.

    The header stands at an archive's end. Where that is cut off, the first stream says itself what
    it is, so that what stands of it can be read.

    Raises:
        DumpError: it is no .7z, is cut off or damaged.
        UserError: it is encrypted, or packed in a way that is not read here.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            return list_streams(path, *read_contents(file, path, size))
        except HeaderError as error:
            if kept := headless(file, size, f"{path} is damaged: {error}"):
                return [kept]
            raise DumpError(f"{path} cannot be read as .7z: {error}") from error


def read_contents(file: BinaryIO, path: Path, size: int) -> tuple[Streams, list[str]]:
    """Return the packed streams of an archive, and the names of the files in them, in order.

    Args:
        file: the archive.
        path: its name in messages.
        size: of it, in bytes.

    Raises:
        UserError: it is encrypted.
        HeaderError: it is no .7z, is cut off, or makes no sense.
    """
    offset, length, crc = read_head(file, size)
    header = read_at(file, SIGNATURE_BYTES + offset, length)
    if zlib.crc32(header) != crc:
        raise HeaderError("its header, which stands at its end, is damaged")
    for _ in range(MAX_NESTING):
        reader = Reader(header)
        kind = reader.number() if header else END
        if kind == END:
            return Streams(), []  # an archive without files
        if kind == HEADER:
            return read_header(reader, offset)
        if kind != PACKED_HEADER:
            raise HeaderError(f"its header begins with {kind}")
        header = unpack_header(read_streams(reader, offset), file, path)
    raise HeaderError("its header is packed again and again")


def read_head(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return where the header stands after the head, how long it is, and its CRC-32.

    Raises:
        HeaderError: it is no .7z, or is cut off.
    """
    head = read_at(file, 0, SIGNATURE_BYTES)
    if head[: len(SIGNATURE)] != SIGNATURE or len(head) < SIGNATURE_BYTES:
        raise HeaderError("it does not begin as one does")
    offset, length, crc = struct.unpack_from("<QQI", head, 12)
    expected = SIGNATURE_BYTES + offset + length
    if zlib.crc32(head[12:]) != struct.unpack_from("<I", head, 8)[0]:
        raise HeaderError("its first 32 bytes are damaged")
    if size < expected:
        raise HeaderError(
            f"it is cut off at byte {size:,} of {expected:,}, and the list of what is in it stands "
            "at its end; fetch it anew"
        )
    if length > MAX_HEADER_BYTES:
        raise HeaderError(f"its header has {length:,} bytes")
    return offset, length, crc


def read_at(file: BinaryIO, start: int, count: int) -> bytes:
    """Return bytes of a file; fewer where it ends."""
    file.seek(start)
    return file.read(count)


def unpack_header(streams: Streams, file: BinaryIO, path: Path) -> bytes:
    """Return a header that is packed itself.

    Raises:
        UserError: it is encrypted.
        HeaderError: it makes no sense.
    """
    if len(streams.folders) != 1 or len(streams.packed_sizes) != 1:
        raise HeaderError("its header is packed in several streams")
    folder, size = streams.folders[0], streams.folders[0].sizes[0]
    if ENCRYPTION in folder.methods:
        raise encrypted(path)
    codec = CODERS.get(folder.methods[0])
    if len(folder.methods) != 1 or codec is None or size > MAX_HEADER_BYTES:
        raise HeaderError(f"its header is packed with {folder.methods} to {size:,} bytes")
    packed = read_at(file, SIGNATURE_BYTES + streams.start, streams.packed_sizes[0])
    try:
        unpacked = packed[:size]
        if codec == "bzip2":
            unpacked = bz2.BZ2Decompressor().decompress(packed, size)
        elif codec != "copy":
            filters = [lzma_filter(codec, folder.properties)]
            unpacked = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(
                packed, size
            )
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise HeaderError(f"its header cannot be unpacked: {error}") from error
    if folder.crc not in (-1, zlib.crc32(unpacked)):
        raise HeaderError("its header, which is packed, is damaged")
    return unpacked


def headless(file: BinaryIO, size: int, damage: str) -> PackedStream | None:
    """Return the first stream of an archive whose header is lost; none where it is no text's."""
    head = read_at(file, 0, SIGNATURE_BYTES + TRIED_BYTES)
    if not head.startswith(SIGNATURE):
        return None
    packed, end = head[SIGNATURE_BYTES:], size
    if zlib.crc32(head[12:SIGNATURE_BYTES]) == int.from_bytes(head[8:12], "little"):
        end = min(size, SIGNATURE_BYTES + int.from_bytes(head[12:20], "little"))
    if BZIP2_START.match(packed):
        return PackedStream("bzip2", SIGNATURE_BYTES, end - SIGNATURE_BYTES, "", (), damage)
    for codec, properties in LOST_PROPERTIES.items():
        # A few bytes need no large dictionary.
        filters = [lzma_filter(codec, bytes.fromhex(properties)) | {"dict_size": TRIED_BYTES}]
        try:
            said = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(packed, 4096)
        except lzma.LZMAError:
            continue
        if TEXT_START.match(said):
            return PackedStream(
                codec, SIGNATURE_BYTES, end - SIGNATURE_BYTES, properties, (), damage
            )
    return None


def encrypted(path: Path) -> UserError:
    """Return the error of an encrypted archive."""
    return UserError(f"{path} is encrypted; dumps are not. Unpack it, and give the XML files")


def list_streams(path: Path, packed: Streams, names: list[str]) -> list[PackedStream]:
    """Return packed streams with the files in them.

    Raises:
        HeaderError: there are more files or names than the other.
        UserError: one is encrypted, or packed in a way that is not read here.
    """
    found, start, first = [], SIGNATURE_BYTES + packed.start, 0
    if any(ENCRYPTION in folder.methods for folder in packed.folders):
        raise encrypted(path)
    if len(names) != (count := sum(len(folder.files) for folder in packed.folders)):
        raise HeaderError(f"it has {count:,} files and {len(names):,} names of them")
    for folder, size in zip(packed.folders, packed.packed_sizes, strict=False):
        codec = coder_of(folder, path)
        of_folder = zip(names[first : first + len(folder.files)], folder.files, strict=True)
        members = tuple((name, length, crc) for name, (length, crc) in of_folder)
        found.append(PackedStream(codec, start, size, folder.properties.hex(), members))
        start, first = start + size, first + len(folder.files)
    return found


def coder_of(folder: Folder, path: Path) -> Coder:
    """Return how a folder is packed.

    Raises:
        HeaderError: its properties make no sense.
        UserError: it is packed in a way that is not read here.
    """
    codec = CODERS.get(folder.methods[0])
    if len(folder.methods) != 1 or codec is None or folder.packed_streams != 1:
        raise unread(path, f"method {'+'.join(method.hex() for method in folder.methods)}")
    if codec in LOST_PROPERTIES:
        try:
            settings = lzma_filter(codec, folder.properties)
        except ValueError as error:
            raise HeaderError(str(error)) from error
        if (bits := settings.get("lc", 0) + settings.get("lp", 0)) > MAX_LITERAL_BITS:
            raise unread(path, f"LZMA of {bits} literal bits")
    return codec


def unread(path: Path, packed_with: str) -> UserError:
    """Return the error of an archive that is packed in a way that is not read here."""
    return UserError(
        f"{path} is packed with {packed_with}; bzip2 and LZMA are read, of up to "
        f"{MAX_LITERAL_BITS} literal bits. Unpack it with `7z x`, and give the folder"
    )


def lzma_filter(codec: str, properties: bytes) -> dict[str, int]:
    """Return the filter of Python's lzma for a 7z coder's properties.

    Raises:
        ValueError: they make no sense.
    """
    if codec == "lzma2":
        bits = properties[0] if properties else 255
        if bits > 40:
            raise ValueError(f"no properties of LZMA2: {properties.hex() or 'none'}")
        size = 0xFFFFFFFF if bits == 40 else (2 | (bits & 1)) << (bits // 2 + 11)
        return {"id": lzma.FILTER_LZMA2, "dict_size": size}
    if len(properties) != 5 or properties[0] >= LZMA_SETTINGS:
        raise ValueError(f"no properties of LZMA: {properties.hex() or 'none'}")
    first, size = properties[0], int.from_bytes(properties[1:], "little")
    rest, literal_bits = divmod(first, 9)
    position_bits, literal_position_bits = divmod(rest, 5)
    return {
        "id": lzma.FILTER_LZMA1,
        "dict_size": size,
        "lc": literal_bits,
        "lp": literal_position_bits,
        "pb": position_bits,
    }
