"""What a .7z holds: its packed streams and how each is packed; nothing is written to the disk.

py7zr reads the header. It unpacks into files or writers that it pushes to; the streams themselves
are read as bzip2 and LZMA by the standard library, which can stop, go on and split.
"""

import lzma
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from py7zr import SevenZipFile
from py7zr.exceptions import ArchiveError

from lima_ray.config.errors import UserError

Coder = Literal["bzip2", "lzma1", "lzma2", "copy"]
CODERS: dict[bytes, Coder] = {
    b"\x04\x02\x02": "bzip2",
    b"\x03\x01\x01": "lzma1",
    b"\x21": "lzma2",
    b"\x00": "copy",
}
SIGNATURE_BYTES = 32
"""Of the archive's head; packed streams stand after it."""


@dataclass(frozen=True)
class PackedStream:
    """One packed stream: a file, or several files one after another."""

    codec: Coder
    start: int
    """Its first byte in the archive."""
    size: int
    properties: str
    """Of the coder, in hex."""
    names: tuple[str, ...]
    """Files in it, in order."""


def streams(path: Path) -> list[PackedStream]:
    """Return the packed streams of an archive, in order.

    Raises:
        UserError: it is no .7z, is cut off, encrypted, or packed in a way that is not read here.
    """
    try:
        with SevenZipFile(path) as archive:
            return list(read_header(archive, path))
    except (ArchiveError, struct.error, EOFError, ValueError, IndexError, lzma.LZMAError) as error:
        raise UserError(
            f"{path} cannot be read as .7z ({error or type(error).__name__}): it is cut off or "
            "damaged; compare its size with the download's"
        ) from error


def read_header(archive: SevenZipFile, path: Path) -> list[PackedStream]:
    """Return the packed streams that an archive's header names."""
    if archive.password_protected or archive.needs_password():
        raise UserError(f"{path} is encrypted; dumps are not. Unpack it, and give the XML files")
    header: Any = archive.header
    if header.main_streams is None:
        return []
    packed = header.main_streams.packinfo
    names = [f.filename for f in archive.files if not f.is_directory and not f.emptystream]
    counts = header.main_streams.substreamsinfo.num_unpackstreams_folders
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
        inside = tuple(names[first : first + count])
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
