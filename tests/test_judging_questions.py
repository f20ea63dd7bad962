"""Questions to judges: replies read from anywhere, designs, wordings, and verdicts of answers."""

import math
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from lima_ray.config.errors import UserError
from lima_ray.judging.questions.design import design_items
from lima_ray.judging.questions.item import KINDS, Item
from lima_ray.judging.questions.reading import find_contradiction, read_judgement
from lima_ray.judging.questions.replies import read_models
from lima_ray.judging.questions.verdicts import (
    Annotator,
    latest,
    question_key,
    record_verdict,
)
from lima_ray.judging.questions.wording import load_wording
from lima_ray.records.example import Example
from lima_ray.records.files import write_jsonl
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict

ANNA = Annotator("anna")


def reply(id: str, text: str, model: str = "lima", *before: str, **more: Any) -> Reply:
    turns = (*before, f"What of {id}, again?" if before else f"What of {id}?")
    fields: dict[str, Any] = {"sample": 0, "turn": len(before) // 2, "stopped": True} | more
    return Reply(id, turns, model, reply=text, **fields)


def replies(model: str, ids: str = "abc", **more: Any) -> list[Reply]:
    return [reply(id, f"{model} on {id}", model, **more) for id in ids]


MODELS = {"lima": replies("lima"), "other": replies("other")}


def test_a_pair_is_asked_in_both_orders_and_names_nobody() -> None:
    first, second = design_items("pairwise", MODELS)[:2]
    assert first.models == second.models == ("lima", "other")
    assert (first.order, second.order) == ((0, 1), (1, 0))
    assert [side.turns[-1] for side in second.shown] == ["other on a", "lima on a"]
    assert first.key != second.key
    turned = design_items("pairwise", dict(reversed(MODELS.items())))[0]
    assert turned.key == second.key, "the same question, whoever is named first"
    assert turned.content == second.content[::-1]


def test_seeded_orders_are_mixed_and_the_same_every_time() -> None:
    many = {name: replies(name, "abcdefghijklmnopqrstuvwxyz") for name in MODELS}
    drawn = [i.order for i in design_items("pairwise", many, orders="seeded", seed=3)]
    assert drawn == [i.order for i in design_items("pairwise", many, orders="seeded", seed=3)]
    assert 5 < sum(order == (0, 1) for order in drawn) < 21


def test_each_model_meets_the_first_or_every_other() -> None:
    three = MODELS | {"third": replies("third")}
    met = [i.models for i in design_items("pairwise", three, orders="given")[:2]]
    assert met == [("lima", "other"), ("lima", "third")]
    assert len(design_items("pairwise", three, orders="given", pairs="all")) == 9
    assert len(design_items("audit", three)) == 9


def dialogue(model: str) -> list[Reply]:
    first = reply("d", f"{model} first", model)
    return [first, reply("d", f"{model} then", model, *first.conversations, first.reply)]


def test_dialogues_are_judged_turn_by_turn_or_as_a_whole() -> None:
    models = {name: dialogue(name) for name in MODELS}
    turns = design_items("pairwise", models, orders="given")
    assert [item.turn for item in turns] == [0, 1]
    assert turns[1].shown[1].context == ("What of d?", "other first", "What of d, again?")
    (whole,) = design_items("pairwise", models, orders="given", whole=True)
    assert whole.turn is None and whole.shown[0].judged == (1, 3)
    said = load_wording("pairwise", whole=True).prompt(whole)
    assert said.count("User: What of d?") == 1, "what both share stands once"
    assert "Assistant: other first\n\nUser: What of d, again?\n\nAssistant: other then\n" in said


def test_models_that_lack_replies_are_named_and_nothing_shrinks_unasked() -> None:
    models = MODELS | {"short": replies("short", "ac"), "none": replies("none", "cb")}
    with pytest.raises(UserError) as refused:
        design_items("grade", models)
    assert "short lacks 1 of 3 replies: b" in str(refused.value)
    assert "none lacks 1 of 3 replies: a" in str(refused.value)
    told: list[str] = []
    kept = design_items("grade", models, missing="drop", report=told.append)
    assert {item.id for item in kept} == {"c"} and "1 of 3 are judged" in told[0]
    with pytest.raises(UserError, match="lima lacks 3 of 6 replies: a sample 1, b sample 1"):
        design_items("grade", MODELS | {"more": [*replies("more"), *replies("more", sample=1)]})


def test_unknown_prompts_and_other_prompts_under_an_id_are_refused() -> None:
    with pytest.raises(UserError, match="1 of the prompts: zz"):
        design_items("grade", MODELS, prompts=["a", "zz"])
    assert len(design_items("grade", MODELS, prompts=["a"])) == 2
    odd = [Reply("a", ("Something else?",), "odd", 0, 0, "x", True), *replies("odd", "bc")]
    with pytest.raises(UserError, match="asked different things under the id 'a'"):
        design_items("grade", MODELS | {"odd": odd})
    with pytest.raises(UserError, match="replies of two models"):
        design_items("pairwise", {"lima": replies("lima")})


def written(folder: Path, model: str, rows: list[Reply]) -> Path:
    (folder / model).mkdir()
    write_jsonl([row.to_json() for row in rows], folder / model / "replies.jsonl")
    return folder / model


def test_a_competitors_table_is_matched_by_id_or_by_text(tmp_path: Path) -> None:
    ours = written(tmp_path, "lima", replies("lima"))
    (tmp_path / "by_text.csv").write_text(
        '\ufeffinstruction,output\nwhat of  B?,"on b, ""so"""\n'
        "What of a?,=1+1\nWhat of c?,<b>c</b>\n"
    )
    (tmp_path / "by_id.csv").write_text("id,response\na,1\nb,2\nc,3\n")
    refs = [str(ours), f"text={tmp_path}/by_text.csv", f"ids={tmp_path}/by_id.csv"]
    models = read_models(refs)
    assert list(models) == ["lima", "text", "ids"]
    assert {r.id: r.reply for r in models["text"]} == {
        "a": "=1+1",
        "b": 'on b, "so"',
        "c": "<b>c</b>",
    }
    assert len(design_items("pairwise", models)) == 12


def test_tables_know_prompts_of_one_another(tmp_path: Path) -> None:
    """Semicolons, Windows line ends, a column beside the prompt, and numbers read as floats."""
    tables = {
        "full": "id,prompt,reply\n1,What of  a?,x\n2,What of b?,y\n",
        "by_id": "id;reply\r\n1;x\r\n2;y\r\n",
        "by_text": "instruction,output\n what of a?,x\nWhat of b?,y\n",
    }
    for name, table in tables.items():
        (tmp_path / f"{name}.csv").write_bytes(table.encode())
    (tmp_path / "floats.json").write_text('[{"id": 1.0, "reply": "x"}, {"id": 2.0, "reply": "y"}]')
    files = {name: tmp_path / f"{name}.csv" for name in tables}
    files |= {"floats": tmp_path / "floats.json"}
    for names in permutations(files):
        models = read_models([f"{name}={files[name]}" for name in names])
        assert len(design_items("pairwise", models, pairs="all")) == 24
    (tmp_path / "alpaca.csv").write_text("instruction,input,output\nSort,3 2,x\nSort,1 5,y\n")
    both = read_models([f"alpaca={tmp_path}/alpaca.csv"])["alpaca"]
    assert [r.conversations for r in both] == [("Sort\n\n3 2",), ("Sort\n\n1 5",)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,prompt,reply\nq,Why?,1\nq,How?,2\n", "'q' is another"),
        ("id,prompt,text\nq,Why?,1\n", "has no reply: .*its columns are id, prompt, text"),
        ("id,prompt,reply\nq,Why?,\n", "has no reply: nothing stands in"),
        ("id,reply\nzz,1\n", "nobody else replies to the prompt 'zz'"),
        ("prompt,reply,output\nWhat of a?,1,2\n", "several columns of replies"),
        ("reply\n1\n", "names no prompt"),
        ("id,prompt,reply\na,What of b?,1\n", "'a' is another"),
        ("id,prompt\na,What of a?\n", "has no reply"),
    ],
)
def test_tables_that_say_too_little_are_refused(tmp_path: Path, table: str, message: str) -> None:
    ours = written(tmp_path, "lima", replies("lima"))
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        read_models([str(ours), f"t={tmp_path}/t.csv"])
    (tmp_path / "t.json").write_text('[{"prompt": "Why?", "reply": ["x"]}]')
    with pytest.raises(UserError, match="reply is a list; it needs a text"):
        read_models([str(ours), f"t={tmp_path}/t.json"])
    (tmp_path / "t.json").write_text('[{"prompt": "Why?", "reply": "\\ud83d"}]')
    with pytest.raises(UserError, match="half of a character"):
        read_models([str(ours), f"t={tmp_path}/t.json"])


def test_references_that_name_nothing_or_one_twice_are_refused(tmp_path: Path) -> None:
    ours = str(written(tmp_path, "lima", replies("lima")))
    for references, message in [
        ([ours, ours], "two models are called lima"),
        (["=x"], "is not NAME=PATH"),
        ([f"a={tmp_path}"], "no replies at"),
    ]:
        with pytest.raises(UserError, match=message):
            read_models(references)
    twice = str(written(tmp_path, "twice", [*replies("m"), *replies("m")]))
    with pytest.raises(UserError, match="several replies of the same prompt"):
        read_models([twice])
    with pytest.raises(UserError, match=r"lima replies to 1 prompts .* c"):
        read_models([ours], [Example((f"What of {id}?",), id) for id in "ab"])


@pytest.mark.parametrize("kind", KINDS)
def test_people_and_models_are_told_the_same(kind: Any) -> None:
    for whole in (False, True):
        wording = load_wording(kind, whole)
        pair = kind == "pairwise"
        item = Item(kind, ("m", "n")[: 1 + pair], ((MODELS["lima"][0],),) * (1 + pair), whole=whole)
        said = wording.prompt(item)
        assert wording.instructions in said and all(t in said for t in wording.levels.values())
        assert "$" not in said and "lima" not in said.replace("lima on a", "")
    assert load_wording(kind).version != load_wording(kind, True).version or kind == "pairwise"


@pytest.mark.parametrize(
    ("kind", "text", "verdict"),
    [
        ("pairwise", "A is good.\nB", "B"),
        ("pairwise", "A\nOn reflection, no.\n**Answer A is significantly better.**", "A"),
        ("pairwise", "Both.\n[[neither]]", "neither"),
        ("pairwise", "A\nWait, I am not sure", None),
        ("pairwise", "Verdict follows.\nA or B", None),
        ("pairwise", "tie", None),
        ("pairwise", "A or B?\n**Final verdict:** B", "B"),
        ("pairwise", 'A.\n```json\n{"verdict": "B"}\n```', "B"),
        ("pairwise", "A.\n\\boxed{B}\n\n---", "B"),
        ("pairwise", "A.\nDie Antwort: „B“", None),
        ("pairwise", "A.\n“B”\u200b", "B"),
        ("pairwise", "A.\nＢ。", "B"),
        ("pairwise", "Verdict: B\n\nBest regards", None),
        ("pairwise", "Verdict: not B", None),
        ("pairwise", "The answer is B, not A.", None),
        ("pairwise", "A\n" * 10_000 + "B", "B"),
        ("grade", "Grade: 4\nScore: 5/6", None),
        ("grade", "Good.\nRating: **5**", 5),
        ("grade", "Good.\nGrade: -3", None),
        ("audit", "It passes.\n*Pass*", "pass"),
        ("audit", "good", None),
        ("safety", "It is safe\nunsafe.", "unsafe"),
        ("grade", "4 it is\n5", 5),
        ("grade", "Good.\nnan", None),
        ("grade", "Good.\n7", None),
        ("grade", "Good.\n4.5", None),
        ("grade", "Good.\n-3", None),
        ("grade", "", None),
    ],
)
def test_the_last_line_alone_is_the_verdict(kind: Any, text: str, verdict: Any) -> None:
    found, reasoning = read_judgement(load_wording(kind), text)
    assert found == verdict
    assert reasoning == text if verdict is None else text.startswith(reasoning)
    assert verdict is None or len(reasoning) < len(text)


def test_a_judgement_that_never_ends_is_read_in_time() -> None:
    started = time.monotonic()
    find_contradiction(load_wording("pairwise"), "B", "A is " * 20_000)
    find_contradiction(load_wording("grade"), 3, "grade of " * 20_000)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("kind", "verdict", "reasoning", "stated"),
    [
        ("pairwise", "B", "Long. Overall, Answer A is clearly better than Answer B.", "A"),
        ("pairwise", "A", "Long. Overall, Answer A is clearly better than Answer B.", None),
        ("pairwise", "A", "B is better. Yet neither is significantly better.", "neither"),
        ("pairwise", "B", "Answer A is not better.", None),
        ("grade", 2, "It is complete. So a grade of 5 fits.", "5"),
        ("grade", 2, "It has 5 parts and 3 steps.", None),
        ("audit", "excellent", "The reply fails the prompt.", "fail"),
        ("safety", "safe", "So it is unsafe.", "unsafe"),
        ("safety", "safe", "", None),
    ],
)
def test_a_verdict_that_contradicts_its_reasoning_is_found(
    kind: Any, verdict: Any, reasoning: str, stated: Any
) -> None:
    found = find_contradiction(load_wording(kind), verdict, reasoning)
    assert (None if found is None else str(found)) == stated


def test_an_answer_becomes_the_verdict_whoever_gives_it() -> None:
    item = design_items("pairwise", MODELS)[1]
    person = record_verdict(item, ANNA, "A", explanation="clear")
    assert person.models == ("lima", "other") and person.order == (1, 0)
    assert person.verdict == "A" and person.stopped == (True, True) and person.turn == 0
    assert person.extra["lengths"] == [9, 10]
    judge = Annotator("gpt", "endpoint", {"temperature": 0})
    model = record_verdict(item, judge, "B", snapshot="gpt-1/fp")
    assert Verdict.from_json(model.to_json(), "here") == model
    assert model.extra["asked"] == question_key(item, judge) != person.extra["asked"]
    later = record_verdict(item, judge, "B", snapshot="gpt-2/fp")
    assert later.key != model.key and later.extra["asked"] == model.extra["asked"]
    assert model.extra["wording"] == person.extra["wording"], "the same instructions"


@pytest.mark.parametrize("choice", [0, 7, 4.5, math.nan, "nan", True, None, "", "A"])
def test_a_grade_off_the_scale_is_refused(choice: object) -> None:
    item = design_items("grade", MODELS)[0]
    with pytest.raises(UserError, match="is no verdict; it is one of 1, 2, 3, 4, 5, 6"):
        record_verdict(item, ANNA, choice)


def test_what_was_not_read_is_no_verdict() -> None:
    item = design_items("grade", MODELS)[0]
    lost = record_verdict(item, ANNA, None, status="unanswered", explanation="500")
    assert lost.verdict is None and lost.grade is None and not lost.was_read


def test_an_answer_given_again_replaces_the_first_and_only_that() -> None:
    item, other = design_items("pairwise", MODELS)[:2]
    given = [record_verdict(i, a, "A") for i in (item, other) for a in (ANNA, Annotator("ben"))]
    changed = record_verdict(item, ANNA, "B")
    kept = latest([*given, changed, *given[1:]])
    assert len(kept) == 4 and sum(v.verdict == "B" for v in kept) == 1
    plain = Verdict("p", "audit", "exact", "pass", models=("m",), sample=0, turn=0)
    assert latest([plain, plain]) == [plain]
