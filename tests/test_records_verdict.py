"""Verdicts: one JSON form, files of earlier versions, and verdicts that were not read."""

import json
from pathlib import Path
from typing import Any

import pytest

from lima_ray.config.errors import UserError
from lima_ray.records.verdict import Verdict, prompt_id, read_verdicts

VERDICTS = [
    Verdict(
        "p1",
        "audit",
        "exact",
        "pass",
        models=("m",),
        grade=5,
        sample=0,
        turn=0,
        stopped=False,
        group="in",
        extra={"right": True, "faults": ["unfinished"], "source": ""},
    ),
    Verdict("p1", "grade", "judge", 4, models=("m",), grade=4, explanation="Good.", stopped=True),
    Verdict("p1", "grade", "judge", None, "unreadable", ("m",), explanation="4 or so"),
    Verdict("p1", "grade", "judge", None, "unanswered", ("m",), explanation="500 x no"),
    Verdict("p1", "safety", "judge", "unsafe", models=("m",)),
    Verdict(
        "p1",
        "pairwise",
        "anna",
        "neither",
        models=("a", "b"),
        order=(1, 0),
        stopped=(True, False),
        key="vote-7",
        extra={"system": None, "replies": ["x", "é"]},
    ),
    Verdict("000001-p1", "loss", "loss", 0.0, sample=0, extra={"tokens": 9}),
]


def written(folder: Path, rows: list[Any]) -> Path:
    file = folder / "verdicts.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    rows = [verdict.to_json() for verdict in VERDICTS]
    assert read_verdicts(written(tmp_path, rows)) == VERDICTS
    assert all("status" in row and "verdict" in row for row in rows)
    assert rows[5]["order"] == [1, 0] and rows[5]["stopped"] == [True, False]
    assert rows[6] == {"id": "000001-p1", "kind": "loss", "annotator": "loss", "verdict": 0.0} | {
        "status": "read",
        "sample": 0,
        "tokens": 9,
    }


EARLIER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"kind": "grade", "verdict": 4, "explanation": "Good."},
        {"verdict": 4, "grade": 4, "status": "read", "explanation": "Good."},
    ),
    (
        {"kind": "grade", "verdict": "invalid", "explanation": "4 or so"},
        {"verdict": None, "grade": None, "status": "unreadable", "explanation": "4 or so"},
    ),
    (
        {"kind": "grade", "verdict": "invalid", "explanation": "no answer: 500 x no"},
        {"verdict": None, "grade": None, "status": "unanswered", "explanation": "500 x no"},
    ),
    (
        {"kind": "audit", "verdict": "fail", "grade": 3, "right": True, "group": "in"},
        {"verdict": "fail", "grade": 3, "status": "read", "extra": {"right": True}},
    ),
    (
        {"kind": "loss", "verdict": 1.5, "tokens": 9},
        {"verdict": 1.5, "grade": None, "status": "read", "extra": {"tokens": 9}},
    ),
    (
        {
            "kind": "thumbs",
            "id": "thumb-1",
            "verdict": "up",
            "conversations": ["Hi"],
            "system": None,
        },
        {"id": prompt_id(["Hi"], None), "key": "thumb-1", "verdict": "up", "status": "read"},
    ),
    (
        {
            "kind": "pairwise",
            "id": "vote-1",
            "verdict": "A",
            "conversations": ["Hi"],
            "order": [1, 0],
        },
        {"id": prompt_id(["Hi"], None), "key": "vote-1", "order": (1, 0)},
    ),
]


@pytest.mark.parametrize(("row", "fields"), EARLIER)
def test_files_of_earlier_versions_are_read(
    tmp_path: Path, row: dict[str, Any], fields: dict[str, Any]
) -> None:
    row = {"id": "p1", "annotator": "judge", "models": ["m"]} | row
    (found,) = read_verdicts(written(tmp_path, [row]))
    assert {name: getattr(found, name) for name in fields} == fields
    assert found.models == ("m",)
    assert read_verdicts(written(tmp_path, [found.to_json()])) == [found], "and read again"


def test_a_judge_whose_verdict_reads_no_answer_has_answered(tmp_path: Path) -> None:
    row = {"id": "p1", "kind": "grade", "annotator": "judge", "verdict": "invalid"}
    row |= {"explanation": "no answer could be worse"}
    (found,) = read_verdicts(written(tmp_path, [row]))
    assert (found.status, found.explanation) == ("unreadable", "no answer could be worse")


def test_a_prompt_has_the_same_id_whoever_sends_it() -> None:
    ids = {prompt_id(["a", "b", "c"], None), prompt_id(("a", "b", "c"), "")}
    assert len(ids) == 1
    assert not ids & {prompt_id(["a", "b"], None), prompt_id(["a", "b", "c"], "Be kind.")}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"id": "p1", "kind": "grade", "annotator": "x"},
            r"verdicts\.jsonl:1 is no verdict: KeyError\('verdict'",
        ),
        (
            {"id": "p1", "status": "read", "kind": "grade", "verdict": 1},
            r"is no verdict: KeyError\('annotator'",
        ),
        ({"kind": "grade", "verdict": 1, "annotator": "x"}, r"is no verdict: KeyError\('id'"),
    ],
)
def test_what_is_no_verdict_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_verdicts(written(tmp_path, [row]))
