"""Parts that are made again and parts that are not, and what cannot be written or read."""

import json
import os
import random
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import py7zr
import pytest
from stack_exchange import answer, dump, question

from lima_ray.config.errors import UserError
from lima_ray.curation import pipeline
from lima_ray.curation.candidate import Part, PartWriter
from lima_ray.curation.dataset import SourcePool, write_dropped
from lima_ray.curation.pipeline import run_stages
from lima_ray.curation.recipe import Curation
from lima_ray.curation.sources.joining import join_tasks, unpack_tops
from lima_ray.curation.sources.stackexchange.scan import ANSWERS, QUESTIONS


def curation_of(inputs: Path, kind: str = "examples", **section: Any) -> Curation:
    source = {"kind": kind, "path": "own.jsonl" if kind == "examples" else "."} | section
    return Curation.model_validate({"name": "x", "inputs": str(inputs), "sources": {"a": source}})


def write_rows(folder: Path, count: int) -> None:
    letters = random.Random(0)
    rows = [{"conversations": ["q", letters.randbytes(1000).hex()]} for _ in range(count)]
    (folder / "own.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def parts_of(curation: Curation, work: Path, **options: Any) -> list[Part]:
    return run_stages(curation, work, workers=0, **options)["a"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, which fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_part_that_is_damaged_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path, 3)
    [part] = parts_of(curation_of(tmp_path), tmp_path / "work")
    file = part.folder / "candidates.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    said = f"{re.escape(str(file))} cannot be read: .*. Remove {re.escape(str(part.folder))}, and"
    with pytest.raises(UserError, match=said):
        list(part.candidates())
    file.unlink()
    with pytest.raises(UserError, match=said):
        part.read()


def test_a_full_disk_is_said_and_leaves_no_half_of_a_part(tmp_path: Path) -> None:
    write_rows(tmp_path, 1500)
    curation, work = curation_of(tmp_path), tmp_path / "work"
    with largest_file(100_000), pytest.raises(UserError, match=r"cannot be written.*--out"):
        parts_of(curation, work)
    assert [file for file in work.rglob("*") if file.is_file() or file.name[0] == "."] == []
    assert parts_of(curation, work)[0].counts["seen"] == 1500


def test_a_full_disk_leaves_no_half_of_a_packed_dumps_part(tmp_path: Path) -> None:
    text = random.Random(0).randbytes(100_000).hex()
    rows = [question(1, Body=f"<p>{text}</p>"), answer(2, 1)]
    packed = [{"id": py7zr.FILTER_BZIP2}]
    with py7zr.SevenZipFile(tmp_path / "beer.stackexchange.com.7z", "w", filters=packed) as archive:
        archive.writestr(dump(rows).decode(), "Posts.xml")
    curation, work = curation_of(tmp_path, "stackexchange"), tmp_path / "work"
    with largest_file(50_000), pytest.raises(UserError, match=r"cannot be written.*--out"):
        parts_of(curation, work)
    assert [file for file in work.rglob("*") if file.is_file() or file.name[0] == "."] == []


def test_a_full_disk_keeps_the_reasons_that_stood(tmp_path: Path) -> None:
    write_rows(tmp_path, 1)
    curation, file = curation_of(tmp_path), tmp_path / "dropped.parquet"
    pool = SourcePool("a", curation.sources["a"], parts_of(curation, tmp_path / "work"))
    write_dropped([pool], file)
    before = file.read_bytes()
    pool.later = [(f"{n}", "duplicate", os.urandom(50).hex()) for n in range(3000)]
    with largest_file(20_000), pytest.raises(OSError):
        write_dropped([pool], file)
    assert file.read_bytes() == before
    assert not (tmp_path / ".dropped.parquet.partial").exists()


@pytest.mark.parametrize("said", ["", "{", "[]", None])
def test_a_part_whose_counts_are_lost_is_made_again(tmp_path: Path, said: str | None) -> None:
    write_rows(tmp_path, 5)
    curation, work = curation_of(tmp_path), tmp_path / "work"
    counts = parts_of(curation, work)[0].folder / "counts.json"
    before = counts.read_text()
    counts.unlink() if said is None else counts.write_text(said)
    assert parts_of(curation, work)[0].counts["seen"] == 5
    assert counts.read_text() == before


def test_a_dump_that_cannot_be_read_is_not_said_to_be_unwritable(tmp_path: Path) -> None:
    gone = tmp_path / "gone.json"
    arguments = json.dumps({"name": "t", "files": [str(gone)]})
    curation = curation_of(tmp_path, "natural_instructions")
    row = {"name": "t", "arguments": arguments, "source": "a", "folder": str(tmp_path / "w" / "p")}
    with pytest.raises(UserError, match=r"gone\.json cannot be read: No such file"):
        pipeline.run_job(row | {"curation": curation.model_dump_json()})


def test_a_damaged_file_that_was_mended_at_the_same_size_and_time_is_read_again(
    tmp_path: Path,
) -> None:
    rows = [question(n) for n in range(1, 30, 2)] + [answer(n + 1, n) for n in range(1, 30, 2)]
    whole = dump(rows)
    file = tmp_path / "beer.stackexchange.com" / "Posts.xml"
    file.parent.mkdir()
    file.write_bytes(whole.replace(b"</posts>", b"</pests>"))
    time = file.stat().st_mtime_ns
    curation, work = curation_of(tmp_path, "stackexchange", unfiltered=True), tmp_path / "work"
    with pytest.raises(UserError, match="does not end with </posts>"):
        parts_of(curation, work)
    kept = parts_of(curation, work, damaged="keep")
    assert parts_of(curation, work, damaged="keep") == kept
    file.write_bytes(whole.replace(b"yeast", b"water"))
    os.utime(file, ns=(time, time))
    mended = parts_of(curation, work)
    assert not any(part.counts["damage"] for part in mended)
    replies = [c.turns[1] for part in mended for c in part.candidates()]
    assert len(replies) == 15
    assert all("water" in reply for reply in replies)


def test_other_code_makes_parts_again_and_other_choices_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path, 3)
    work = tmp_path / "work"
    first = parts_of(curation_of(tmp_path), work)
    assert parts_of(curation_of(tmp_path, rows=2, choose="longest", temperature=3), work) == first
    assert parts_of(curation_of(tmp_path, written_before=None), work) != first
    monkeypatch.setattr(pipeline, "code_digest", lambda: "of another version")
    assert parts_of(curation_of(tmp_path), work) != first


def test_tasks_of_a_join_wait_in_a_few_bytes_for_each_question(tmp_path: Path) -> None:
    count = 5000
    answers = list(range(count))
    random.Random(0).shuffle(answers)
    with PartWriter(tmp_path / "part") as out:
        out.extra = {"site": {"name": "large"}}
        questions, tops = out.table("questions", QUESTIONS), out.table("answers", ANSWERS)
        for id in range(count):
            questions.add({"id": id, "offset": 0, "length": 1})
        for row, parent in enumerate(answers):
            answer = {"parent": parent, "id": count + row, "score": 10, "line": b""}
            answer |= {"offset": 0, "length": 0}
            tops.add(answer)
            tops.add(answer | {"id": 9 * count + row, "score": 9})
    (task,) = join_tasks([Part(tmp_path / "part")])
    assert len(json.dumps(dict(task.arguments))) < 20 * count
    expected = {parent: (0, 2 * row, count + row) for row, parent in enumerate(answers)}
    assert unpack_tops(task.arguments) == expected
