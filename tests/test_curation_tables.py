"""Tables of text, and what damages them."""

import csv
import io
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from lima_ray.config.errors import UserError
from lima_ray.curation.dumps import tables
from lima_ray.curation.dumps.compression import zstd
from lima_ray.curation.dumps.ranges import DumpError
from lima_ray.curation.dumps.table_rows import MAX_CELL_CHARS
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
        (b"3,\0\n", ":4: it holds a NUL byte"),
        (b"3,\xff\n", ":4: it is not UTF-8: byte 2 is 0xff"),
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
    file.write_bytes(b'a,b\n1,2\n3,"' + b"never closed\n" * (MAX_CELL_CHARS // 13 + 1))
    rows, error = rows_before_damage(file)
    assert len(rows) == 1 and "a quote is not closed" in error


ROWS = [[str(n), f"one, {n}\nand more, of it", "end"] for n in range(500)]


def csv_of(rows: list[list[str]], quotes_all: bool) -> str:
    out = io.StringIO()
    quoting = csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL
    csv.writer(out, quoting=quoting, lineterminator="\n").writerows([["id", "text", "x"], *rows])
    return out.getvalue()


@pytest.mark.parametrize("quotes_all", [True, False])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ('{q}200{q},"never closed,{q}end{q}\n', "no CSV|a quote is not closed"),
        ('{q}200{q},"never\nclosed,{q}end{q}\n', "no CSV|a quote is not closed"),
        ('{q}200{q},"quoted" twice,{q}end{q}\n', "no CSV"),
        ("{q}200{q},\udcff,{q}end{q}\n", "not UTF-8"),
        ("{q}200{q},\0,{q}end{q}\n", "NUL byte"),
    ],
)
def test_rows_after_a_damaged_one_are_read(
    tmp_path: Path, quotes_all: bool, bad: str, said: str
) -> None:
    head, tail = csv_of(ROWS[:200], quotes_all), csv_of(ROWS[200:], quotes_all)
    tail = tail.partition("\n")[2]
    text = head + bad.format(q='"' if quotes_all else "") + tail
    file = tmp_path / "t.csv"
    file.write_bytes(text.encode(errors="surrogateescape"))
    rows, error = rows_before_damage(file)
    assert [list(row.values()) for row in rows] == ROWS
    assert error.startswith(f"{file}:{head.count(chr(10)) + 1}: ")
    assert re.search(said, error) and error.count(str(file)) == 1


def test_a_quote_that_nothing_closes_costs_its_row_in_a_table_without_quotes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "t.csv"
    rows = [f"{n},some text,end\n" for n in range(100_000)]
    file.write_text("id,text,x\n" + "".join(rows[:9]) + '"' + "".join(rows[9:]))
    began = time.monotonic()
    found, error = rows_before_damage(file)
    assert len(found) == 100_000 - 1
    assert error.startswith(f"{file}:11: ") and "a quote is not closed" in error
    assert time.monotonic() - began < 10


def test_a_table_that_makes_no_sense_is_given_up(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"a,b\n1,2\n" + b'x,"y" z\n' * 50_000)
    rows, error = rows_before_damage(file)
    assert len(rows) == 1 and f"{file}:3: no CSV" in error and "no row after it" in error
    file.write_text("a,b\n" + ('1,2\n1,2\n1,2\nx,"y" z\n' * 500))
    rows, error = rows_before_damage(file)
    assert len(rows) > 200 and len(error) < 2000 and "more places" in error


def test_forms_are_told_apart_by_the_columns(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("B,extra,A\n")
    assert find_form(file, {"three": ("a", "b", "c"), "two": ("a", "b")}) == "two"
    assert find_form(file, {"three": ("a", "b", "c")}) is None
    file.write_text("")
    with pytest.raises(UserError, match="is empty"):
        find_form(file, {})
