"""One bzip2 stream read from any of its blocks, which start at bits, not at bytes.

A library's index of blocks needs one pass over the whole stream before anything can be shared out;
the mark that begins a block is found in place, and the standard library's decoder does the rest: it
is given a head of its own and the bits of some blocks, shifted to bytes. A block counts once its
checksum was compared, so nothing of a damaged one is used.
"""

import bz2
import io
from collections.abc import Iterator

import numpy as np

BLOCK_MARK = 0x314159265359
END_MARK = 0x177245385090
MARK_BITS, CRC_BITS, HEAD_BITS = 48, 32, 32
READ_BYTES = 1 << 18
MAX_BLOCK_BYTES = 2 << 20
"""Packed; a block holds at most 900 kB, which hardly grow where they cannot be packed."""
GROUP_BITS = 512 << 13
"""Packed bits of blocks that are unpacked at once: marks are looked for in the last of them alone,
which takes a twentieth of the time that unpacking takes where every one is looked for."""
MOST_GROUP_BYTES = 16 << 20
"""Of text in them; beyond it blocks are unpacked one by one."""


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
        """Yield what each block between two bits holds: about 900 kB of text, at most 46 MB.

        Raises:
            OSError: a block is damaged.
            EOFError: the last block is cut off.
        """
        while start < end:
            stop = end if start + GROUP_BITS >= end else self._mark_after(start + GROUP_BITS)
            data = self._unpack_group(start, stop)
            if not data:
                break  # one by one from here on, so that what stands before damage is kept
            yield data
            start = stop
        while start < end:
            stop = start
            data = b""
            while not data:  # once in 35 TB a mark stands where none is
                stop = self._mark_after(stop)
                if stop - start > MAX_BLOCK_BYTES * 8:
                    raise OSError(f"no block ends within {MAX_BLOCK_BYTES >> 20} MiB")
                data = self._unpack_block(start, stop)
                if not data and stop >= self.end:
                    raise EOFError("the file ends inside a block")
            yield data
            start = stop

    def _unpack_group(self, start: int, stop: int) -> bytes:
        """Return what some blocks hold; nothing where one is damaged or does not end at `stop`, or
        they hold too much."""
        decoder = bz2.BZ2Decompressor()
        try:
            text = decoder.decompress(self._read_bits(start, stop), MOST_GROUP_BYTES)
            if decoder.eof or len(text) >= MOST_GROUP_BYTES:
                return b""
        except OSError:
            return b""
        try:
            decoder.decompress(bytes(3))
        except OSError:  # this is no mark, and one must stand here: every block was read
            return text
        return b""

    def _mark_after(self, bit: int) -> int:
        """Return the bit at which the block ends that starts at a bit."""
        found = self.block_at((bit + MARK_BITS) // 8)
        return self.end if found is None else found

    def _unpack_block(self, start: int, stop: int) -> bytes:
        """Return what one block holds; nothing where it does not end at `stop`."""
        return bz2.BZ2Decompressor().decompress(self._read_bits(start, stop))

    def _read_bits(self, start: int, stop: int) -> bytes:
        """Return a stream of the blocks between two bits, without an end."""
        self.file.seek(start // 8)
        # The decoder compares the checksum when it meets the first bits of the next mark.
        count = -(-(stop - start) // 8) + 2
        data = np.frombuffer(self.file.read(count + 1), np.uint8)
        return self.head + shifted(data, start % 8)[:count].tobytes()


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
