"""Rows are read from every kind of file, folder and saved dataset; what cannot be is named."""

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from datasets import Dataset, DatasetDict
from pyarrow import parquet
from test_data_examples import LIMA, OPENAI, complaint, save

from lima_ray.config.sections import Sampling
from lima_ray.data.examples import read_examples, read_prompts
from lima_ray.data.reading import read_rows
from lima_ray.generation.scripts import Script
from lima_ray.records.files import write_jsonl

MESSAGES = OPENAI["messages"]
ROWS = [{"messages": MESSAGES, "id": f"r{n}", "n": n} for n in range(3)]
LINES = "\n".join(json.dumps(row) for row in ROWS)


def zstd(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def as_parquet(path: Path) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def as_arrow(path: Path) -> None:
    """Write the rows as the file in which `datasets` keeps them."""
    Dataset.from_list(ROWS).save_to_disk(path.parent / "saved")
    next((path.parent / "saved").glob("*.arrow")).rename(path)


def as_csv(path: Path) -> None:
    """Write the rows as a table of text, the messages as JSON."""
    with path.open("w", newline="") as out:
        table = csv.writer(out, delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writerow(ROWS[0])
        table.writerows([json.dumps(r["messages"]), r["id"], r["n"]] for r in ROWS)


def text(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


FILES: dict[str, Callable[[Path], object]] = {
    "rows.jsonl": text(LINES.encode()),
    "rows.ndjson": text(LINES.encode()),
    "lines.json": text(LINES.encode()),
    "array.jsonl": text(json.dumps(ROWS).encode()),
    "indented.json": text(json.dumps(ROWS, indent=2).encode()),
    "BIG.JSONL": text(LINES.encode()),
    "bom.jsonl": text(f"\ufeff{LINES}\ufeff\n".encode()),
    "joined.jsonl": text("\n".join(f"\ufeff{line}\ufeff" for line in LINES.split("\n")).encode()),
    "bom.json": text(f"\ufeff{json.dumps(ROWS)}\n".encode()),
    "rows.jsonl.gz": text(gzip.compress(LINES.encode())),
    "members.jsonl.gz": text(b"".join(gzip.compress(f"{x}\n".encode()) for x in LINES.split("\n"))),
    "array.json.gz": text(gzip.compress(json.dumps(ROWS).encode())),
    "rows.jsonl.bz2": text(bz2.compress(LINES.encode())),
    "rows.jsonl.xz": text(lzma.compress(LINES.encode())),
    "rows.jsonl.zst": text(zstd(LINES.encode())),
    "frames.jsonl.zst": text(b"".join(zstd(f"{x}\n".encode()) for x in LINES.split("\n"))),
    "rows.parquet": as_parquet,
    "rows.arrow": as_arrow,
    "rows.csv": as_csv,
    "rows.tsv": as_csv,
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FILES[name](path)
    found = read_examples(str(path))
    assert [e.id for e in found] == ["r0", "r1", "r2"]
    assert {(e.turns, e.system) for e in found} == {(("Hi?", "Hello."), "Be brief.")}
    assert [str(e.extra["n"]) for e in found] == ["0", "1", "2"]
    assert all(e.place.startswith(str(path)) for e in found)


def test_tables_of_text_are_taken_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('\ufeffinstruction,input,output\nName,,"007\n, ""NA"""\nnull,NaN,1e3\n')
    assert [e.turns for e in read_examples(str(path))] == [
        ("Name", '007\n, "NA"'),
        ("null\n\nNaN", "1e3"),
    ]
    path.write_text('instruction;output\r\n"a; b";1,5\r\n')
    assert [e.turns for e in read_examples(str(path))] == [("a; b", "1,5")]
    path.write_text("instruction,output\na,b,c\n")
    assert complaint(path) == f"{path}:2 has more cells than the first line has names"
    path.write_bytes(b"instruction,output\na,\xe9\n")
    assert complaint(path) == f"{path} is not UTF-8: byte 0xe9"


def test_dates_and_bytes_of_tables_can_be_written(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi?", "response": "Hello.", "at": pyarrow.scalar(0, pyarrow.date32())}]
    table = pyarrow.Table.from_pylist([rows[0] | {"at": rows[0]["at"].as_py(), "raw": b"a"}])
    parquet.write_table(table, tmp_path / "rows.parquet")
    (found,) = read_examples(str(tmp_path / "rows.parquet"))
    assert json.loads(found.to_line())["at"] == "1970-01-01"
    record = (
        Script(found, 0).record_reply("m", Sampling(), "Hello.", stopped=True, n_tokens=2).to_json()
    )
    assert record["at"] == "1970-01-01"  # a reply's line of JSON
    write_jsonl([record], tmp_path / "replies.jsonl")


def test_a_cell_without_a_value_is_no_key(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi?", "follow_ups": ["And?"]}, {"prompt": "Why?", "follow_ups": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    first, second = read_prompts(str(tmp_path / "rows.parquet"), "test")
    assert (Script(first, 0).turns, Script(second, 0).turns) == (2, 1)
    assert second.extra == {}


def test_broken_files_are_named(tmp_path: Path) -> None:
    cut = gzip.compress(LINES.encode())[:-20]
    for name, content in {
        "rows.jsonl.gz": cut,
        "plain.jsonl.gz": LINES.encode(),
        "rows.jsonl.xz": lzma.compress(LINES.encode())[:-20],
        "rows.jsonl.zst": LINES.encode(),
        "rows.parquet": LINES.encode(),
        "rows.arrow": LINES.encode(),
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert complaint(path).startswith(f"{path} cannot be read")


def test_other_kinds_of_file(tmp_path: Path) -> None:
    for name, end in {
        "a.xlsx": ".xlsx",
        "b.txt": ".txt",
        "c.gz": ".gz",
        "d.parquet.gz": "t.gz",
    }.items():
        path = tmp_path / name
        path.write_text("a,b")
        assert f"{end}'; data files end in .jsonl, .json, " in complaint(path)
        assert complaint(path).endswith("write most others as .jsonl")


def folder(path: Path, *names: str) -> str:
    """A folder of data files, each of whose rows says which it is."""
    for name in names:
        save(path / name, LIMA | {"id": name})
    return str(path)


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"], "train", [0, 1]),
        (["train-00000-of-00001-0123456789abcdef.jsonl", "test.jsonl"], "train", [0]),
        (["part-00001.jsonl", "part-00000.jsonl"], "train", [1, 0]),
        (["train/b.jsonl", "train/a.jsonl", "test/c.jsonl"], "train", [1, 0]),
        (["train/b.jsonl", "train/a.jsonl", "test/c.jsonl"], "test", [2]),
        (["train.ndjson", "dev.jsonl"], "train", [0]),
    ],
)
def test_folders_of_shards_and_splits(
    tmp_path: Path, names: list[str], split: str, expected: list[int]
) -> None:
    (tmp_path / "README.md").touch()
    found = [row["id"] for _, row in read_rows(folder(tmp_path, *names), split)]
    assert found == [names[n] for n in expected]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl"],
            "has 2 of 3 shards; it lacks",
        ),
        (
            ["a.jsonl", "b.jsonl"],
            "has no train.jsonl, nor train in another form; it has a.jsonl, b",
        ),
        (["rows1.jsonl", "rows2.jsonl"], "has no train.jsonl, nor train in another form; it has"),
        (["train.json", "train.jsonl"], "has train.json, train.jsonl for train; name the one"),
        (["train.jsonl", "train/a.jsonl"], "has train.jsonl, a.jsonl for train; name the one"),
    ],
)
def test_folders_that_are_not_clear(tmp_path: Path, names: list[str], said: str) -> None:
    assert complaint(folder(tmp_path, *names)).startswith(f"{tmp_path} {said}")


def test_saved_datasets(tmp_path: Path) -> None:
    table = Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "one")
    assert [e.id for e in read_examples(str(tmp_path / "one"))] == ["r0", "r1", "r2"]
    DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "both")
    assert [e.id for e in read_examples(str(tmp_path / "both"), "test")] == ["r1"]
    assert complaint(tmp_path / "both", "dev").endswith("has no split 'dev'; it has train, test")
    next((tmp_path / "one").glob("*.arrow")).unlink()
    assert complaint(tmp_path / "one").startswith(f"{tmp_path}/one cannot be read as a saved")


@pytest.mark.parametrize("cut", [1, 5, 30, 60])
def test_json_that_is_cut_off_is_reported_with_its_end(tmp_path: Path, cut: int) -> None:
    line = json.dumps(LIMA)
    for name, content, number in (
        ("rows.jsonl", f"{line}\n{line[:-cut]}\n", 2),
        ("one.json", f"[{line}, {line}"[:-cut] + "\n", 1),
        ("rows.json", f"[\n{line},\n{line[:-cut]}", 3),
    ):
        path = tmp_path / name
        path.write_text(content)
        column = len(content.rstrip().split("\n")[-1].rstrip()) + 1
        assert complaint(path) == f"{path}:{number} is not JSON: it is cut off at column {column}"


def test_columns_count_from_where_the_line_begins(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('\ufeff[\n    {"prompt": "Hi?",\n     "n": 01}\n]\n')
    assert complaint(path).endswith(f"{path}:3 is not JSON: Expecting ',' delimiter at column 12")


def test_json_that_python_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for content in ("[" * 200_000, f'{{"a": {"9" * 5000}}}'):
        path.write_text(content)
        assert f"{path}" in complaint(path)
        assert "cannot be read as JSON" in complaint(path) or "is not JSON" in complaint(path)


def test_directory_holds_a_file_for_each_split(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        row = {"instruction": split, "output": "Hello."}
        save(tmp_path / f"{split}.{'json' if split == 'dev' else 'jsonl'}", row)
    (tmp_path / "README.md").touch()
    for split in ("train", "dev", "test"):
        assert read_examples(str(tmp_path), split)[0].prompt == split


def test_a_directorys_only_file_is_its_train_split(tmp_path: Path) -> None:
    save(tmp_path / "rows.jsonl", LIMA)
    assert len(read_examples(str(tmp_path))) == 1
    assert complaint(tmp_path, "test") == (
        f"{tmp_path} has no test.jsonl, nor test in another form; it has rows.jsonl"
    )


def test_directory_without_data(tmp_path: Path) -> None:
    assert complaint(tmp_path).endswith(".csv, .tsv, .parquet, .arrow")


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"\n{json.dumps(OPENAI)}\r\n  \n{json.dumps(OPENAI)}\n\n")
    assert [e.id for e in read_examples(str(path))] == ["rows.jsonl:2", "rows.jsonl:4"]


def test_missing_data(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.jsonl")
    assert complaint(gone).startswith(f"no data at {gone}: it is no file, no directory")
    for reference in ("data/gone.jsonl", "gone", "a/b/c", "./gone", "../gone"):
        assert complaint(reference).startswith(f"no data at {reference}: it is no file")


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_empty_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    assert complaint(path) == f"{path} (train) holds no rows"


def test_empty_json_files(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[]")
    assert complaint(path) == f"{path} (train) holds no rows"
    path.write_text("")
    assert complaint(path).startswith(f"{path}:1 is not JSON: ")
    for text in ("{\n}", '{\n"data": [\n]}'):
        path.write_text(text)
        assert complaint(path).startswith(
            f"{path} holds one JSON object; it needs an array of rows"
        )


def test_json_that_is_broken_names_the_line(tmp_path: Path) -> None:
    lines = tmp_path / "rows.jsonl"
    lines.write_text(f'{json.dumps(LIMA)}\n\n{{"conversations": ["a", }}\n')
    assert complaint(lines).startswith(f"{lines}:3 is not JSON: ")
    array = tmp_path / "rows.json"
    array.write_text(f"[\n{json.dumps(LIMA)},\n{json.dumps(LIMA)}\n{json.dumps(LIMA)}]\n")
    assert complaint(array).startswith(f"{array}:4 is not JSON: ")
    array.write_text(f"{json.dumps(LIMA)}\n{json.dumps(LIMA)},\n")
    assert complaint(array).startswith(f"{array}:2 is not JSON: Extra data at column ")


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_bytes_that_are_not_utf8_name_the_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(b'["a",\n"b",\n"caf\xe9"]' if suffix == ".json" else b'{}\n{}\n{"a": "\xe9"}')
    assert complaint(path).startswith(f"{path}:3 is not UTF-8: byte ")
    assert complaint(path).endswith("is 0xe9")
