"""Rows of one's own as candidates, whatever their form."""

import json
from pathlib import Path
from typing import Any

import pytest
from curation_runs import SourceRun

from lima_ray.config.errors import UserError


def run(folder: Path, path: str, **section: Any) -> SourceRun:
    done = SourceRun(folder, kind="examples", path=path, **section)
    done.check_funnel()
    return done


def write(file: Path, rows: list[Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_dialogues_stay_whole_with_their_id_and_origin(tmp_path: Path) -> None:
    origin = {"url": "https://x", "authors": ["Ann"], "licence": "CC0", "score": 7}
    rows = [
        {"conversations": ["a", "b", "c", "d"], "id": "one", "source": "multi_turn", **origin},
        {"instruction": "do", "input": "this", "output": "done"},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]},
        {"conversations": ["a prompt alone"]},
    ]
    write(tmp_path / "d" / "own.jsonl", rows)
    found = run(tmp_path / "d", "own.jsonl").candidates
    assert [c.turns for c in found] == [
        ("a", "b", "c", "d"),
        ("do\n\nthis", "done"),
        ("q", "r"),
        ("a prompt alone",),
    ]
    assert [c.id for c in found] == ["one", "own.jsonl:2", "own.jsonl:3", "own.jsonl:4"]
    assert {c.source for c in found} == {"authors"}
    assert (found[0].url, found[0].authors, found[0].licence) == ("https://x", ("Ann",), "CC0")
    assert (found[0].group, found[0].score) == ("multi_turn", 7)


def test_an_origin_of_odd_types_is_read_or_left_out(tmp_path: Path) -> None:
    origins = [{"authors": "Ann Lee", "score": 10**400}, {"authors": 7, "score": float("nan")}]
    write(tmp_path / "d" / "own.jsonl", [{"conversations": ["a", "b"], **o} for o in origins])
    found = run(tmp_path / "d", "own.jsonl").candidates
    assert [(c.authors, c.score) for c in found] == [(("Ann Lee",), 0), (("7",), 0)]


def test_only_takes_rows_by_their_own_source(tmp_path: Path) -> None:
    rows = [{"conversations": ["a", "b"], "source": s, "id": s} for s in ("wikihow", "nlp", "")]
    write(tmp_path / "d" / "train.jsonl", rows)
    done = run(tmp_path / "d", ".", only=["wikihow", "nlp"])
    assert [c.source for c in done.candidates] == ["wikihow", "nlp"]
    assert done.dropped == {"": "other_source"}


def test_rows_that_cannot_be_taken_have_their_reason(tmp_path: Path) -> None:
    rows = [
        {"conversations": ["a", ""], "id": "blank"},
        {"conversations": ["a", "b"], "system": "Be kind.", "id": "system"},
        {"conversations": ["a", "b", "c", "d"], "weights": [0, 0, 0, 1], "id": "weights"},
        {"conversations": ["a", "b"], "created": "2023-05-01", "id": "recent"},
        {"conversations": ["a", "b"], "created": "2013-05-01", "id": "good"},
    ]
    write(tmp_path / "d" / "own.jsonl", rows)
    done = run(tmp_path / "d", "own.jsonl")
    assert [c.id for c in done.candidates] == ["good"]
    assert done.dropped == {
        "own.jsonl:1": "unusable",
        "system": "not_held",
        "weights": "not_held",
        "recent": "too_recent",
    }
    assert len(run(tmp_path / "d", "own.jsonl", written_before=None).candidates) == 2


def test_a_broken_line_keeps_the_rows_before_it(tmp_path: Path) -> None:
    write(tmp_path / "d" / "own.jsonl", [{"conversations": ["a", "b"]}] * 2)
    with (tmp_path / "d" / "own.jsonl").open("a") as out:
        out.write('{"conversations": ["a"')
    with pytest.raises(UserError, match=r"own\.jsonl:3 is not JSON: it is cut off"):
        run(tmp_path / "d", "own.jsonl")
    assert len(run(tmp_path / "d", "own.jsonl", damaged="keep").candidates) == 2


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        run(tmp_path, "none.jsonl")


def test_days_in_any_form_are_read_and_odd_ones_are_no_dates_before_anything(
    tmp_path: Path,
) -> None:
    days: dict[str, Any] = {
        "iso": "2014-01-21T10:00:00Z",
        "space": "2014-01-21 10:00",
        "seconds": 1_390_300_000,
        "text": "1390300000",
        "fraction": 1_390_300_000.5,
        "milliseconds": 1_390_300_000_000,
        "none": None,
        "later": 1_700_000_000,
        "words": "21 Jan 2014",
        "american": "01/21/2014",
        "year": 2014,
        "flag": True,
    }
    rows = [{"conversations": ["a", "b"], "id": id, "created": day} for id, day in days.items()]
    write(tmp_path / "d" / "own.jsonl", rows)
    done = run(tmp_path / "d", "own.jsonl")
    found = {c.id: c.created for c in done.candidates}
    good = ("iso", "space", "seconds", "text", "fraction", "milliseconds")
    assert found == dict.fromkeys(good, "2014-01-21") | {"none": ""}
    odd = ("later", "words", "american", "year", "flag")
    assert done.dropped == dict.fromkeys(odd, "too_recent")
    details = {r["id"]: r["detail"] for p in done.parts for r in p.read("dropped").to_pylist()}
    assert details["words"] == "'21 Jan 2014' is no day such as 2014-01-21"
    kept = {
        c.id: c.created for c in run(tmp_path / "d", "own.jsonl", written_before=None).candidates
    }
    assert len(kept) == len(days)
    assert kept["words"] == ""


def test_what_a_row_says_of_its_origin_may_have_the_names_that_others_give(
    tmp_path: Path,
) -> None:
    row = {"conversations": ["a", "b"], "license": "CC0", "author": "Ann", "link": "https://x.org"}
    write(tmp_path / "d" / "own.jsonl", [row | {"date": "2014-01-21"}])
    (found,) = run(tmp_path / "d", "own.jsonl").candidates
    assert (found.licence, found.authors, found.url) == ("CC0", ("Ann",), "https://x.org")
    assert found.created == "2014-01-21"
