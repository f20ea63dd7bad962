"""Verdicts summarised, as CSV, and to and from Argilla and Label Studio."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lima_ray import verdicts as command
from lima_ray.config.command_line import COMMANDS, parse_arguments
from lima_ray.config.errors import UserError
from lima_ray.data.examples import read_examples
from lima_ray.judging.forms.judge_rows import write_judge_rows
from lima_ray.judging.forms.table import neutralise
from lima_ray.judging.questions.design import design_items
from lima_ray.judging.questions.item import ItemKind
from lima_ray.judging.questions.reading import read_judgement
from lima_ray.judging.questions.verdicts import Annotator, record_verdict
from lima_ray.judging.questions.wording import load_wording
from lima_ray.records.files import write_jsonl
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict, read_verdicts
from serve.conversations.dialogue import Turn
from serve.conversations.store import Store
from serve.conversations.verdicts import verdict_on
from serve.store import verdicts as write_votes


def main(args: list[str]) -> None:
    command.main(parse_arguments(COMMANDS["verdicts"], args))


SCRIPT = "<script>alert(1)</script>"
CHOICES: dict[ItemKind, list[Any]] = {
    "pairwise": ["A", "B", "neither"],
    "grade": [1, 6, 3],
    "audit": ["excellent", "pass", "fail"],
    "safety": ["safe", "unsafe", "safe"],
}


@pytest.fixture
def models(tmp_path: Path) -> dict[str, list[Reply]]:
    found = {}
    for name in ("ours", "theirs"):
        found[name] = [
            Reply(f"p{n}", (f"Why {n}?",), name, 0, 0, f"{SCRIPT} {name[0]}{n}", True)
            for n in range(3)
        ]
        (tmp_path / name).mkdir()
        write_jsonl([r.to_json() for r in found[name]], tmp_path / name / "replies.jsonl")
    return found


def references(folder: Path) -> list[str]:
    return [f"{name}={folder / name}" for name in ("ours", "theirs")]


@pytest.mark.parametrize("kind", CHOICES)
@pytest.mark.parametrize("form", ["argilla", "label_studio"])
def test_verdicts_return_from_another_tool_as_they_went(
    models: dict[str, list[Reply]], tmp_path: Path, form: str, kind: ItemKind
) -> None:
    items = design_items(kind, models, pairs="all", orders="seeded")
    given = [
        record_verdict(item, Annotator(name), choice, explanation=f"{name} & <b>why</b>")
        for item, choice in zip(items, CHOICES[kind] * 2, strict=False)
        for name in ("anna@example.org", "ben")
    ]
    lost = record_verdict(items[0], Annotator("judge", "endpoint"), None, status="unanswered")
    judged = record_verdict(items[1], Annotator("judge", "endpoint"), CHOICES[kind][0])
    write_jsonl([v.to_json() for v in (*given, lost, judged)], tmp_path / "given.jsonl")
    tasks, back, refs = tmp_path / "tasks.json", tmp_path / "back.jsonl", references(tmp_path)
    flags = ["--form", form, "--kind", kind]
    main(
        ["export", *refs, *flags, "--out", str(tasks), "--verdicts", str(tmp_path / "given.jsonl")]
    )
    written = tasks.read_text()
    assert "ours" not in written and "theirs" not in written, "who is judged stays unknown"
    assert json.dumps(f"{SCRIPT} o0")[1:-1] in written
    assert '"judge"' in written, "a model's verdict is a suggestion, or a prediction"
    if form == "label_studio":
        configuration = tasks.with_suffix(".xml").read_text()
        assert all(f'alias="{choice}"' in configuration for choice in CHOICES[kind])
    main(["collect", str(tasks), *refs[::-1], *flags, "--out", str(back)])
    found = {v.extra["asked"]: v for v in read_verdicts(back)}
    assert set(found) == {v.extra["asked"] for v in given}
    for verdict in given:
        one = found[verdict.extra["asked"]]
        assert (one.verdict, one.explanation) == (verdict.verdict, verdict.explanation)
        assert one.annotator == verdict.annotator
        if kind != "pairwise":
            assert one == verdict


@pytest.mark.parametrize("kind", CHOICES)
def test_verdicts_are_rows_that_teach_a_judge(
    models: dict[str, list[Reply]], tmp_path: Path, kind: ItemKind
) -> None:
    items = design_items(kind, models, pairs="all", orders="seeded")
    given = [
        record_verdict(item, Annotator("anna"), choice, explanation=why)
        for item, choice, why in zip(
            items, CHOICES[kind], ("Ours says why.", "", "So."), strict=False
        )
    ]
    write_jsonl([v.to_json() for v in given], tmp_path / "given.jsonl")
    flags = [*references(tmp_path), "--form", "judge_rows", "--kind", kind]
    flags += ["--out", str(tmp_path / "rows.jsonl"), "--verdicts", str(tmp_path / "given.jsonl")]
    main(["export", *flags])
    rows = read_examples(str(tmp_path / "rows.jsonl"))
    wording = load_wording(kind)
    assert [row.turns[0] for row in rows] == [wording.prompt(item) for item in items[: len(given)]]
    assert [read_judgement(wording, row.turns[1]) for row in rows] == [
        (verdict.verdict, verdict.explanation) for verdict in given
    ]
    for other in {*CHOICES} - {kind}:
        with pytest.raises(UserError, match="no verdict in --verdicts is about these questions"):
            main(["export", *flags, "--kind", other])


def test_rows_for_a_judge_are_balanced_by_outcome(tmp_path: Path) -> None:
    models = {
        name: [Reply(f"p{n}", (f"Why {n}?",), name, 0, 0, f"{name} {n}", True) for n in range(20)]
        for name in ("ours", "theirs")
    }
    items = design_items("pairwise", models, orders="seeded")
    outcomes = ["ours"] * 14 + ["theirs"] * 4 + ["neither"] * 2
    given = []
    for item, outcome in zip(items, outcomes, strict=True):
        shown = [item.models[place] for place in item.order]
        choice = "AB"[shown.index(outcome)] if outcome in shown else outcome
        given.append(record_verdict(item, Annotator("anna"), choice, explanation=outcome))
    found = [write_judge_rows(items, given, balanced=True, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    for rows in found:
        said = Counter(row.turns[1].split("\n")[0] for row in rows)
        assert said == {"ours": 2, "theirs": 2, "neither": 2}


def test_pairwise_and_rating_tags_of_label_studio_are_read(
    models: dict[str, list[Reply]], tmp_path: Path
) -> None:
    refs, tasks, back = references(tmp_path), tmp_path / "t.json", tmp_path / "b.jsonl"
    for kind, value, verdict in (
        ("pairwise", {"type": "pairwise", "value": {"selected": "right"}}, "B"),
        ("grade", {"type": "rating", "value": {"rating": 5}}, 5),
    ):
        flags = ["--form", "label_studio", "--kind", kind]
        main(["export", *refs, *flags, "--out", str(tasks)])
        rows = json.loads(tasks.read_text())
        rows[0]["annotations"] = [
            {"completed_by": 7, "result": [value, {"type": "textarea", "value": {"text": "so"}}]},
            {"completed_by": 8, "result": [], "was_cancelled": True},
        ]
        tasks.write_text(json.dumps(rows))
        main(["collect", str(tasks), *refs, *flags, "--out", str(back)])
        (found,) = read_verdicts(back)
        assert (found.verdict, found.annotator) == (verdict, "user 7")
        assert found.explanation == "so"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "zz"}, r"\[0\] is about 'zz', no question on these replies"),
        ({"responses": {"verdict": [{"value": "C", "user_id": "u"}]}}, "'C' is no verdict"),
        ({"responses": {"verdict": [{"value": "A"}]}}, "is no record of Argilla: KeyError"),
        ({"responses": 3}, "is no record of Argilla"),
    ],
)
def test_records_of_something_else_are_refused(
    models: dict[str, list[Reply]], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    refs, tasks = references(tmp_path), tmp_path / "t.json"
    flags = ["--form", "argilla", "--out"]
    main(["export", *refs, *flags, str(tasks)])
    answered = {"responses": {"verdict": [{"value": "A", "user_id": "u"}]}}
    rows = [row | answered | change for row in json.loads(tasks.read_text())]
    tasks.write_text(json.dumps(rows))
    with pytest.raises(UserError, match=message):
        main(["collect", str(tasks), *refs, *flags, str(tmp_path / "b.jsonl")])
    tasks.write_text("{}")
    with pytest.raises(UserError, match="holds no list"):
        main(["collect", str(tasks), *refs, *flags, str(tmp_path / "b.jsonl")])


def test_cells_of_a_table_are_no_formulas(models: dict[str, list[Reply]], tmp_path: Path) -> None:
    item = design_items("grade", models)[0]
    said = '=HYPERLINK("http://x")'
    rows = [record_verdict(item, Annotator(n), 4, explanation=said) for n in ("@anna", "+ben")]
    write_jsonl([row.to_json() for row in rows], tmp_path / "v.jsonl")
    main(["table", str(tmp_path / "v.jsonl"), "--out", str(tmp_path / "v.csv")])
    with (tmp_path / "v.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["annotator"] for row in found] == ["'@anna", "'+ben"]
    assert found[0]["explanation"] == f"'{said}" and found[0]["grade"] == "4"
    assert neutralise(-4) == -4 and neutralise("-4") == "'-4" and neutralise("4-") == "4-"
    assert neutralise("\xa0=1") == "'\xa0=1" and neutralise("＝1") == "'＝1"


def test_what_holds_no_verdict_says_so(
    models: dict[str, list[Reply]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "v.jsonl"
    file.touch()
    with pytest.raises(UserError, match=r"there is no verdict in .*v\.jsonl"):
        main(["summary", str(file)])
    items = design_items("pairwise", models) + design_items("grade", models)
    lost = [record_verdict(one, Annotator("anna"), None, status="unanswered") for one in items]
    write_jsonl([row.to_json() for row in lost], file)
    main(["summary", str(file)])
    said = capsys.readouterr().out
    assert " nan" not in said and "win - % (0.0 to 100.0 with all not read)" in said


def test_votes_of_the_chat_page_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(url := f"sqlite:///{tmp_path}/chat.sqlite")
    sides = [Turn("assistant", "Paris.", model="a"), Turn("assistant", "Rome.", model="b")]
    votes = [
        verdict_on(
            sides,
            [Turn("user", "Capital?" if number else "Again?")],
            "",
            kind="pairwise",
            annotator="anna",
            verdict=vote,
            order=order,
            key=f"vote-{number}",
        )
        for number, (vote, order) in enumerate([("A", (0, 1)), ("B", (1, 0)), ("neither", (0, 1))])
    ]
    # The same is asked and voted on once more.
    for vote in (*votes, replace(votes[-1], key="vote-9")):
        store.judge("anna", vote)
    store.close()
    write_votes(tmp_path / "votes.jsonl", url)
    main(["summary", str(tmp_path / "votes.jsonl"), str(tmp_path / "votes.jsonl")])
    said = capsys.readouterr().out
    assert "anna: 4 verdicts" in said and "a against b: win 50.0 [" in said
    assert "tie 50.0" in said and "lose 0.0" in said


def test_an_answer_that_was_changed_counts_once(
    models: dict[str, list[Reply]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    item = design_items("audit", models)[0]
    rows = [record_verdict(item, Annotator("anna"), c).to_json() for c in ("fail", "pass", "pass")]
    write_jsonl(rows, tmp_path / "v.jsonl")
    main(["summary", str(tmp_path / "v.jsonl")])
    assert "anna: 1 verdict\n  ours: excellent 0.0 %, pass 100.0 %" in capsys.readouterr().out
    with pytest.raises(UserError, match="no verdicts at"):
        main(["summary", str(tmp_path / "nothing.jsonl")])


def test_verdicts_of_earlier_versions_are_summarised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Verdict(f"p{n}", "grade", "old", g, models=("m",), grade=g, sample=0, turn=0).to_json()
        for n, g in enumerate([4, 5, 6])
    ]
    rows.append({"id": "p9", "kind": "grade", "annotator": "old", "verdict": "invalid"})
    rows[-1] |= {"models": ["m"], "explanation": "no answer: 500"}
    write_jsonl(rows, tmp_path / "v.jsonl")
    main(["summary", str(tmp_path / "v.jsonl")])
    said = capsys.readouterr().out
    assert "m: grade 5.00 [" in said and "4.00 to 5.25 with all that were not read" in said
    assert "m: 0 unreadable and 1 unanswered of 4 verdicts" in said
