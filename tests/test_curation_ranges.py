"""Dumps: every line is read once whatever the ranges are, and damage costs no more than itself."""

import bz2
import lzma
import random
import re
import resource
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from unittest.mock import patch

import py7zr
import py7zr.compressor
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps import bzip2, ranges, sevenzip, unpacking
from lima_ray.curation.dumps.compression import zstd
from lima_ray.curation.dumps.damage import DumpError
from lima_ray.curation.dumps.ranges import Range, read_blocks, split

FILTERS: dict[str, list[dict[str, int]]] = {
    "bzip2": [{"id": py7zr.FILTER_BZIP2}],
    "lzma2": [{"id": py7zr.FILTER_LZMA2, "preset": 1}],
    "lzma1": [{"id": py7zr.FILTER_LZMA, "preset": 1}],
    "copy": [{"id": py7zr.FILTER_COPY}],
}

BZIP2_OF_100_KB = partial(bz2.BZ2Compressor, 1), bz2.BZ2Decompressor


def archive(path: Path, files: dict[str, bytes], codec: str) -> Path:
    """Write a solid .7z, of which the blocks of bzip2 hold 100 kB."""
    with (
        patch.dict(py7zr.compressor.algorithm_class_map, {py7zr.FILTER_BZIP2: BZIP2_OF_100_KB}),
        py7zr.SevenZipFile(path, "w", filters=FILTERS[codec]) as packed,
    ):
        for name, data in files.items():
            packed.writestr(data, name)
    return path


def read_all(pieces: Sequence[Range]) -> bytes:
    """Return what all ranges give, each sent as JSON would send it."""
    return b"".join(block for piece in pieces for _, block in read_blocks(Range(**asdict(piece))))


def text_of(lines: int, seed: int = 0) -> bytes:
    """Return lines that bzip2 cannot pack to less than about half."""
    draw = random.Random(seed)
    return b"".join(b"%d %s\n" % (n, draw.randbytes(60).hex().encode()) for n in range(lines))


def check_pieces(path: Path, text: bytes, range_bytes: int) -> int:
    """Check that every line comes out once and whole, and return the number of ranges."""
    pieces = split(path, range_bytes)
    blocks = [list(read_blocks(piece)) for piece in pieces]
    assert b"".join(block for those in blocks for _, block in those) == text
    assert all(b.endswith(b"\n") for b in [b for those in blocks for _, b in those][:-1])
    for piece, those in zip(pieces, blocks, strict=True):
        for offset, block in those:
            if piece.codec == "plain":
                assert text[offset : offset + len(block)] == block
    return len(pieces)


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(st.integers(0, 60), max_size=30),
    end=st.sampled_from([b"\n", b"\r\n"]),
    last=st.booleans(),
    range_bytes=st.integers(1, 400),
    block_bytes=st.integers(1, 50),
)
def test_plain_lines_are_read_once(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[int],
    end: bytes,
    last: bool,
    range_bytes: int,
    block_bytes: int,
) -> None:
    text = b"".join(bytes([97 + n % 26]) * size + end for n, size in enumerate(lines))
    text = text if last else text.removesuffix(end)
    path = tmp_path_factory.mktemp("plain") / "Posts.xml"
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpacking, "BLOCK_BYTES", block_bytes)
        check_pieces(path, text, range_bytes)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 50, 3000, 60_000]), min_size=1, max_size=12),
    seed=st.integers(0, 9),
    range_bytes=st.integers(1, 900_000),
)
def test_lines_over_bzip2_blocks_are_read_once(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int, range_bytes: int
) -> None:
    draw = random.Random(seed)
    text = b"\n".join(draw.randbytes(size).replace(b"\n", b".") for size in sizes) or b"\n"
    path = tmp_path_factory.mktemp("packed") / "dump.7z"
    archive(path, {"Posts.xml": text}, "bzip2")
    check_pieces(path, text, max(range_bytes, len(text) // 5))


@pytest.mark.parametrize("codec", FILTERS)
@pytest.mark.parametrize("last", [b"", b"\n"])
def test_a_solid_archive_is_one_text(tmp_path: Path, codec: str, last: bytes) -> None:
    files = {
        name: b"\xef\xbb\xbf<?xml?>\r\n" + text_of(2_000, seed) + b"</x>" + last
        for seed, name in enumerate(["Badges.xml", "Comments.xml", "Posts.xml"])
    }
    path = archive(tmp_path / "site.7z", files, codec)
    count = check_pieces(path, b"".join(files.values()), 1 << 18)
    assert count > 5 if codec == "bzip2" else count == 1


def test_streams_without_the_wanted_file_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "site.7z"
    archive(path, {"Badges.xml": text_of(50)}, "lzma2")
    with py7zr.SevenZipFile(path, "a", filters=FILTERS["bzip2"]) as packed:
        packed.writestr(text_of(60, 1), "site/posts.xml")
    assert read_all(split(path)) == text_of(50) + text_of(60, 1)
    assert read_all(split(path, member="Posts.xml")) == text_of(60, 1)
    with pytest.raises(UserError, match=r"holds no Votes.xml; it has Badges.xml, site/posts.xml"):
        split(path, member="Votes.xml")


def test_zstd_of_several_frames(tmp_path: Path) -> None:
    path = tmp_path / "RS_2015-01.zst"
    texts = [text_of(9, seed) for seed in range(3)]
    skippable = bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"skip"
    path.write_bytes(skippable.join(zstd.compress(text) for text in texts))
    assert read_all(split(path)) == b"".join(texts)


@pytest.mark.parametrize("name", ["Posts.xml", "a.zst"])
def test_an_empty_file_has_no_lines(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if name == "Posts.xml" else zstd.compress(b""))
    assert read_all(split(path)) == b""


def read_until_damage(path: Path, range_bytes: int = 1 << 18) -> tuple[bytes, list[str]]:
    """Return the lines that come out of a file and what is wrong with it."""
    text, errors = b"", []
    for piece in split(path, range_bytes):
        try:
            for _, block in read_blocks(piece):
                text += block
        except DumpError as error:
            errors.append(str(error))
    return text, errors


@pytest.mark.parametrize("codec", FILTERS)
def test_a_flipped_bit_is_noticed_and_costs_no_other_range(tmp_path: Path, codec: str) -> None:
    text = text_of(6_000)
    path = archive(tmp_path / "site.7z", {"Posts.xml": text}, codec)
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 4
    path.write_bytes(data)
    found, errors = read_until_damage(path)
    assert errors
    assert all(str(path) in error for error in errors)
    if codec == "bzip2":  # its blocks have checksums of their own
        assert len(found) > len(text) * 0.6
        assert set(found.splitlines()) <= set(text.splitlines())
        assert found.splitlines()[-1] == text.splitlines()[-1]
        assert re.search(r"at byte [\d,]+", errors[0])
    else:  # what comes out before the flipped bit
        assert found[: int(len(text) * 0.6)] == text[: int(len(text) * 0.6)]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.98])
@pytest.mark.parametrize("codec", ["bzip2", "lzma1", "lzma2"])
def test_a_cut_off_archive_gives_what_stands(tmp_path: Path, codec: str, share: float) -> None:
    text = text_of(6_000)
    whole = archive(tmp_path / "whole.7z", {"Posts.xml": text}, codec).read_bytes()
    path = tmp_path / "site.7z"
    path.write_bytes(whole[: int(len(whole) * share)])
    found, errors = read_until_damage(path)
    assert text.startswith(found)
    assert len(found) > len(text) * share - (200_000 if codec == "bzip2" else 8_000)
    assert errors
    assert all(str(path) in error and "at byte" in error for error in errors)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04 a zip", b"7z\xbc\xaf\x27\x1c\x00\x04" + b"0" * 99]
)
def test_what_is_no_archive_is_damage(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "site.7z"
    path.write_bytes(data)
    assert read_until_damage(path)[0] == b""
    assert "cannot be read as .7z" in read_until_damage(path)[1][0]


def test_a_header_that_makes_no_sense_is_damage(tmp_path: Path) -> None:
    whole = archive(tmp_path / "whole.7z", {"Posts.xml": text_of(9)}, "copy").read_bytes()
    offset, length = struct.unpack_from("<QQ", whole, 12)
    path, start = tmp_path / "site.7z", 32 + offset
    for byte in range(start, start + length):
        data = bytearray(whole)
        data[byte] = 0xCD
        struct.pack_into("<I", data, 28, zlib.crc32(data[start:]))
        struct.pack_into("<I", data, 8, zlib.crc32(data[12:32]))
        path.write_bytes(data)
        with suppress(UserError):  # nothing else is raised
            read_all(split(path))


def test_a_cut_off_archive_of_unknown_packing_says_how_much_is_there(tmp_path: Path) -> None:
    path = archive(tmp_path / "site.7z", {"Posts.xml": text_of(900)}, "copy")
    path.write_bytes(path.read_bytes()[:2000])
    [error] = read_until_damage(path)[1]
    assert re.search(r"site\.7z cannot .*cut off at byte 2,000 of \d.* fetch it anew", error)


@pytest.mark.parametrize("codec", ["bzip2", "lzma1", "lzma2"])
def test_an_archive_with_a_damaged_header_is_read_without_it_and_that_is_told(
    tmp_path: Path, codec: str
) -> None:
    text = text_of(900)
    data = bytearray(archive(tmp_path / "site.7z", {"Posts.xml": text}, codec).read_bytes())
    data[-3] ^= 1
    path = tmp_path / "site.7z"
    path.write_bytes(data)
    found, errors = read_until_damage(path)
    assert text.startswith(found) and len(errors) == 1
    if codec == "bzip2":  # whose last block ends where the end mark is, which is not known
        assert len(text) - len(found) < 100_000
    else:
        assert found == text
        assert errors == [f"{path} is damaged: its header, which stands at its end, is damaged"]


def test_headers_are_read_as_py7zr_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "site.7z"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "empty.xml").touch()
    files = {f"{name}.xml": text_of(5 + n, n) for n, name in enumerate(["Posts", "Ünï ✓", "Tags"])}
    for number, (codec, packs_header) in enumerate(product(FILTERS, [True, False])):
        with py7zr.SevenZipFile(path, "a" if number else "w", filters=FILTERS[codec]) as packed:
            packed.set_encoded_header_mode(packs_header)
            packed.writeall(tmp_path / "folder", f"folder{number}")
            for name, text in files.items():
                packed.writestr(text, f"{number}/{name}")
        with py7zr.SevenZipFile(path) as packed:
            expected = [
                (file.filename, file.uncompressed, file.crc32)
                for file in packed.files
                if not file.emptystream
            ]
        found = sevenzip.streams(path)
        assert [member for stream in found for member in stream.members] == expected
        assert len(found) == number + 1 and found[-1].codec == codec
        assert read_all(split(path)) == b"".join(files.values()) * (number + 1)


def number_7z(value: int) -> bytes:
    """A number of up to 64 bits as a .7z writes it, in its longest form."""
    return b"\xff" + value.to_bytes(8, "little")


MANY = number_7z(2**62)
PACKED = b"\x06\x00\x01\x09%c\x00\x07\x0b\x01\x00\x01\x01\x00\x0c"
"""One stored stream of some bytes, up to how many come out of it."""
ONE_STREAM = b"\x01\x04" + PACKED % 9 + b"\x09\x00"
HARMFUL = {
    "files": b"\x01\x05" + MANY,
    "packed streams": b"\x01\x04\x06\x00" + MANY + b"\x09",
    "checksums": b"\x01\x04\x06\x00" + MANY + b"\x0a\x01",
    "folders": b"\x01\x04\x07\x0b" + MANY + b"\x00",
    "coders": b"\x01\x04\x07\x0b\x01\x00" + MANY,
    "inputs": b"\x01\x04\x07\x0b\x01\x00\x01\x11\x21" + MANY * 2,
    "files of a folder": ONE_STREAM + b"\x08\x0d" + MANY + b"\x00",
    "properties": b"\x01\x02" + b"\x01\x00" * 9 + b"\x01" + MANY,
    "a packed header": b"\x17" + PACKED % 9 + MANY + b"\x00\x00",
    "headers in headers": b"\x17" + PACKED % 19 + b"\x13\x00\x00",
}


@pytest.mark.parametrize("said", HARMFUL)
def test_a_header_made_to_harm_costs_no_time_and_no_memory(tmp_path: Path, said: str) -> None:
    header, packed = HARMFUL[said] + bytes(99), HARMFUL["headers in headers"]
    if said == "headers in headers":  # what it unpacks to is itself
        header = packed
    start = struct.pack("<QQI", len(packed), len(header), zlib.crc32(header))
    path = tmp_path / "site.7z"
    head = b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<I", zlib.crc32(start)) + start
    path.write_bytes(head + packed + header)
    errors: list[str] = []
    began = time.monotonic()
    assert peak_of(lambda: errors.extend(read_until_damage(path)[1])) < 5 << 20
    assert time.monotonic() - began < 2
    assert len(errors) == 1 and "cannot be read as .7z" in errors[0]


def test_random_bytes_in_a_header_cost_no_time(tmp_path: Path) -> None:
    files = {f"{n}.xml": text_of(2, n) for n in range(9)}
    whole = archive(tmp_path / "whole.7z", files, "copy").read_bytes()
    offset, length = struct.unpack_from("<QQ", whole, 12)
    path, start, draw = tmp_path / "site.7z", 32 + offset, random.Random(0)
    began = time.monotonic()
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[start + draw.randrange(length)] = draw.choice([0, 1, 0x7F, 0xFF, 9, 10, 14])
        struct.pack_into("<I", data, 28, zlib.crc32(data[start:]))
        struct.pack_into("<I", data, 8, zlib.crc32(data[12:32]))
        path.write_bytes(data)
        with suppress(UserError):  # nothing else is raised
            split(path)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("cut", [5, 2000, -1])
def test_a_cut_off_zst_gives_what_stands(tmp_path: Path, cut: int) -> None:
    text = text_of(12_000)
    path = tmp_path / "RS.zst"
    path.write_bytes(zstd.compress(text)[:cut])
    found, errors = read_until_damage(path)
    assert text.startswith(found)
    assert bool(found) == (cut == -1)
    assert (
        len(errors) == 1 and "is cut off" in errors[0] and f"{path.stat().st_size:,}" in errors[0]
    )


def test_bytes_after_the_last_zstd_frame_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "RS.zst"
    path.write_bytes(zstd.compress(text_of(9)) + b"no frame at all")
    found, errors = read_until_damage(path)
    assert found == text_of(9) and len(errors) == 1


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.7z"
    for hidden in (False, True):
        with py7zr.SevenZipFile(path, "w", password="x", header_encryption=hidden) as packed:
            packed.writestr(b"<posts>", "Posts.xml")
        with pytest.raises(UserError, match="is encrypted"):
            split(path)


def test_other_coders_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "site.7z"
    chain = [{"id": py7zr.FILTER_DELTA}, {"id": py7zr.FILTER_LZMA2, "preset": 1}]
    for filters in ([{"id": py7zr.FILTER_ZSTD, "level": 3}], chain):
        with py7zr.SevenZipFile(path, "w", filters=filters) as packed:
            packed.writestr(b"<posts>", "Posts.xml")
        with pytest.raises(UserError, match=r"packed with method .*7z x"):
            split(path)


@contextmanager
def memory_at_most(more: int) -> Iterator[None]:
    """Let this process have so many bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("properties", "said"),
    [
        (b"\x08", "is packed with LZMA of 8 literal bits; .*7z x"),
        (b"\xe1", "is damaged: no properties"),
        (b"\x5d\x00\x00\x00\xf0", "needs 3,840 MiB of memory to be unpacked, and there is less"),
    ],
)
def test_lzma_of_settings_that_are_not_read_is_told(
    tmp_path: Path, properties: bytes, said: str
) -> None:
    path = tmp_path / "site.7z"
    with py7zr.SevenZipFile(path, "w", filters=FILTERS["lzma1"]) as packed:
        packed.set_encoded_header_mode(False)
        packed.writestr(text_of(9), "Posts.xml")
    data = bytearray(path.read_bytes())
    [start] = struct.unpack_from("<Q", data, 12)
    # The properties, after the method and their length: `7z -m0=LZMA -mlc=8` begins them with 8.
    at = data.index(b"\x03\x01\x01\x05", 32 + start) + 4
    data[at : at + len(properties)] = properties
    struct.pack_into("<I", data, 28, zlib.crc32(data[32 + start :]))
    struct.pack_into("<I", data, 8, zlib.crc32(data[12:32]))
    path.write_bytes(data)
    with memory_at_most(1 << 30), pytest.raises(UserError, match=said):
        read_all(split(path))


def peak_of(call: Callable[[], object]) -> int:
    """Return the most bytes that Python held while something ran."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", ["bzip2", "lzma2", "zstd"])
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "HARMLESS_BYTES", 8 << 20)
    lines = b"\n" * (64 << 20)
    if codec == "zstd":
        path = tmp_path / "RS.zst"
        path.write_bytes(zstd.compress(lines, 9))
    else:
        path = archive(tmp_path / "site.7z", {"Posts.xml": lines}, codec)
    errors: list[str] = []
    peak = peak_of(lambda: errors.extend(error for error in [error_of(path)] if error))
    assert "decompression bomb" in errors[0]
    assert peak < 150 << 20  # one block of bzip2 is 46 MB at most, and is copied


def error_of(path: Path) -> str:
    """Return what is wrong with a file, of which no line is kept."""
    try:
        for piece in split(path):
            for _ in read_blocks(piece):
                pass
    except DumpError as error:
        return str(error)
    return ""


def test_a_line_of_absurd_length_ends_the_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "Posts.xml"
    path.write_bytes(b"first\nsecond\n" + b"x" * (5 << 20) + b"\nlast\n")
    found, errors = read_until_damage(path, 64 << 20)
    assert found == b"first\nsecond\n"
    assert "line over 1 MiB" in errors[0] and "at byte 13" in errors[0]


def test_nothing_is_written_for_a_path_that_leaves_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    path = folder / "site.7z"
    with py7zr.SevenZipFile(path, "w", filters=FILTERS["copy"]) as packed:
        packed.set_encoded_header_mode(False)
        packed.writestr(b"<posts>\n", "xx/yy/Posts.xml")
    name, evil = ("xx/yy/".encode("utf-16-le"), "../../".encode("utf-16-le"))
    data = path.read_bytes()
    assert name in data
    path.write_bytes(refresh_header(data.replace(name, evil)))
    before = sorted(tmp_path.rglob("*"))
    assert read_all(split(path, member="Posts.xml")) == b"<posts>\n"
    assert sevenzip.streams(path)[0].members[0][0] == "../../Posts.xml"
    assert sorted(tmp_path.rglob("*")) == before


def refresh_header(data: bytes) -> bytes:
    """Return an archive with the checksums of its changed header."""
    offset, size = struct.unpack_from("<QQ", data, 12)
    header = data[32 + offset : 32 + offset + size]
    start = struct.pack("<QQI", offset, size, zlib.crc32(header))
    return data[:8] + struct.pack("<I", zlib.crc32(start)) + start + data[32:]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Posts\.xml cannot be read"):
        split(tmp_path / "Posts.xml")


def test_blocks_start_where_bzip2_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own decoder agrees, for several block sizes and all shifts of bits."""
    text = text_of(5_000)
    for level in (1, 2, 4):
        packed = bz2.compress(text, level)
        path = tmp_path / "x.bz2"
        path.write_bytes(b"12345" + packed)
        count = -(-len(text) // (level * 100_000 - 19))
        for group_bits, most in ((0, count), (len(packed) * 3, count), (1 << 30, 1)):
            monkeypatch.setattr(bzip2, "GROUP_BITS", group_bits)
            with path.open("rb") as file:
                stream = bzip2.Stream(file, 5, 5 + len(packed))
                blocks = list(stream.unpack(stream.first * 8 + 32, stream.end))
            assert b"".join(blocks) == text and not stream.cut_off
            assert len(blocks) <= most and (group_bits or len(blocks) == count)


def test_blocks_at_once_end_at_a_mark_or_are_none(tmp_path: Path) -> None:
    packed = bz2.compress(text_of(5_000), 1)
    path = tmp_path / "x.bz2"
    path.write_bytes(packed)
    with path.open("rb") as file:
        stream = bzip2.Stream(file, 0, len(packed))
        mark = start = 32
        for _ in range(4):
            mark = stream.block_at((mark + 48) // 8) or stream.end
            assert stream._unpack_group(start, mark)
            for bits in (-9_000, -500, 90, 500, 9_000):
                assert not stream._unpack_group(start, mark + bits)


def test_damage_is_found_in_the_same_place_by_blocks_at_once_or_by_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "site.7z", {"Posts.xml": text_of(5_000)}, "bzip2")
    whole = path.read_bytes()
    for place in range(0, len(whole) - 200, len(whole) // 12):
        data = bytearray(whole)
        data[50 + place] ^= 1 << place % 8
        path.write_bytes(data)
        found = []
        for group_bits in (0, 512 << 13):
            monkeypatch.setattr(bzip2, "GROUP_BITS", group_bits)
            found.append(read_until_damage(path, 1 << 30))
        assert found[0] == found[1]
        assert found[0][1]


def test_lzma_properties(tmp_path: Path) -> None:
    for preset in (0, 6, 9):
        raw = [{"id": py7zr.FILTER_LZMA, "preset": preset, "lc": 2, "lp": 1, "pb": 1}]
        path = tmp_path / "site.7z"
        with py7zr.SevenZipFile(path, "w", filters=raw) as packed:
            packed.writestr(text_of(99), "Posts.xml")
        [stream] = sevenzip.streams(path)
        made = sevenzip.lzma_filter("lzma1", bytes.fromhex(stream.properties))
        assert (made["lc"], made["lp"], made["pb"]) == (2, 1, 1)
        assert made["id"] == lzma.FILTER_LZMA1
        assert read_all(split(path)) == text_of(99)
