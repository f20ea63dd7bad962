"""Grading by a model behind an endpoint: a real server on this machine."""

from typing import Any

import pytest
from chat_server import ChatServer, Response, refused, said

from lima_ray.judging.grade import grade, parse
from lima_ray.records.reply import Reply


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It answers.\nSo:\n4", 4),
        ("Good.\n\n **6** \n", 6),
        ("Good.\n(5).", 5),
        ("3", 3),
        ("Good.\nScore: 4", None),
        ("Good.\n4.5", None),
        ("Good.\n0", None),
        ("Good.\n7", None),
        ("Good.\n4 5", None),
        ("4\nor so", None),
        ("", None),
    ],
)
def test_the_grade_is_the_number_alone_on_the_last_line(text: str, verdict: int | None) -> None:
    found, explanation = parse(text)
    assert found == verdict
    assert explanation in text and (verdict != 4 or explanation == "It answers.\nSo:")


def reply(id: str, *turns: str, **more: Any) -> Reply:
    fields: dict[str, Any] = {"sample": 1, "turn": len(turns) // 2 - 1, "stopped": True} | more
    return Reply(id, turns[:-1], model="lima", reply=turns[-1], **fields)


def test_replies_are_graded_with_all_turns_of_their_dialogue(server: ChatServer) -> None:
    def judge(question: str) -> str:
        return "no idea" if "Paris" in question else "It costs $5.\n2"

    server.grading = judge
    verdicts = grade(
        [
            reply("a", "hi", "hello $x", "why?", "so", system="Be kind"),
            reply("b", "where?", "Paris", stopped=False, extra={"group": "towns"}),
        ],
        server.url,
        "judge",
        backoff_s=0.01,
    )
    common = {"kind": "grade", "annotator": "judge", "models": ["lima"], "sample": 1}
    first = {"id": "a", **common, "turn": 1, "stopped": True}
    second = {"id": "b", **common, "turn": 0, "stopped": False, "group": "towns"}
    assert [verdict.to_json() for verdict in verdicts] == [
        first | {"verdict": 2, "explanation": "It costs $5.", "grade": 2, "status": "read"},
        second | {"verdict": None, "explanation": "no idea", "status": "unreadable"},
    ]
    asked = next(q for q in server.asked if "hello" in q)
    dialogue = (
        "System: Be kind\n\nUser: hi\n\nAssistant: hello $x\n\nUser: why?\n\nAssistant: so\n<"
    )
    assert dialogue in asked
    assert server.requests[0]["temperature"] == 0


def test_a_judge_that_is_cut_off_or_silent_gives_no_grade(server: ChatServer) -> None:
    replies = [reply(name, f"{name}?", "x") for name in ("cut", "silent", "good")]
    original, server.grading = server.answer, lambda question: "1"

    def answer(body: dict[str, Any]) -> Response:
        question = body["messages"][-1]["content"]
        if "cut?" in question:
            return said("First,\n1", "length")
        return refused(500) if "silent?" in question else original(body)

    server.answer = answer
    verdicts = grade(replies, server.url, "judge", retries=1, backoff_s=0.01)
    assert [v.verdict for v in verdicts] == [None, None, 1]
    assert [v.status for v in verdicts] == ["unreadable", "unanswered", "read"]
    assert [v.explanation for v in verdicts] == ["First,\n1", "500 x no", ""]
