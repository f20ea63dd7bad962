"""Replies: one JSON form, keys of the prompt's row that survive, lines that are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from lima_ray.config.errors import UserError
from lima_ray.records.reply import Reply, read_replies

LINE = {
    "id": "q",
    "conversations": ["why?", "so", "really?"],
    "model": "lima",
    "sample": 1,
    "turn": 1,
    "reply": "Yes.",
    "stopped": True,
    "n_tokens": None,
    "seed": 7,
    "source": "dev",
    "system": "Be kind.",
    "group": "in",
    "about": {"deep": [1, None]},
}


def written(folder: Path, rows: list[Any]) -> Path:
    file = folder / "replies.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def test_a_line_survives_with_its_unknown_keys(tmp_path: Path) -> None:
    (found,) = read_replies(written(tmp_path, [LINE]))
    assert found.conversations == ("why?", "so", "really?") and found.system == "Be kind."
    assert found.extra == {"group": "in", "about": {"deep": [1, None]}}
    assert list(found.to_json().items()) == list(LINE.items()), "keys in their order"


def test_a_line_without_what_may_be_missing_is_read(tmp_path: Path) -> None:
    needed = ("id", "conversations", "model", "sample", "turn", "reply", "stopped")
    (found,) = read_replies(written(tmp_path, [{key: LINE[key] for key in needed}]))
    assert found == Reply("q", ("why?", "so", "really?"), "lima", 1, 1, "Yes.", True)
    assert "system" not in found.to_json()


@pytest.mark.parametrize("key", ["id", "conversations", "model", "sample", "reply", "stopped"])
def test_a_line_that_lacks_a_key_is_named(tmp_path: Path, key: str) -> None:
    broken = {name: value for name, value in LINE.items() if name != key}
    with pytest.raises(UserError, match=rf"replies\.jsonl:2 is no reply: KeyError\('{key}'"):
        read_replies(written(tmp_path, [LINE, broken]))
