"""Grading candidates by a model behind an endpoint: a real server on this machine."""

import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from benchmarks.local_servers.chat_server import ChatServer, Response, refused, said
from lima_ray.config.errors import UserError
from lima_ray.curation.candidate import Candidate
from lima_ray.judging.asking.judges import EndpointJudge
from lima_ray.judging.asking.run import MOST_UNREADABLE
from lima_ray.judging.candidates import grade_candidates
from lima_ray.records.verdict import read_verdicts


def candidates(*names: str) -> list[Candidate]:
    """Return candidates whose texts hold their names."""
    return [Candidate(n, (f"Why {n}?", f"Because of {n}."), "se", group="beer") for n in names]


def grade(server: ChatServer, rows: list[Candidate], folder: Path, **more: Any) -> dict[str, float]:
    """Grade candidates, asking again without long waits."""
    settings = {"model": "judge", "url": server.url, "retries": 1, "backoff_s": 0.01} | more
    return grade_candidates(rows, EndpointJudge(**settings), folder / "grades.jsonl")


def by_name(grades: dict[str, str]) -> Any:
    """Return a judge that says something of each name."""
    return lambda question: next(v for k, v in grades.items() if f"Because of {k}." in question)


def test_each_candidate_is_graded_with_its_dialogue(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.grading = by_name({"b": "Good.\n5", "a": "Short.\n**3**", "odd": "I like it"})
    rows = candidates("b", "a", "odd")
    rows[0] = Candidate("b", ("Hi", "Hello", "Why b?", "Because of b."), "se")
    assert grade(server, rows, tmp_path) == {"b": 5, "a": 3}
    shown = next(q for q in server.asked if "Because of b." in q)
    assert "User: Hi\n\nAssistant: Hello\n\nUser: Why b?\n\nAssistant: Because of b.\n" in shown
    assert server.requests[0]["temperature"] == 0
    verdicts = {v.id: v for v in read_verdicts(tmp_path / "grades.jsonl")}
    assert [verdicts[n].status for n in ("b", "a", "odd")] == ["read", "read", "unreadable"]
    assert verdicts["odd"].grade is None and verdicts["odd"].explanation == "I like it"
    assert (verdicts["b"].turn, verdicts["a"].turn) == (1, 0)
    assert verdicts["a"].annotator == "judge" and verdicts["a"].group == "beer"
    assert "2/3 graded, 1 unreadable; those without a grade" in capsys.readouterr().out


def test_a_grading_that_was_stopped_goes_on_and_asks_nothing_twice(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = candidates("a", "b", "c", "d")
    server.grading, original = lambda _: "Good.\n4", server.answer

    def answer(body: dict[str, Any]) -> Response:
        return refused(401) if len(server.requests) > 2 else original(body)

    server.answer = answer
    with pytest.raises(UserError, match="401"):
        grade(server, rows, tmp_path, concurrency=1)
    journal = tmp_path / "grades.jsonl"
    with journal.open("a") as out:
        out.write('{"id": "c", "kind": "gr')  # what a kill leaves
    server.answer = original
    assert grade(server, rows, tmp_path) == dict.fromkeys("abcd", 4)
    assert [sum(f"Why {n}?" in q for q in server.asked) for n in "abcd"] == [1, 1, 2, 1]
    assert [json.loads(line)["id"] for line in journal.read_text().splitlines()][:2] == ["a", "b"]
    assert grade(server, rows[::-1], tmp_path) == dict.fromkeys("dcba", 4)
    assert len(server.requests) == 5
    assert capsys.readouterr().out.endswith(f"{journal}: 4/4 graded\n")


def test_what_has_no_grade_is_counted_and_asked_again(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.grading, original = lambda _: "Good.\n6", server.answer

    def answer(body: dict[str, Any]) -> Response:
        question = body["messages"][-1]["content"]
        if "cut" in question:
            return said("At first\n1", "length")
        return refused(500) if "silent" in question else original(body)

    server.answer = answer
    rows = candidates("cut", "silent", "good")
    assert grade(server, rows, tmp_path) == {"good": 6}
    assert "1/3 graded, 1 unreadable, 1 unanswered" in capsys.readouterr().out
    server.answer = original
    assert grade(server, rows, tmp_path) == {"cut": 6, "silent": 6, "good": 6}
    assert sum("good" in question for question in server.asked) == 1


def test_another_text_judge_or_sampling_is_graded_anew(server: ChatServer, tmp_path: Path) -> None:
    server.grading = lambda _: "Good.\n4"
    rows = candidates("a", "b")
    grade(server, rows, tmp_path)
    server.grading = lambda _: "Good.\n2"
    changed = [Candidate("a", ("Why a?", "Because of another."), "se"), rows[1]]
    assert grade(server, changed, tmp_path) == {"a": 2, "b": 4}
    assert grade(server, rows, tmp_path, max_new_tokens=2048) == {"a": 2, "b": 2}
    assert grade(server, rows, tmp_path) == {"a": 4, "b": 4}
    assert grade(server, rows, tmp_path, model="other") == {"a": 2, "b": 2}


def test_a_judge_that_gives_no_grades_is_asked_no_further(
    server: ChatServer, tmp_path: Path
) -> None:
    server.grading = lambda _: "Great answer!"
    rows = candidates(*(f"{number}" for number in range(200)))
    with pytest.raises(UserError, match=r"gave no verdict .*Great answer!"):
        grade(server, rows, tmp_path)
    assert MOST_UNREADABLE <= len(server.requests) < 3 * MOST_UNREADABLE


@pytest.mark.parametrize("turns", [("Why?",), ("Why?", "So", "And?"), ()])
def test_a_prompt_alone_has_no_grade(
    server: ChatServer, tmp_path: Path, turns: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match=r"candidate q/1 does not end with a reply"):
        grade(server, [*candidates("a"), Candidate("q/1", turns, "reddit")], tmp_path)
    assert not server.requests


def test_one_process_at_a_time_writes_the_journal(server: ChatServer, tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".grades.jsonl.lock"),
        pytest.raises(UserError, match="another process is writing"),
    ):
        grade(server, candidates("a"), tmp_path)


def test_a_journal_that_cannot_be_written_is_named(server: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        grade(server, candidates("a"), tmp_path / "file")


def test_nothing_to_grade_asks_nothing(server: ChatServer, tmp_path: Path) -> None:
    assert grade(server, [], tmp_path) == {} and not server.requests
