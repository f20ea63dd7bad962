"""What is refused, by whom, and in which words: malformed bodies, wrong fields, keys, sizes."""

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance
from served import Hosted, hosted, wait_until

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "the cat"}
ASK: dict[str, Any] = {"model": "brief", "messages": [USER], "max_tokens": 2}
KEY, OTHER_KEY = "sk-right", "sk-ünïcode"


@pytest.fixture(scope="module")
def client(host: Hosted) -> Iterator[httpx.Client]:
    """A client of the open server."""
    with host.client() as client:
        yield client


@pytest.fixture(scope="module")
def locked(brief_dir: Path) -> Iterator[Hosted]:
    """A server with keys, which takes bodies of 2000 bytes."""
    keys = frozenset({KEY, OTHER_KEY})
    with hosted({"brief": brief_dir}, keys, body_bytes=2000) as host:
        yield host


def error(response: httpx.Response, status: int, param: str | None = None) -> str:
    """The message of a refusal, whose shape is OpenAI's."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["param"] == param, body
    assert len(response.headers.get_list("x-request-id")) == 1
    assert response.headers["content-type"] == "application/json"
    return body["error"]["message"]


# Fields

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
    ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
    ({"temperature": "0.5"}, "temperature", "valid number"),
    ({"temperature": True}, "temperature", "valid number"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"repetition_penalty": 0}, "repetition_penalty", "greater than or equal to 1"),
    ({"max_tokens": -3}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 1.5}, "max_tokens", "integer"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 17}, "n", "less than or equal to 16"),
    ({"seed": 2**64}, "seed", "less than or equal to"),
    ({"stop": ""}, "stop", "at least 1 character"),
    ({"stop": ["a", ""]}, "stop.1", "at least 1 character"),
    ({"stop": [1]}, "stop.0", "string"),
    ({"stream": "yes"}, "stream", "boolean"),
    ({"stream_options": {"include_usage": True}}, None, "stream is not true"),  # pyright: ignore
    ({"top_logprobs": 3}, None, "logprobs is not true"),  # pyright: ignore
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, None, "differ"),  # pyright: ignore
    ({"messages": []}, "messages", "at least 1 item"),
    ({"messages": "hello"}, "messages", "list"),
    ({"messages": [{"role": "user"}]}, "messages.0.content", "missing"),
    ({"messages": [{"content": "a"}]}, "messages.0.role", "missing"),
    ({"messages": [{"role": "pirate", "content": "a"}]}, "messages.0.role", "'user'"),
    ({"messages": [USER | {"mood": 1}]}, "messages.0.mood", "not known"),
    ({"messages": [USER | {"content": None}]}, "messages.0.content", "string"),
    ({"messages": [USER, USER]}, "messages.1.role", "the assistant's is due"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, "messages.0.role", "user's is due"),
    ({"messages": [{"role": "system", "content": "a"}]}, "messages", "must be the user's"),
    ({"messages": [USER, {"role": "assistant", "content": "a"}]}, "messages", "must be the user's"),
    ({"messages": [USER, {"role": "system", "content": "a"}]}, "messages.1.role", "comes first"),
    ({"messages": [USER | {"content": " \n"}]}, "messages", "nothing to answer"),
    ({"model": 3}, "model", "string"),
    ({"tools": [{"type": "function"}]}, "tools", "not honoured here"),
    ({"frequency_penalty": False}, "frequency_penalty", "not honoured here"),
    ({"logprob": True}, "logprob", "not known"),
]


@pytest.mark.parametrize(
    ("fields", "param", "message"), WRONG, ids=[json.dumps(row[0])[:50] for row in WRONG]
)
def test_a_wrong_field_is_named(
    client: httpx.Client, fields: dict[str, Any], param: str | None, message: str
) -> None:
    found = error(client.post(CHAT, json=ASK | fields), 400, param)
    assert message in found


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_named(client: httpx.Client, missing: str) -> None:
    body = {name: value for name, value in ASK.items() if name != missing}
    assert "missing" in error(client.post(CHAT, json=body), 400, missing)


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([], "prompt"),
        ([[]], "prompt.0"),
        ("", "prompt"),
        ([-1], "prompt.0"),
        ([999_999], "prompt"),
        ([2**70], "prompt"),
        ([1, "a"], "prompt"),
        ({"a": 1}, "prompt"),
        (None, "prompt"),
        ([["a"]], "prompt"),
    ],
    ids=repr,
)
def test_a_wrong_prompt_is_named(client: httpx.Client, prompt: Any, param: str) -> None:
    response = client.post(PLAIN, json={"model": "brief", "prompt": prompt, "max_tokens": 1})
    if prompt == "":
        # BOS alone is a prompt: the model says what it likes.
        assert response.status_code == 200
        return
    found = response.json()["error"]["param"]
    assert found.startswith("prompt")
    error(response, 400, found)


# Bodies


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "missing"),
        (b"{", "not JSON"),
        (b"null", "dictionary"),
        (b"[]", "dictionary"),
        (b'"text"', "dictionary"),
        (b'{"model": "brief", "messages": [{"role": "user", "content": "\xff\xfe"}]}', "JSON"),
        (b"\xff\xfe\x00", "JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, ""),
        (json.dumps(ASK)[:-1].encode() + b', "temperature": NaN}', "finite"),
        (json.dumps(ASK)[:-1].encode() + b', "temperature": Infinity}', ""),
        (json.dumps(ASK)[:-1].encode() + b', "temperature": 1e999}', ""),
        (json.dumps(ASK)[:-1].encode() + b', "n": ' + b"9" * 5000 + b"}", ""),
    ],
    ids=range(13),
)
def test_a_malformed_body_is_refused(client: httpx.Client, content: bytes, message: str) -> None:
    headers = {"content-type": "application/json"}
    response = client.post(CHAT, content=content, headers=headers)
    found = error(response, 400, response.json()["error"]["param"])
    assert message in found and len(found) < 300


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\x00", "\u202e\ufffe", "😀" * 50])
@pytest.mark.parametrize("stream", [False, True])
def test_strange_characters_are_answered_or_refused(
    client: httpx.Client, text: str, stream: bool
) -> None:
    body = ASK | {"messages": [USER | {"content": f"say {text}"}], "stop": text, "stream": stream}
    content = json.dumps(body).encode()
    response = client.post(CHAT, content=content, headers={"content-type": "application/json"})
    lone = not text.isascii() and any(0xD800 <= ord(c) <= 0xDFFF for c in text)
    assert response.status_code == (400 if lone else 200), response.text


def test_a_body_over_the_limit_is_413(client: httpx.Client) -> None:
    body = json.dumps(ASK | {"messages": [USER | {"content": "a" * 2**20}]})
    assert "over 1,048,576 bytes" in error(client.post(CHAT, content=body), 413)

    def pieces() -> Iterator[bytes]:
        yield from (body[i : i + 2**16].encode() for i in range(0, len(body), 2**16))

    assert "over 1,048,576 bytes" in error(client.post(CHAT, content=pieces()), 413)


def test_a_long_prompt_within_the_limit_is_400(client: httpx.Client) -> None:
    body = ASK | {"messages": [USER | {"content": "the cat " * 100_000}]}
    found = error(client.post(CHAT, json=body), 400, "messages")
    assert "tokens, and the model's context is 2048" in found and 'overflow "drop_oldest"' in found


def raw(host: Hosted, request: bytes, timeout_s: float = 10) -> bytes:
    """The bytes that come back for the bytes sent, until the server closes or nothing comes."""
    parts = urlsplit(host.url)
    with socket.create_connection((parts.hostname, parts.port), timeout_s) as connection:
        connection.sendall(request)
        connection.settimeout(2)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except TimeoutError:
            pass
        return answer


def test_lengths_that_lie_hurt_nobody(host: Hosted, client: httpx.Client) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    body = json.dumps(ASK)
    longer = f"{head}content-length: {len(body)}\r\n\r\n{body}and more than was said"
    # What is left over is no request; the server may notice before it has answered.
    assert raw(host, longer.encode())[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 400")
    shorter = f"{head}content-length: {len(body) + 100}\r\n\r\n{body}"
    assert raw(host, shorter.encode()) == b""  # it waits for the rest, which never comes
    cut = f"{head}content-length: 20\r\n\r\n{body[:20]}"
    assert raw(host, cut.encode()).startswith(b"HTTP/1.1 400")
    for length in ("-1", "abc", "1e9"):
        answer = raw(host, f"{head}content-length: {length}\r\n\r\n{body}".encode())
        assert answer.startswith(b"HTTP/1.1 400") and b"500" not in answer[:20]
    assert client.post(CHAT, json=ASK).status_code == 200


# Routes


def test_wrong_methods_and_paths(client: httpx.Client) -> None:
    response = client.get(CHAT)
    assert error(response, 405).startswith(f"GET {CHAT}") and response.headers["allow"] == "POST"
    error(client.post("/v1/models"), 405)
    for path in ("/v1/nothing", "/nothing", "/v1", "/v1/embeddings"):
        assert path in error(client.get(path), 404)
    error(client.get("/v1/models/nobody"), 404, "model")


@pytest.mark.parametrize("given", ["my-request:1.a", "x" * 128])
def test_the_callers_request_id_comes_back(client: httpx.Client, given: str) -> None:
    for path in ("/health", "/nothing"):
        response = client.get(path, headers={"x-request-id": given})
        assert response.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "<script>"])
def test_a_strange_request_id_is_replaced(client: httpx.Client, given: str) -> None:
    (request_id,) = client.get("/health", headers={"x-request-id": given}).headers.get_list(
        "x-request-id"
    )
    assert request_id != given and len(request_id) == 32


def test_the_log_has_a_line_for_each_request(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        client.post(CHAT, json=ASK | {"user": "Ann\nRoot"}, headers={"x-request-id": "mine"})
        client.get("/no%0Aforged%20line")
        wait_until(lambda: len(caplog.records) == 2)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"mine POST {CHAT} 200 ") and first.endswith(" user='Ann\\nRoot'")
    assert "/no\\nforged line 404" in second


# Keys


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sk-wrong"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": "Bearer"},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"x-api-key": KEY},
        {"api-key": KEY},
        {"cookie": f"authorization=Bearer {KEY}"},
        {"authorization": "Bearer \xff"},
    ],
    ids=str,
)
def test_without_the_right_key_nothing_is_answered(locked: Hosted, headers: dict[str, str]) -> None:
    with locked.client() as client:
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        for request in (("GET", "/v1/models"), ("POST", CHAT), ("POST", PLAIN)):
            response = client.request(*request, headers=encoded, json=ASK)  # pyright: ignore
            message = error(response, 401)
            assert "API key" in message and KEY not in response.text
            assert response.headers["www-authenticate"] == "Bearer"
        query = client.get("/v1/models", params={"api_key": KEY, "key": KEY})
        error(query, 401)


@pytest.mark.parametrize("given", [f"Bearer {KEY}", f"bearer  {KEY}", f"Bearer {OTHER_KEY}"])
def test_with_a_right_key_all_is_answered(locked: Hosted, given: str) -> None:
    headers = [(b"authorization", given.encode())]
    with locked.client() as client:
        assert client.get("/v1/models", headers=headers).status_code == 200
        assert client.post(CHAT, json=ASK, headers=headers).status_code == 200


def test_health_needs_no_key_and_bodies_are_bounded_behind_it(locked: Hosted) -> None:
    with locked.client() as client:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ready").json() == {"status": "ready", "model": "brief"}
        long = ASK | {"messages": [USER | {"content": "a" * 2000}]}
        assert client.post(CHAT, json=long).status_code == 401
        right = {"authorization": f"Bearer {KEY}"}
        assert "2,000 bytes" in error(client.post(CHAT, json=long, headers=right), 413)


def test_more_replies_than_ever_fit_are_refused_for_good(client: httpx.Client) -> None:
    ask = {"model": "brief", "prompt": ["a", "b", "c"], "max_tokens": 2}
    found = error(client.post(PLAIN, json=ask | {"n": 5}), 400, "prompt")
    assert "3 prompts times n 5 is 15 replies" in found and "12 at once (slots and queue)" in found
    error(client.post(PLAIN, json=ask | {"prompt": "a", "n": 13}), 400, "n")
    assert client.post(PLAIN, json=ask | {"n": 4}).status_code == 200


# At random

NUMBER = st.one_of(st.integers(-3, 4), st.floats(width=16), st.none(), st.booleans(), st.text())
TEXT = st.one_of(st.text(max_size=20), st.none(), st.integers(), st.lists(st.text(max_size=5)))
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("temperature", "top_p", "repetition_penalty", "n", "seed"), NUMBER),
        **dict.fromkeys(("logprobs", "top_logprobs", "stream", "penalise_prompt"), NUMBER),
        **dict.fromkeys(("presence_penalty", "top_k", "best_of", "echo"), NUMBER),
        **dict.fromkeys(("stop", "user", "suffix", "overflow", "tools", "logit_bias"), TEXT),
    },
)
ROLES = st.sampled_from(["system", "user", "assistant", "developer", "tool", ""])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": TEXT}, optional={"name": TEXT}), max_size=4
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def answered(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    """200 or 400, whatever is asked."""
    content = json.dumps(body).encode()
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    if response.status_code != 200:
        assert response.json()["error"]["message"] and response.status_code == 400, response.text
    elif response.headers["content-type"].startswith("text/event-stream"):
        assert response.text.endswith("data: [DONE]\n\n") and '"error"' not in response.text
    else:
        assert response.json()["choices"]


@QUICK
@given(fields=NEARLY, messages=MESSAGES)
def test_nearly_right_chats(client: httpx.Client, fields: Any, messages: Any) -> None:
    answered(
        client, CHAT, {"model": "brief", "messages": messages or [USER], "max_tokens": 2} | fields
    )


@QUICK
@given(fields=NEARLY, prompt=st.one_of(TEXT, st.lists(st.integers(-2, 400), max_size=5)))
def test_nearly_right_completions(client: httpx.Client, fields: Any, prompt: Any) -> None:
    answered(client, PLAIN, {"model": "brief", "prompt": prompt, "max_tokens": 2} | fields)


def test_the_openapi_is_kept(host: Hosted) -> None:
    """What schemathesis makes of the app's OpenAPI gets no 500, and documented statuses only."""
    schema = schemathesis.openapi.from_url(f"{host.url}/openapi.json")
    statuses = set()

    @settings(max_examples=100, deadline=None)
    @given(case=schema.as_strategy())
    def kept(case: Any) -> None:
        response = case.call()
        case.validate_response(response, checks=[not_a_server_error, status_code_conformance])
        statuses.add(response.status_code)

    kept()
    assert {200, 400} <= statuses
