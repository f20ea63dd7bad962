"""Tasks of Super-NaturalInstructions: which are taken, and which of their examples."""

import json
from pathlib import Path
from typing import Any

import pytest
from curation_runs import SourceRun

from lima_ray.config.errors import UserError


def task(count: int, outputs: int, **more: Any) -> dict[str, Any]:
    instances = [
        {"id": f"i{n}", "input": f" Text {n} ", "output": [f"Answer {n % outputs}", "other"]}
        for n in range(count)
    ]
    facts = {"Definition": [" Shorten the text. "], "Categories": ["Summarization"]}
    facts |= {"Input_language": ["English"], "Output_language": ["English"]}
    facts |= {"Contributors": ["Ann", "Bob"], "Instance License": ["CC BY 4.0"]}
    return facts | {"Instances": instances} | more


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def run(folder: Path, **section: Any) -> SourceRun:
    done = SourceRun(folder, kind="natural_instructions", path=".", **section)
    done.check_funnel()
    return done


def test_an_example_is_definition_and_input_with_the_first_output(tmp_path: Path) -> None:
    write(tmp_path / "d" / "task1_short.json", task(1, 1))
    (candidate,) = run(tmp_path / "d", generation_only=False).candidates
    assert candidate.turns == ("Shorten the text.\n\nText 0", "Answer 0")
    assert (candidate.id, candidate.group) == ("task1_short/i0", "task1_short")
    assert (candidate.source, candidate.licence) == ("nlp", "CC BY 4.0")
    assert candidate.authors == ("Ann", "Bob")


def test_split_files_are_one_task(tmp_path: Path) -> None:
    write(tmp_path / "d" / "task2" / "train.json", task(10, 10))
    write(tmp_path / "d" / "task2" / "dev.json", task(10, 10))
    done = run(tmp_path / "d", examples_per_task=20)
    assert len({c.id for c in done.candidates}) == done.funnel.seen == 20
    assert {c.group for c in done.candidates} == {"task2"}


def test_labels_and_other_languages_are_left_out(tmp_path: Path) -> None:
    tasks = {
        "sentiment": task(20, 20, Categories="Basic Sentiment Analysis"),
        "few": task(100, 10),
        "hindi": task(20, 20, Output_language=["Hindi"]),
        "old": task(20, 20, Definition="As a text.", Categories=[]),
        "empty": task(20, 20, Definition=[]),
    }
    for name, content in tasks.items():
        write(tmp_path / "d" / f"{name}.json", content)
    done = run(tmp_path / "d")
    assert {c.group for c in done.candidates} == {"old"}
    assert {id.split("/")[0]: reason for id, reason in done.dropped.items()} == {
        "sentiment": "classification",
        "few": "few_outputs",
        "hindi": "language",
        "empty": "empty",
    }
    open_to_all = run(tmp_path / "d", generation_only=False, english_only=False)
    assert {c.group for c in open_to_all.candidates} == {"sentiment", "few", "hindi", "old"}


def test_examples_are_drawn_by_the_seed(tmp_path: Path) -> None:
    write(tmp_path / "d" / "t.json", task(60, 60))
    draws = [
        [c.id for c in run(tmp_path / "d", seed=seed, examples_per_task=5).candidates]
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2] and len(draws[0]) == 5
    assert len(run(tmp_path / "d", examples_per_task=50).candidates) == 50


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    rows = task(20, 20, Contributors=["Ann", "\ud83d"])
    rows["Instances"][0] |= {"id": "\ud83d"}
    rows["Instances"][1] |= {"input": "Text \ud83d"}
    rows["Instances"][2] |= {"output": ["\ude00", "Answer"]}
    write(tmp_path / "d" / "t.json", rows)
    done = run(tmp_path / "d")
    assert done.dropped == {"t/i1": "empty"}
    assert {c.authors for c in done.candidates} == {("Ann",)}
    assert [c.turns[1] for c in done.candidates if c.id == "t/i2"] == ["Answer"]


def test_empty_and_long_examples_are_dropped(tmp_path: Path) -> None:
    content = task(30, 30)
    content["Instances"][0]["input"] = " "
    content["Instances"][1]["output"] = []
    content["Instances"][2]["input"] = "x" * 700
    write(tmp_path / "d" / "t.json", content)
    dropped = run(tmp_path / "d", max_chars=600, examples_per_task=30).dropped
    assert dropped == {"t/i0": "empty", "t/i1": "empty", "t/i2": "length"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"Instances": [{"id": ', "it is cut off"),
        (b"[]", "is no task: it needs an object with a list `Instances`"),
        (b'{"Definition": ["x"]}', "is no task"),
        (b'{"Instances": "\xff"}', "is not UTF-8"),
    ],
)
def test_a_damaged_task_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    write(tmp_path / "d" / "good.json", task(20, 20))
    (tmp_path / "d" / "bad.json").write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        run(tmp_path / "d")
    assert "bad.json" in str(error.value)
    assert len(run(tmp_path / "d", damaged="keep").candidates) == 20
