"""Grading by a model behind an endpoint: a real server on this machine."""

from pathlib import Path
from typing import Any

from benchmarks.local_servers.chat_server import ChatServer, Response, refused, said
from lima_ray.judging.asking.judges import EndpointJudge
from lima_ray.judging.endpoint import grade_item, judge_items
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict

KEPT = {*Verdict.__dataclass_fields__} - {"key"}


def reply(id: str, *turns: str, **more: Any) -> Reply:
    fields: dict[str, Any] = {"sample": 1, "turn": len(turns) // 2 - 1, "stopped": True} | more
    return Reply(id, turns[:-1], model="lima", reply=turns[-1], **fields)


def test_replies_are_graded_with_all_turns_of_their_dialogue(
    server: ChatServer, tmp_path: Path
) -> None:
    def grading(question: str) -> str:
        return "no idea" if "Paris" in question else "It costs $5.\n2"

    server.grading = grading
    replies = [
        reply("a", "hi", "hello $x", "why?", "so", system="Be kind"),
        reply("b", "where?", "Paris", stopped=False, extra={"group": "towns"}),
    ]
    judge = EndpointJudge(model="judge", url=server.url, backoff_s=0.01)
    verdicts = judge_items(list(map(grade_item, replies)), judge, tmp_path / "journal.jsonl")
    common = {"kind": "grade", "annotator": "judge", "models": ["lima"], "sample": 1}
    first = {"id": "a", **common, "turn": 1, "stopped": True}
    second = {"id": "b", **common, "turn": 0, "stopped": False, "group": "towns"}
    found = [verdict.to_json() for verdict in verdicts]
    assert [{key: row[key] for key in row if key in KEPT} for row in found] == [
        first | {"verdict": 2, "explanation": "It costs $5.", "grade": 2, "status": "read"},
        second | {"verdict": None, "explanation": "no idea", "status": "unreadable"},
    ]
    asked = next(q for q in server.asked if "hello" in q)
    dialogue = (
        "System: Be kind\n\nUser: hi\n\nAssistant: hello $x\n\nUser: why?\n\nAssistant: so\n<"
    )
    assert dialogue in asked
    assert server.requests[0]["temperature"] == 0


def test_a_judge_that_is_cut_off_or_silent_gives_no_grade(
    server: ChatServer, tmp_path: Path
) -> None:
    replies = [reply(name, f"{name}?", "x") for name in ("cut", "silent", "good")]
    original, server.grading = server.answer, lambda question: "1"

    def answer(body: dict[str, Any]) -> Response:
        question = body["messages"][-1]["content"]
        if "cut?" in question:
            return said("First,\n1", "length")
        return refused(500) if "silent?" in question else original(body)

    server.answer = answer
    judge = EndpointJudge(model="judge", url=server.url, retries=1, backoff_s=0.01)
    verdicts = judge_items(list(map(grade_item, replies)), judge, tmp_path / "journal.jsonl")
    assert [v.verdict for v in verdicts] == [None, None, 1]
    assert [v.status for v in verdicts] == ["unreadable", "unanswered", "read"]
    assert [v.explanation for v in verdicts] == ["First,\n1", "500 x no", ""]
