"""Rows in every form become Examples; a wrong row is named with what is wrong in it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hub import TOKEN, Hub, serving
from pyarrow import parquet

from lima_ray.config.errors import UserError
from lima_ray.data.examples import normalise_prompt, read_examples, write_examples
from lima_ray.records.example import Example

LIMA = {"conversations": ["Hi?", "Hello.", "Why?", "Because."], "source": "wikihow", "id": "w1"}
OPENAI = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi?"},
        {"role": "assistant", "content": "Hello."},
    ]
}
SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hi?"},
        {"from": "gpt", "value": "Hello."},
    ],
    "id": 7,
}
ALPACA = {
    "instruction": "Why?",
    "input": "It is green.",
    "output": "Because.",
    "history": [["Hi?", "Hello."]],
    "system": "Be brief.",
}
HI = (("Hi?", "Hello."), "Be brief.")
BRIEF = OPENAI["messages"]
SHOUTED = [{"role": "USER", "content": "Hi?"}, {"role": " Assistant", "content": "Hello."}]


def parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text[:1]}, {"type": "text", "text": text[1:]}]


FORMS: list[tuple[dict[str, Any], tuple[str, ...], str | None]] = [
    (LIMA, ("Hi?", "Hello.", "Why?", "Because."), None),
    (LIMA | {"system": "Be brief."}, ("Hi?", "Hello.", "Why?", "Because."), "Be brief."),
    (OPENAI, ("Hi?", "Hello."), "Be brief."),
    ({"messages": OPENAI["messages"][1:]}, ("Hi?", "Hello."), None),
    ({"messages": OPENAI["messages"][1:], "system": "Be kind."}, ("Hi?", "Hello."), "Be kind."),
    (SHAREGPT, ("Hi?", "Hello."), "Be brief."),
    (ALPACA, ("Hi?", "Hello.", "Why?\n\nIt is green.", "Because."), "Be brief."),
    ({"instruction": "Hi?", "input": "", "output": "Hello."}, ("Hi?", "Hello."), None),
    ({"instruction": "Hi?", "output": "Hello.", "history": None}, ("Hi?", "Hello."), None),
    ({"instruction": "Hi?", "context": "It.", "response": "Hm."}, ("Hi?\n\nIt.", "Hm."), None),
    ({"prompt": "Hi?", "response": " Hello."}, ("Hi?", " Hello."), None),
    # OpenAI's old form parts prompt and completion by a space.
    ({"prompt": "Hi?", "completion": " Hello."}, ("Hi?", "Hello."), None),
    ({"prompt": OPENAI["messages"][:2], "completion": OPENAI["messages"][2:]}, *HI),
    ({"messages": [{"role": "Developer", "content": "Be brief."}, *SHOUTED]}, *HI),
    ({"messages": [{"role": m["role"], "content": parts(m["content"])} for m in BRIEF]}, *HI),
    ({"messages": BRIEF[1:], "system_prompt": "Be brief."}, *HI),
    ({"messages": [m | {"tool_calls": [], "refusal": None, "weight": 1} for m in BRIEF]}, *HI),
]


def save(path: Path, *rows: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{', '.join(lines)}]")
    return str(path)


def complaint(path: Path | str, split: str = "train") -> str:
    """What `read` says about data it refuses."""
    with pytest.raises(UserError) as error:
        read_examples(str(path), split)
    return str(error.value)


def row_complaint(tmp_path: Path, row: object) -> str:
    """What `read` says about the second row of a file."""
    text = complaint(save(tmp_path / "rows.jsonl", LIMA, row))
    assert text.startswith("1 of 2 rows are not usable; mend or remove them:\n")
    where, said = text.splitlines()[1].split("rows.jsonl:2 ")
    assert where.strip() == f"{tmp_path}/"
    return said


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(("row", "turns", "system"), FORMS)
def test_every_form_is_read(
    row: dict[str, Any], turns: tuple[str, ...], system: str | None, suffix: str, tmp_path: Path
) -> None:
    (found,) = read_examples(save(tmp_path / f"rows{suffix}", row))
    assert (found.turns, found.system) == (turns, system)
    assert not found.extra


def test_forms_mix_in_one_file(tmp_path: Path) -> None:
    found = read_examples(save(tmp_path / "rows.jsonl", *(row for row, _, _ in FORMS)))
    assert [e.turns for e in found] == [turns for _, turns, _ in FORMS]


def test_messages_of_an_example() -> None:
    said = Example(("a", "b", "c"), "x", system="s").messages()
    assert [m["role"] for m in said] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in said] == ["s", "a", "b", "c"]


@pytest.mark.parametrize("name", ["weight", "train", "loss"])
def test_turns_that_are_not_learned_are_marked_in_the_forms(tmp_path: Path, name: str) -> None:
    said = [
        ("user", {}),
        ("assistant", {name: 0}),
        ("user", {name: None}),
        ("assistant", {name: 1}),
    ]
    messages = [{"role": role, "content": "Hm."} | told for role, told in said]
    path = tmp_path / "found.jsonl"
    (found,) = read_examples(save(path, {"messages": messages}))
    assert found.learned == (True, False, True, True)
    write_examples([found], path)
    assert json.loads(path.read_text())["weights"] == [1, 0, 1, 1]
    (again,) = read_examples(str(path))
    assert again.extra == {}
    assert dataclasses.replace(again, id=found.id) == found
    wrong = {"messages": [messages[0], messages[1] | {name: 0.5}]}
    assert row_complaint(tmp_path, wrong).startswith(f"message 2 {name} is 0.5; a turn is learned")
    assert "has no reply that is learned" in row_complaint(tmp_path, {"messages": messages[:2]})
    (found,) = read_examples(save(path, {"messages": [m | {name: True} for m in messages]}))
    assert (found.learned, found.extra) == ((), {})


@pytest.mark.parametrize("weights", [[0], [1, 2], "01", {"a": 1}, 1])
def test_weights_that_do_not_fit_the_turns(tmp_path: Path, weights: object) -> None:
    row = {"conversations": ["Hi?", "Hello."], "weights": weights}
    assert row_complaint(tmp_path, row).startswith("weights is ")


@pytest.mark.parametrize(
    "lost",
    [
        {"tool_calls": [{"id": "c1"}]},
        {"function_call": {"name": "depth", "arguments": "{}"}},
        {"reasoning_content": "two and two"},
        {"thinking": "two and two"},
        {"images": ["a.png"]},
        {"prefix": True},
    ],
)
def test_what_a_dialogue_of_texts_cannot_hold_is_refused(
    tmp_path: Path, lost: dict[str, object]
) -> None:
    (name,) = lost
    row = {"messages": [BRIEF[1], BRIEF[2] | lost]}
    assert row_complaint(tmp_path, row).startswith(f"message 2 has {name}, ")


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (LIMA | {"system": "s\ud83d"}, "system: '\\ud83d'"),
        (LIMA | {"id": "\udc00"}, "id: '\\udc00'"),
        (LIMA | {"note": {"a": ["b", "\udfff"]}}, "note.a[1]: '\\udfff'"),
        (LIMA | {"k\ud800": 1}, "a key: '\\ud800'"),
        (ALPACA | {"input": "\ud83d"}, "input: '\\ud83d'"),
        ({"k\ud800": 1}, "a key: '\\ud800'"),
    ],
)
def test_half_a_character_is_found_anywhere_in_a_row(
    tmp_path: Path, row: dict[str, Any], path: str
) -> None:
    assert row_complaint(tmp_path, row).rstrip() == f"has half of a character in {path}"


@pytest.mark.parametrize("name", ["bot", "model", "gpt", "assistant"])
def test_names_of_the_assistant(tmp_path: Path, name: str) -> None:
    turns = [{"from": "prompter", "value": "Hi?"}, {"from": name, "value": "Hello."}]
    (found,) = read_examples(save(tmp_path / "rows.jsonl", {"conversations": turns}))
    assert found.turns == ("Hi?", "Hello.")


def test_ids_are_the_rows_own_or_say_where_it_stands(tmp_path: Path) -> None:
    lines = save(tmp_path / "rows.jsonl", LIMA, OPENAI, SHAREGPT, OPENAI | {"id": 0})
    assert [e.id for e in read_examples(lines)] == ["w1", "rows.jsonl:2", "7", "0"]
    array = save(tmp_path / "rows.json", LIMA, OPENAI)
    assert [e.id for e in read_examples(array)] == ["w1", "rows.json[1]"]
    assert [e.source for e in read_examples(array)] == ["wikihow", ""]


def test_written_rows_are_read_as_they_were(tmp_path: Path) -> None:
    odd = ["\u2028 line\nand\ttab", 'né "quoted" 🦙 \\', " spaces ", "<s></s>"]
    rows = [row for row, _, _ in FORMS] + [{"conversations": odd}]
    extra = {"score": [1, {"né": None}], "split": "ü"}
    before = read_examples(save(tmp_path / "rows.jsonl", *(row | extra for row in rows)))
    assert all(e.extra == extra for e in before)
    write_examples(before, tmp_path / "deep/er/out.jsonl")
    assert read_examples(str(tmp_path / "deep/er/out.jsonl")) == before


def test_written_rows_have_limas_form(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_examples(read_examples(save(tmp_path / "rows.jsonl", LIMA, ALPACA | {"text": "é"})), path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == LIMA
    assert json.loads(lines[1]) == {
        "conversations": ["Hi?", "Hello.", "Why?\n\nIt is green.", "Because."],
        "source": "",
        "id": "rows.jsonl:2",
        "system": "Be brief.",
        "text": "é",
    }
    assert "é" in lines[1]


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (["a"], "has 1 turn; a dialogue ends with the assistant, so it needs an even number"),
        (["a", "b", "c"], "has 3 turns; a dialogue ends with the assistant, so it needs "),
        ([], "has no turns"),
        (["a", ""], "turn 2 is empty"),
        (["a", " \n\t"], "turn 2 is empty"),
        (["a", None], "turn 2 is a NoneType (None); turns are strings"),
        ([5, "b"], "turn 1 is a int (5); turns are strings"),
        (["a", {"value": "b"}], "turn 2 is a dict "),
        (["a", "b \ud83d"], "has half of a character in conversations[1]: '\\ud83d'"),
        ("a, b", "conversations is a str; it needs a list"),
        (None, "conversations is a NoneType; it needs a list"),
    ],
)
def test_wrong_turns_are_named(tmp_path: Path, turns: object, expected: str) -> None:
    assert row_complaint(tmp_path, {"conversations": turns}).startswith(expected)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["user", "narrator"], "message 2 has the role 'narrator'; roles are user, assistant and"),
        (["user", None], "message 2 has the role None"),
        (["user", ["assistant"]], "message 2 has the role ['assistant']"),
        (["assistant", "user"], "message 1 is the assistant's; turns alternate and the user's"),
        (["user", "user"], "message 2 is the user's; turns alternate"),
        (["user", "assistant", "assistant"], "message 3 is the assistant's; turns alternate"),
        (["user", "system", "assistant"], "message 2 is a system message; it comes first"),
        (["system"], "has no turns"),
        (["system", "user"], "has 1 turn; a dialogue ends with the assistant"),
    ],
)
@pytest.mark.parametrize(
    "keys", [("messages", "role", "content"), ("conversations", "from", "value")]
)
def test_wrong_roles_are_named(
    tmp_path: Path, keys: tuple[str, str, str], roles: list[object], expected: str
) -> None:
    form, role, content = keys
    row = {form: [{role: name, content: "words"} for name in roles]}
    assert row_complaint(tmp_path, row).startswith(expected)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (["a", "b"], "is a JSON list; a row is an object"),
        ("a", "is a JSON str; a row is an object"),
        (None, "is a JSON NoneType; a row is an object"),
        ({}, "has the keys none; a row has conversations, messages, instruction (with"),
        (
            {"conversation": []},
            "has the keys conversation; a row has conversations, messages, instruction (with "
            "output) or prompt (with completion or response); did you mean conversations?",
        ),
        ({"messages": "a"}, "messages must be a list of objects"),
        ({"messages": ["a"]}, "messages must be a list of objects"),
        ({"messages": [{"role": "user"}]}, "turn 1 is a NoneType"),
        (OPENAI | {"messages": [{"role": "system", "content": ["s"]}]}, "system message is a list"),
        (LIMA | {"system": ["s"]}, "system message is a list; it needs a string"),
        (ALPACA | {"system": 3}, "system message is a int; it needs a string"),
        (ALPACA | {"history": ["a"]}, "history must be a list of [user, assistant] pairs"),
        (ALPACA | {"history": [["a"]]}, "history must be a list of [user, assistant] pairs"),
        (ALPACA | {"history": [["a", 1]]}, "turn 2 is a int"),
        (ALPACA | {"output": ""}, "turn 4 is empty"),
        ({"instruction": "Hi?"}, "has 1 turn; a dialogue ends"),
        (ALPACA | {"input": {"text": "a"}}, "input is a dict; it needs a string"),
        (ALPACA | {"response": "a"}, "has output and response; which is the reply?"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "is a preference (chosen and rejected)"),
        ({"prompt": [{"role": "user", "content": "a"}], "completion": "b"}, "prompt is a list of"),
        (OPENAI | {"system": "Be kind."}, "has two system messages, 'Be brief.' and 'Be kind.'"),
        (OPENAI | {"tools": [{"name": "depth"}]}, "has tools, tools that the model may call"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "message 1 has the role 'tool'; tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "a"}]}]},
            "message 1 has a part of the type 'image_url'; a dialogue here holds texts alone",
        ),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: object, expected: str) -> None:
    assert row_complaint(tmp_path, row).startswith(expected)


def test_prompts_may_end_with_the_user(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"conversations": ["a"]}, {"conversations": ["a", "b", "c"]}]
    path = save(tmp_path / "rows.jsonl", *rows, {"instruction": "a"}, LIMA)
    assert [len(e.turns) for e in read_examples(path, dialogues=False)] == [1, 3, 1, 4]


def test_only_the_first_wrong_rows_are_shown(tmp_path: Path) -> None:
    text = complaint(save(tmp_path / "rows.jsonl", LIMA, *[{"conversations": ["a"]}] * 8))
    assert text.startswith("8 of 9 rows")
    assert [f"rows.jsonl:{n} has 1 turn" in text for n in range(1, 10)] == [0, *[1] * 5, 0, 0, 0]
    assert text.endswith("and 3 more")


def test_wrong_rows_are_dropped_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "rows.jsonl", LIMA, {"conversations": ["a"]}, OPENAI, ["x"])
    assert [e.id for e in read_examples(path, invalid="drop")] == ["w1", "rows.jsonl:3"]
    said = capsys.readouterr().out
    assert said.startswith("dropped 2 rows that are not usable:")
    assert "rows.jsonl:2 has 1 turn" in said
    assert "rows.jsonl:4 is a JSON list" in said


def test_nothing_left_after_dropping(tmp_path: Path) -> None:
    path = save(tmp_path / "rows.jsonl", ["x"])
    with pytest.raises(UserError, match="holds no rows"):
        read_examples(path, invalid="drop")


def test_normal_prompt_ignores_case_and_white_space() -> None:
    assert normalise_prompt(Example(("  WAS  ist\n\tdie STRASSE? ",), "a")) == normalise_prompt(
        Example(("was ist die straße?",), "b")
    )


def convert(*args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lima_ray.example", *map(str, args)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_command_line_converts(tmp_path: Path) -> None:
    first = save(tmp_path / "a.json", OPENAI, ALPACA)
    second = save(tmp_path / "folder/train.jsonl", LIMA, SHAREGPT)
    out = tmp_path / "out/train.jsonl"
    done = convert(first, Path(second).parent, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}: 4 rows (2 of 2 turns, 2 of 4 turns)\n"
    assert read_examples(str(out)) == read_examples(first) + read_examples(second)


def test_command_line_reports_errors_without_a_traceback(tmp_path: Path) -> None:
    path = save(tmp_path / "rows.jsonl", {"conversations": ["a"]})
    done = convert(path, "--out", tmp_path / "out.jsonl")
    assert done.returncode == 2
    assert done.stderr.startswith("error: 1 of 1 rows are not usable")
    assert not (tmp_path / "out.jsonl").exists()
    assert convert(path, "--out", tmp_path / "out.jsonl", "--prompts").returncode == 0


def of_hub(hub: Hub, dataset: str, tmp_path: Path, **env: str) -> tuple[list[Example], str]:
    """What a process that takes `hub` for the hub reads, or its error."""
    out = tmp_path / "out.jsonl"
    out.unlink(missing_ok=True)
    done = convert(dataset, "--out", out, env=hub.environ(tmp_path / "cache", **env))
    if done.returncode == 0:
        return read_examples(str(out)), ""
    assert done.returncode == 2, done.stderr
    return [], done.stderr


def jsonl(*rows: object) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def test_lima_is_read_from_the_hub_and_then_from_its_cache(tmp_path: Path) -> None:
    with serving(Hub({"GAIR/lima": {"train.jsonl": jsonl(LIMA, OPENAI)}})) as hub:
        found, _ = of_hub(hub, "GAIR/lima", tmp_path)
        assert [e.id for e in found] == ["w1", "train.jsonl:2"]
        assert found[0].turns == tuple(LIMA["conversations"])
        assert "GET /datasets/GAIR/lima/resolve/main/train.jsonl" in hub.requests
    again, error = of_hub(hub, "GAIR/lima", tmp_path)
    assert (again, error) == (found, "")


def test_gated_dataset_needs_a_token(tmp_path: Path) -> None:
    hub = Hub({"GAIR/lima": {"train.jsonl": jsonl(LIMA)}}, gated={"GAIR/lima"})
    with serving(hub):
        for token in ({}, {"HF_TOKEN": "hf_wrong"}):
            _, error = of_hub(hub, "GAIR/lima", tmp_path, **token)
            assert error.startswith("error: GAIR/lima is gated. Accept its licence at ")
            assert "https://huggingface.co/datasets/GAIR/lima" in error
            assert "HF_TOKEN" in error
        found, _ = of_hub(hub, "GAIR/lima", tmp_path, HF_TOKEN=TOKEN)
        assert [e.id for e in found] == ["w1"]


def test_missing_dataset_of_the_hub(tmp_path: Path) -> None:
    with serving(Hub()) as hub:
        _, error = of_hub(hub, "GAIR/limo", tmp_path)
    assert error.startswith(
        "error: https://huggingface.co/datasets/GAIR/limo does not exist or is private"
    )


def test_dataset_without_jsonl_is_read_through_datasets(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    rows = [{"instruction": f"Hi {n}?", "input": "", "output": "Hello."} for n in range(3)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    files = {"train-00000-of-00001.parquet": path.read_bytes()}
    hub = Hub({"tatsu-lab/alpaca": files, "a/notes": {"README.md": b"# Nothing"}})
    with serving(hub):
        found, error = of_hub(hub, "tatsu-lab/alpaca", tmp_path)
        assert [(e.id, e.turns) for e in found] == [
            (f"train[{n}]", (f"Hi {n}?", "Hello.")) for n in range(3)
        ]
        _, error = of_hub(hub, "a/notes", tmp_path)
    page = "https://huggingface.co/datasets/a/notes"
    assert f"error: {page} has no split 'train' that can be read: " in error


def test_broken_table_of_the_hub(tmp_path: Path) -> None:
    with serving(Hub({"a/broken": {"train.json": b'{"a": [1, 2}'}})) as hub:
        _, error = of_hub(hub, "a/broken", tmp_path)
    assert "error: https://huggingface.co/datasets/a/broken has no split 'train'" in error


def test_hub_out_of_reach(tmp_path: Path) -> None:
    with serving(Hub()) as hub:
        _, error = of_hub(hub, "GAIR/lima", tmp_path, HF_HUB_OFFLINE="1")
        assert error == "error: the hub cannot be reached for GAIR/lima, and no copy is cached\n"
        proxy = {
            "HF_ENDPOINT": "https://hub.invalid",
            "HTTPS_PROXY": f"http://127.0.0.1:{hub.port}",
        }
        _, error = of_hub(hub, "GAIR/lima", tmp_path, **proxy)
    page = "https://huggingface.co/datasets/GAIR/lima"
    assert error.startswith(f"error: {page} cannot be fetched: 403")


@pytest.mark.slow  # the hub's client tries again for 23 seconds
def test_hub_that_refuses_connections(tmp_path: Path) -> None:
    with serving(Hub()) as hub:
        pass
    _, error = of_hub(hub, "GAIR/lima", tmp_path)
    assert error.endswith("error: the hub cannot be reached for GAIR/lima, and no copy is cached\n")
