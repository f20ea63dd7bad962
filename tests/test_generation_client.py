"""Asking an endpoint that misbehaves: a real server on this machine."""

import json
import time

import pytest
from chat_requests import chats

from benchmarks.local_servers.chat_server import DROP, KEY, ChatServer, Response, refused, said
from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling
from lima_ray.generation.client import Client
from lima_ray.generation.endpoint import Endpoint
from lima_ray.generation.responses import ChatCompletion


def test_answers_tell_whether_the_model_stopped(server: ChatServer) -> None:
    odd = {"usage": {"completion_tokens": "many", "prompt_tokens": -1}, "model": 5}
    choice = {"message": {"content": "odd"}, "finish_reason": "stop"}
    server.first = {
        "cut": [said("half", "length", 7)],
        "bare": [said("", tokens=None)],
        "reasoned": [said(None, "length", 9)],
        "odd": [(200, {}, json.dumps({"choices": [choice]} | odd).encode())],
    }
    answers, failures = chats(server, ["why", "cut", "bare", "reasoned", "odd"])
    assert answers == {
        "why": ChatCompletion("re: why", True, 3),
        "cut": ChatCompletion("half", False, 7),
        "bare": ChatCompletion("", True, None),
        "reasoned": ChatCompletion("", False, 9),
        "odd": ChatCompletion("odd", True, None),
    }
    assert not failures and len(server.requests) == 5


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
def test_transient_errors_are_retried(server: ChatServer, trouble: Response) -> None:
    server.first = {"why": [trouble, trouble]}
    answers, failures = chats(server, ["why"])
    assert answers == {"why": ChatCompletion("re: why", True, 3)} and not failures
    assert server.asked == ["why"] * 3


def test_waits_grow_and_retry_after_is_honoured(server: ChatServer) -> None:
    server.first = {"grow": [refused(500)] * 3}
    chats(server, ["grow"], backoff_s=0.1)
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert all(0.075 * 2**i <= wait < 0.1 * 2**i + 1 for i, wait in enumerate(waits))
    server.times.clear()
    server.first = {"wait": [refused(429, Retry_After="0.5"), refused(503, Retry_After="0.3")]}
    chats(server, ["wait"], backoff_s=0)
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert 0.5 <= waits[0] < 2 and 0.3 <= waits[1] < 2


def test_a_slow_answer_times_out_and_is_retried(server: ChatServer) -> None:
    server.held = lambda question: len(server.requests) == 1
    answers, _ = chats(server, ["why"], timeout_s=1)
    assert answers["why"].text == "re: why" and len(server.requests) == 2


def test_lasting_errors_are_failures_and_no_replies(server: ChatServer) -> None:
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
        (refused(307, Location="http://other/v1"), "307.*\n.*redirects to http://other/v1; give"),
        (refused(429, "pay", "insufficient_quota"), "429 insufficient_quota pay\n.*credit"),
    ],
)
def test_what_will_not_pass_stops_at_once(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, trouble: Response, message: str
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


def test_nothing_but_the_key_that_is_named_goes_to_a_server(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Secret: {KEY}")
    chats(server, ["why"], api_key_env="MY_KEY")
    assert KEY not in str(server.headers[0]) and "Authorization" not in server.headers[0]


def test_a_request_refused_after_others_were_answered_fails_alone(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
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


def test_sampling_becomes_the_fields_of_the_api(server: ChatServer) -> None:
    sampling = Sampling(max_new_tokens=99, seed=5)
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
        client = Client(Endpoint(url=url), "m")
        assert client.body([], Sampling(max_new_tokens=2048))[limit] == 2048
        assert limit not in client.body([], Sampling())
