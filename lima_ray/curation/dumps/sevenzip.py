"""What a .7z holds: its packed streams and how each is packed; nothing is written to the disk.

py7zr reads the header. It unpacks into files or writers that it pushes to; the streams themselves
are read as bzip2 and LZMA by the standard library, which can stop, go on and split.
"""

import lzma
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from py7zr import SevenZipFile
from py7zr.exceptions import PasswordRequired

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps.damage import DumpError

Coder = Literal["bzip2", "lzma1", "lzma2", "copy"]
CODERS: dict[bytes, Coder] = {
    b"\x04\x02\x02": "bzip2",
    b"\x03\x01\x01": "lzma1",
    b"\x21": "lzma2",
    b"\x00": "copy",
}
Member = tuple[str, int, int]
"""Name, unpacked bytes and CRC-32 of a file in an archive; -1 where the header names none."""
SIGNATURE = b"7z\xbc\xaf\x27\x1c"
SIGNATURE_BYTES = 32
"""Of the archive's head; packed streams stand after it."""
BZIP2_START = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")


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
    """Files in it, in order; none where the archive's header is cut off."""


def streams(path: Path) -> list[PackedStream]:
    """Return the packed streams of an archive, in order.

    The header stands at an archive's end. Where that is cut off, bzip2 says itself what it is.

    Raises:
        DumpError: it is no .7z, is cut off or damaged.
        UserError: it is encrypted, or packed in a way that is not read here.
    """
    try:
        check_length(path)
        with SevenZipFile(path) as archive:
            return list(read_header(archive, path))
    except PasswordRequired as error:
        raise encrypted(path) from error
    except (UserError, OSError):
        raise
    except Exception as error:  # py7zr raises any kind at a header that makes no sense
        if kept := bzip2_of_headless(path):
            return [kept]
        raise DumpError(f"{path} cannot be read as .7z: {error or type(error).__name__}") from error


def check_length(path: Path) -> None:
    """Check that an archive is as long as its first bytes say.

    Raises:
        EOFError: it is cut off.
        ValueError: it is no .7z.
    """
    with path.open("rb") as file:
        head = file.read(SIGNATURE_BYTES)
    if head[: len(SIGNATURE)] != SIGNATURE:
        raise ValueError("it does not begin as one does")
    offset, length = struct.unpack_from("<QQ", head, 12)
    expected, size = SIGNATURE_BYTES + offset + length, path.stat().st_size
    if size < expected:
        raise EOFError(f"it is cut off at byte {size:,} of {expected:,}")


def bzip2_of_headless(path: Path) -> PackedStream | None:
    """Return the bzip2 stream at the start of an archive whose header is lost."""
    with path.open("rb") as file:
        head = file.read(SIGNATURE_BYTES + 10)
    if not (head.startswith(SIGNATURE) and BZIP2_START.match(head, SIGNATURE_BYTES)):
        return None
    return PackedStream("bzip2", SIGNATURE_BYTES, path.stat().st_size - SIGNATURE_BYTES, "", ())


def encrypted(path: Path) -> UserError:
    """Return the error of an encrypted archive."""
    return UserError(f"{path} is encrypted; dumps are not. Unpack it, and give the XML files")


def read_header(archive: SevenZipFile, path: Path) -> list[PackedStream]:
    """Return the packed streams that an archive's header names."""
    if archive.password_protected or archive.needs_password():
        raise encrypted(path)
    header: Any = archive.header
    if header.main_streams is None:
        return []
    packed = header.main_streams.packinfo
    contents = header.main_streams.substreamsinfo
    members = [
        (f.filename, f.uncompressed, -1 if f.crc32 is None else f.crc32)
        for f in archive.files
        if not f.is_directory and not f.emptystream
    ]
    counts = contents.num_unpackstreams_folders
    found, start, first = [], SIGNATURE_BYTES + packed.packpos, 0
    for folder, size, count in zip(
        header.main_streams.unpackinfo.folders, packed.packsizes, counts, strict=True
    ):
        coder = folder.coders[0]
        codec = CODERS.get(coder["method"])
        if len(folder.coders) != 1 or codec is None:
            methods = "+".join(c["method"].hex() for c in folder.coders)
            raise UserError(
                f"{path} is packed with method {methods}; bzip2 and LZMA are read. Unpack it with "
                "`7z x`, and give the folder"
            )
        properties = (coder.get("properties") or b"").hex()
        inside = tuple(members[first : first + count])
        found.append(PackedStream(codec, start, size, properties, inside))
        start, first = start + size, first + count
    return found


def lzma_filter(codec: str, properties: bytes) -> dict[str, int]:
    """Return the filter of Python's lzma for a 7z coder's properties."""
    if codec == "lzma2":
        bits = properties[0]
        size = 0xFFFFFFFF if bits == 40 else (2 | (bits & 1)) << (bits // 2 + 11)
        return {"id": lzma.FILTER_LZMA2, "dict_size": size}
    first, size = properties[0], int.from_bytes(properties[1:5], "little")
    rest, literal_bits = divmod(first, 9)
    position_bits, literal_position_bits = divmod(rest, 5)
    return {
        "id": lzma.FILTER_LZMA1,
        "dict_size": size,
        "lc": literal_bits,
        "lp": literal_position_bits,
        "pb": position_bits,
    }
