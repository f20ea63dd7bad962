"""Two directories of replies side by side."""

import json
import webbrowser
from pathlib import Path
from typing import Any

import pytest

from lima_ray import compare
from lima_ray.compare import CompareCommand
from lima_ray.config.errors import UserError


def replies(folder: Path, model: str, texts: dict[str, str], **more: Any) -> Path:
    """A directory of one reply to each prompt."""
    folder.mkdir()
    rows = [
        {"id": id, "conversations": [f"Question {id}?"], "model": model, "sample": 0, "turn": 0}
        | {"reply": text, "stopped": not text.endswith("on")}
        | more
        for id, text in texts.items()
    ]
    (folder / "replies.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A base that goes on and a model that stops, one reply of both equal."""
    first = {"q2": "and on", "q1": "<b>Yes</b>\x1b[31m & no.", "q3": "Same."}
    second = {"q1": "It is so.", "q2": "It\u2028is not.", "q3": "Same.", "q4": "More."}
    return replies(tmp_path / "a", "base", first), replies(tmp_path / "b", "new", second)


def test_the_terminal_shows_them_in_the_order_of_the_first(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    compare.main([str(two[0]), str(two[1] / "replies.jsonl")])
    shown = capsys.readouterr().out
    flat = " ".join(shown.split())
    assert "3 replies to the same prompts, 1 equal; 67% and 100% stopped" in flat
    assert "0 and 1 that only one has" in flat
    places = [shown.index(f"Question {id}?") for id in ("q2", "q1", "q3")]
    assert places == sorted(places) and "did not stop" in shown
    assert "\x1b" not in shown and "\\x1b[31m" in shown
    compare.main([str(two[0]), str(two[1]), "--no_same", "--limit", "5"])
    assert "Question q3?" not in capsys.readouterr().out


def test_the_page_shows_text_as_text_and_is_opened(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    out = tmp_path / "page.html"
    compare.compare(CompareCommand(first=two[0], second=two[1], open=True, out=out))
    text = out.read_text()
    assert opened == [out.as_uri()]
    assert "&lt;b&gt;Yes&lt;/b&gt;" in text and "<b>" not in text
    assert text.index("Question q2?") < text.index("Question q1?")
    assert "<th>base</th><th>new</th>" in text and "http" not in text.replace("http-", "")


def test_a_page_without_equal_replies_shows_none_of_them(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    out = tmp_path / "new" / "page.html"
    asked = CompareCommand(first=two[0], second=two[0], open=True, out=out, same=False)
    compare.compare(asked)
    assert "3 equal" in out.read_text() and "Question" not in out.read_text()
    with pytest.raises(UserError, match=r"cannot be written: .*choose another --out"):
        compare.compare(asked.model_copy(update={"out": two[0] / "replies.jsonl" / "page.html"}))


def test_what_cannot_be_compared_is_reported(two: tuple[Path, Path], tmp_path: Path) -> None:
    other = replies(tmp_path / "c", "new", {"x": "Yes."})
    with pytest.raises(UserError, match=r"no prompt in common; the first has 'q2', .* 'x'"):
        compare.main([str(two[0]), str(other)])
    with pytest.raises(UserError, match=r"no replies at .*nothing"):
        compare.main([str(two[0]), str(tmp_path / "nothing")])
    (other / "replies.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(UserError, match=r"replies\.jsonl:1 is no reply: KeyError\('sample'"):
        compare.main([str(two[0]), str(other)])
    (other / "replies.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no replies"):
        compare.main([str(two[0]), str(other)])
