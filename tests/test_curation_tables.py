"""Tables of text, and what damages them."""

from collections import Counter
from pathlib import Path

import pytest

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps import tables
from lima_ray.curation.dumps.compression import zstd
from lima_ray.curation.dumps.ranges import DumpError
from lima_ray.curation.dumps.tables import find_form, read_header, read_table


def rows_before_damage(file: Path) -> tuple[list[dict[str, str]], str]:
    """Return the rows that stand before the damage, and what is said of it."""
    rows = []
    with pytest.raises(DumpError) as error:
        for _, cells in read_table(file, Counter()):
            rows.append(cells)
    return rows, str(error.value)


def test_cells_hold_newlines_quotes_and_commas(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes('\ufeffTitle, Text \r\nä,"a ""b"",\r\nc\n"\r\n\r\nlast,line'.encode())
    rows = list(read_table(file, Counter()))
    assert rows == [
        (2, {"title": "ä", "text": 'a "b",\r\nc\n'}),
        (6, {"title": "last", "text": "line"}),
    ]
    assert read_header(file) == ("title", "text")


def test_a_packed_table_reads_alike(tmp_path: Path) -> None:
    file = tmp_path / "t.csv.zst"
    file.write_bytes(zstd.compress(b"a,b\n" + b'"x\ny",2\n' * 3000))
    assert [cells["a"] for _, cells in read_table(file, Counter())] == ["x\ny"] * 3000


def test_a_packed_table_is_not_cut_off_by_a_short_last_row(tmp_path: Path) -> None:
    path, notes = tmp_path / "t.csv.zst", Counter[str]()
    path.write_bytes(zstd.compress(b"a,b\n1,2\n3"))
    assert [cells for _, cells in read_table(path, notes)] == [{"a": "1", "b": "2"}]
    assert notes.total() == 1


def test_rows_of_another_width_are_counted_and_left_out(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b\n1,2\n1,2,3\n4\n5,6\n")
    notes: Counter[str] = Counter()
    assert [cells["a"] for _, cells in read_table(file, notes)] == ["1", "5"]
    assert notes == {tables.UNEVEN: 2}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b'3,"cut off here\nand here', ":4: the row is cut off inside a quoted cell"),
        (b"3", ":4: the row is cut off, where the file ends"),
        (b"3,\0\n", ":4 holds a NUL byte"),
        (b"3,\xff\n", ":4 is not UTF-8: byte 2 is 0xff"),
        (b'3,"a"b\n', ":4: no CSV"),
    ],
)
def test_what_stands_before_damage_is_kept(tmp_path: Path, bad: bytes, said: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"a,b\n1,2\n2,2\n" + bad)
    rows, error = rows_before_damage(file)
    assert [row["a"] for row in rows] == ["1", "2"]
    assert error.startswith(f"{file}{said}")


def test_a_cell_of_absurd_length_ends_the_reading(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b'a,b\n1,2\n3,"' + b"never closed\n" * (tables.MAX_CELL_CHARS // 13 + 1))
    rows, error = rows_before_damage(file)
    assert len(rows) == 1 and "a quote is not closed" in error


def test_forms_are_told_apart_by_the_columns(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("B,extra,A\n")
    assert find_form(file, {"three": ("a", "b", "c"), "two": ("a", "b")}) == "two"
    assert find_form(file, {"three": ("a", "b", "c")}) is None
    file.write_text("")
    with pytest.raises(UserError, match="is empty"):
        find_form(file, {})
