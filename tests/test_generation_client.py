"""Asking an endpoint that misbehaves, and grading by one: a real server on this machine."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
from chat_server import DROP, KEY, Response, Server, refused, said, serving

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling
from lima_ray.generation.client import Client
from lima_ray.generation.endpoint import Endpoint
from lima_ray.generation.request_pool import request_all
from lima_ray.generation.responses import Completion, retry_after_s
from lima_ray.judging.grade import grade, parse
from lima_ray.records.reply import Reply

SAMPLING = Sampling()


def chats(
    server: Server, questions: list[str], sampling: Sampling = SAMPLING, **settings: Any
) -> tuple[dict[str, Completion], dict[str, str]]:
    """Ask each question; what was answered and what failed."""
    answers: dict[str, Completion] = {}
    failures: dict[str, str] = {}

    async def handle(client: Client, question: str) -> None:
        message = {"role": "user", "content": question}
        answers[question] = await client.chat([message], sampling)

    endpoint = Endpoint(**({"url": server.url, "backoff_s": 0.02, "timeout_s": 5} | settings))
    request_all(endpoint, "m", questions, handle, failures.__setitem__)
    return answers, failures


def test_answers_tell_whether_the_model_stopped(server: Server) -> None:
    server.first = {"cut": [said("half", "length", 7)], "bare": [said("", tokens=None)]}
    answers, failures = chats(server, ["why", "cut", "bare"])
    assert answers == {
        "why": Completion("re: why", True, 3),
        "cut": Completion("half", False, 7),
        "bare": Completion("", True, None),
    }
    assert not failures and len(server.requests) == 3


@pytest.mark.parametrize(
    "trouble",
    [
        refused(429),
        refused(408),
        refused(500),
        refused(503),
        (502, {}, b"<html>bad gateway"),
        (200, {}, b"<html>hello"),
        (200, {}, b"\xff\xfe"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": null}'),
        (200, {}, b'{"error": "overloaded"}'),
        (200, {}, b"[1]"),
        (200, {}, said("cut short")[2][:-5]),
        (200, {}, rb'{"choices": [{"message": {"content": "\ud800"}, "finish_reason": "stop"}]}'),
        said(None),
        said("half", "content_filter"),
        said("half", None),
        DROP,
    ],
    ids=lambda trouble: f"{trouble[0]} {trouble[2][:30]!r}",
)
def test_what_may_pass_is_tried_again(server: Server, trouble: Response) -> None:
    server.first = {"why": [trouble, trouble]}
    answers, failures = chats(server, ["why"])
    assert answers == {"why": Completion("re: why", True, 3)} and not failures
    assert server.asked == ["why"] * 3


def test_waits_grow_and_retry_after_is_honoured(server: Server) -> None:
    server.first = {"grow": [refused(500)] * 3}
    chats(server, ["grow"], backoff_s=0.1)
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert all(0.075 * 2**i <= wait < 0.1 * 2**i + 1 for i, wait in enumerate(waits))
    server.times.clear()
    server.first = {"wait": [refused(429, Retry_After="0.5"), refused(503, Retry_After="0.3")]}
    chats(server, ["wait"], backoff_s=0)
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert 0.5 <= waits[0] < 2 and 0.3 <= waits[1] < 2


@pytest.mark.parametrize(
    ("header", "expected"),
    [("7", 7), ("0.5", 0.5), ("99999", 600), ("-3", 0), ("nan", 0), ("soon", 0), ("", 0)],
)
def test_retry_after_in_seconds(header: str, expected: float) -> None:
    assert retry_after_s(httpx2.Response(429, headers={"Retry-After": header})) == expected


def test_retry_after_as_a_date() -> None:
    for seconds, expected in ((30, 29), (-30, 0)):
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        found = retry_after_s(httpx2.Response(429, headers={"Retry-After": at}))
        assert expected - 1 <= found <= expected + 1


def test_a_slow_answer_is_given_up_and_asked_again(server: Server) -> None:
    server.held = lambda question: len(server.requests) == 1
    answers, _ = chats(server, ["why"], timeout_s=1)
    assert answers["why"].text == "re: why" and len(server.requests) == 2


def test_what_never_passes_is_a_failure_and_no_reply(server: Server) -> None:
    server.first = {"bad": [said(None)] * 9, "worse": [refused(500, "on fire")] * 9}
    answers, failures = chats(server, ["bad", "good", "worse"], retries=2)
    assert list(answers) == ["good"] and failures.keys() == {"bad", "worse"}
    assert "choices.0.message.content" in failures["bad"]
    assert failures["worse"] == "500 x on fire"
    assert server.asked.count("bad") == 3 and server.asked.count("worse") == 3


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (refused(401, f"bad key {KEY}"), r"401 x bad key \*\*\*\n  .*MY_KEY, as it is set"),
        (refused(403), "403 x no\n.*MY_KEY"),
        (refused(404, "no such model"), "404 x no such model\n  is 'm' the model's name there"),
        (refused(400, "unknown field"), "400 x unknown field"),
        (refused(422), "422"),
        (refused(307), "307"),
        (refused(429, "pay", "insufficient_quota"), "429 insufficient_quota pay\n.*credit"),
    ],
)
def test_what_will_not_pass_stops_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, trouble: Response, message: str
) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    server.first = {"q0": [trouble] * 9}
    started = time.monotonic()
    with pytest.raises(UserError, match=message) as error:
        questions = [f"q{i}" for i in range(5)]
        chats(server, questions, concurrency=1, api_key_env="MY_KEY", backoff_s=9)
    assert server.asked == ["q0"] and time.monotonic() - started < 6
    assert KEY not in str(error.value)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_others_on_their_way_do_not_hold_up_a_stop(server: Server) -> None:
    server.first = {"bad": [refused(401)]}
    server.held = lambda question: question != "bad"
    started = time.monotonic()
    with pytest.raises(UserError, match=r"401.*\n.*OPENAI_API_KEY, which is not set"):
        chats(server, ["a", "b", "bad"], timeout_s=60)
    assert time.monotonic() - started < 20
    assert "Authorization" not in server.headers[0]


def test_a_request_refused_after_others_were_answered_fails_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.first = {"long": [refused(400, f"too long, {KEY}")]}
    answers, failures = chats(server, ["a", "long", "b"], concurrency=1)
    assert list(answers) == ["a", "b"] and failures == {"long": "400 x too long, ***"}
    server.first = {"mad": [(200, {}, f"hello {KEY}".encode())]}
    failures = chats(server, ["mad"], retries=0)[1]
    assert "hello ***" in failures["mad"] and KEY not in failures["mad"]
    server.first = {"c": [refused(401)]}
    with pytest.raises(UserError, match="401"):
        chats(server, ["a", "c"], concurrency=1)


def test_an_endpoint_that_is_down_is_given_up() -> None:
    with serving(Server()) as gone:
        pass
    with pytest.raises(UserError, match=r"failed 8 times in a row, .*ConnectError"):
        chats(gone, [f"q{i}" for i in range(100)], retries=1, concurrency=2)


def test_failures_between_answers_do_not_give_up(server: Server) -> None:
    questions = [f"q{i}" for i in range(30)]
    server.first = {q: [refused(500)] for q in questions if int(q[1:]) % 5}
    answers, failures = chats(server, questions, retries=0, concurrency=1)
    assert len(answers) == 6 and len(failures) == 24


def test_concurrency_is_used_and_bounded(server: Server) -> None:
    server.seconds = 0.05
    chats(server, [f"q{i}" for i in range(20)], concurrency=4)
    assert server.busiest == 4 and len(server.requests) == 20


def test_sampling_becomes_the_fields_of_the_api(server: Server) -> None:
    sampling = Sampling(max_tokens=99, seed=5)
    chats(server, ["why"], sampling)
    assert server.requests[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "why"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 99,
        "seed": 5,
    }
    chats(server, ["why"], sampling, extra=True)
    assert server.requests[1] == server.requests[0] | {"repetition_penalty": 1.2}
    neutral = Sampling(top_p=1, repetition_penalty=1, temperature=0)
    chats(server, ["why"], neutral, extra=True)
    assert not {"top_p", "repetition_penalty"} & set(server.requests[2])
    assert server.requests[2]["temperature"] == 0


def test_openai_itself_gets_its_new_name_of_the_limit() -> None:
    for url, limit in {
        "https://api.openai.com/v1": "max_completion_tokens",
        "https://notopenai.com/v1": "max_tokens",
    }.items():
        assert Client(Endpoint(url=url), "m").body([], Sampling())[limit] == 2048


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "is no URL such as"),
        ("ftp://host/v1", "is no URL such as"),
        ("http://", "is no URL such as"),
        ("http://host:port/v1", "is no URL such as"),
        ("http://me:secret@host/v1", "at host is given with a user"),
        ("https://host/v1?key=secret", "at host is given with a user"),
    ],
)
def test_urls_that_are_none_or_hold_a_secret_are_refused(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Client(Endpoint(url=url), "m")
    assert "secret" not in str(error.value)


def test_a_key_of_two_lines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(UserError, match="characters that no key has") as error:
        Client(Endpoint(url="http://host/v1"), "m")
    assert "sk-" not in str(error.value)


# Grading


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
    """Return a reply, the last of some turns."""
    fields: dict[str, Any] = {"sample": 1, "turn": len(turns) // 2 - 1, "stopped": True} | more
    return Reply(id, turns[:-1], model="lima", reply=turns[-1], **fields)


def test_replies_are_graded_with_their_whole_dialogue(server: Server) -> None:
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


def test_a_judge_that_is_cut_off_or_silent_gives_no_grade(server: Server) -> None:
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
