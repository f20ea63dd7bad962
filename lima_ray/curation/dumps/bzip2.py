"""One bzip2 stream read from any of its blocks, which start at bits, not at bytes.

A library's index of blocks needs one pass over the whole stream before anything can be shared out;
the mark that begins a block is found in place, and the standard library's decoder does the rest: it
is given a head of its own and the bits that follow, shifted to bytes.
"""

import bz2
import io
from collections.abc import Iterator

import numpy as np

BLOCK_MARK = 0x314159265359
END_MARK = 0x177245385090
MARK_BITS, CRC_BITS, HEAD_BITS = 48, 32, 32
READ_BYTES = 1 << 20
OUTPUT_BYTES = 1 << 20


class Stream:
    """A bzip2 stream inside a file."""

    def __init__(self, file: io.BufferedReader, start: int, end: int) -> None:
        """Read its head and its end mark.

        Args:
            file: that holds it.
            start: its first byte.
            end: the byte after its last.
        """
        self.file, self.first, self.last = file, start, end
        file.seek(start)
        self.head = file.read(HEAD_BITS // 8)
        found = self._end_mark()
        self.cut_off = found is None
        self.end = end * 8 if found is None else found
        """The bit after its last block."""

    def _end_mark(self) -> int | None:
        tail_start = max(self.first, self.last - (MARK_BITS + CRC_BITS) // 8 - 1)
        self.file.seek(tail_start)
        tail = self.file.read(self.last - tail_start)
        bits = int.from_bytes(tail)
        for padding in range(8):
            if bits >> (CRC_BITS + padding) & ((1 << MARK_BITS) - 1) == END_MARK:
                return self.last * 8 - padding - CRC_BITS - MARK_BITS
        return None

    def block_at(self, byte: int) -> int | None:
        """Return the bit at which the next block from a byte on starts; none after the last."""
        if byte <= self.first:
            return self.first * 8 + HEAD_BITS
        position, overlap = byte, MARK_BITS // 8
        while position < self.last:
            self.file.seek(position)
            data = self.file.read(min(READ_BYTES + overlap, self.last - position))
            found = find_mark(data)
            if found is not None:
                bit = position * 8 + found
                return bit if bit < self.end else None
            position += READ_BYTES
        return None

    def unpack(self, start: int, end: int) -> Iterator[bytes]:
        """Yield what the blocks between two bits hold, about a MiB at a time.

        Raises:
            OSError: a block is damaged.
            EOFError: the last block is cut off.
        """
        decoder = bz2.BZ2Decompressor()
        yield from drain(decoder, self.head)
        position, shift = start // 8, start % 8
        last = -(-end // 8)
        while position < last:
            self.file.seek(position)
            # One byte more, whose first bits end the last byte of the shifted ones.
            data = np.frombuffer(self.file.read(min(READ_BYTES, last - position) + 1), np.uint8)
            count = min(READ_BYTES, last - position, len(data))
            if not count:
                raise EOFError("the file ends inside a block")
            yield from drain(decoder, shifted(data, shift)[:count].tobytes())
            position += count
        # The decoder asks for input while output waits; a byte of the next mark lets that out.
        self.file.seek(last)
        following = np.frombuffer(self.file.read(2), np.uint8)
        yield from drain(decoder, shifted(following, shift)[:1].tobytes())


def drain(decoder: bz2.BZ2Decompressor, data: bytes) -> Iterator[bytes]:
    """Yield all that a decoder makes of some bytes."""
    while True:
        part = decoder.decompress(data, OUTPUT_BYTES)
        data = b""
        if part:
            yield part
        if decoder.eof or decoder.needs_input:
            return


def shifted(data: np.ndarray, bits: int) -> np.ndarray:
    """Return bytes moved to the left by fewer than 8 bits; zeros come in at the end."""
    if not bits:
        return data
    following = np.append(data[1:], np.uint8(0))
    return (data << bits) | (following >> (8 - bits))


def find_mark(data: bytes) -> int | None:
    """Return the bit at which the first block mark starts; none where there is none."""
    found = []
    for shift in range(8):
        # The five bytes of the mark that stand whole, and the bits around them.
        whole = (BLOCK_MARK >> (shift or 8)) & ((1 << 40) - 1)
        needle, at = whole.to_bytes(5), 0
        while (at := data.find(needle, at)) >= 0:
            first = at * 8 - (8 - shift if shift else 0)
            if first >= 0 and read_bits(data, first, MARK_BITS) == BLOCK_MARK:
                found.append(first)
                break
            at += 1
    return min(found, default=None)


def read_bits(data: bytes, start: int, count: int) -> int:
    """Return some bits of a few bytes as a number; fewer where they end."""
    part = data[start // 8 : -(-(start + count) // 8)]
    spare = len(part) * 8 - start % 8 - count
    return (int.from_bytes(part) >> spare) & ((1 << count) - 1) if spare >= 0 else 0
