"""Many requests at once to an endpoint that may be down."""

import time

import pytest
from chat_requests import SAMPLING, chats

from benchmarks.local_servers.chat_server import ChatServer, refused, serving
from lima_ray.config.errors import UserError
from lima_ray.generation import request_pool
from lima_ray.generation.client import Client
from lima_ray.generation.endpoint import Endpoint
from lima_ray.generation.request_pool import request_all


def test_others_on_their_way_do_not_hold_up_a_stop(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_pool, "LAST_ANSWERS_S", 0.5)
    server.first = {"bad": [refused(401)]}
    server.held = lambda question: question != "bad"
    started = time.monotonic()
    with pytest.raises(UserError, match=r"401.*\n.*OPENAI_API_KEY, which is not set"):
        chats(server, ["a", "b", "bad"], timeout_s=60)
    assert time.monotonic() - started < 20
    assert "Authorization" not in server.headers[0]


def test_an_endpoint_that_is_down_is_given_up() -> None:
    with serving(ChatServer()) as gone:
        pass
    with pytest.raises(UserError, match=r"failed 8 times in a row, .*ConnectError"):
        chats(gone, [f"q{i}" for i in range(100)], retries=1, concurrency=2)


def test_failures_between_answers_do_not_give_up(server: ChatServer) -> None:
    questions = [f"q{i}" for i in range(30)]
    server.first = {q: [refused(500)] for q in questions if int(q[1:]) % 5}
    answers, failures = chats(server, questions, retries=0, concurrency=1)
    assert len(answers) == 6 and len(failures) == 24


def test_concurrency_is_used_and_bounded(server: ChatServer) -> None:
    server.seconds = 0.05
    chats(server, [f"q{i}" for i in range(20)], concurrency=4)
    assert server.busiest == 4 and len(server.requests) == 20


def test_answers_on_their_way_are_kept_when_another_request_is_refused_for_good() -> None:
    answered, questions = list[str](), ["refused", "a", "b", "never asked"]

    async def handle(client: Client, question: str) -> None:
        await client.chat([{"role": "user", "content": question}], SAMPLING)
        answered.append(question)

    with serving(ChatServer(first={"refused": [refused(401)]}, seconds=0.3)) as server:
        endpoint = Endpoint(url=server.url, concurrency=3)
        with pytest.raises(UserError, match="401"):
            request_all(endpoint, "m", questions, handle, lambda *_: None)
        assert sorted(answered) == ["a", "b"] and "never asked" not in server.asked
