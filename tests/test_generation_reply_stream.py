"""A reply streamed from a server that loads, breaks off, or is none."""

import json

import pytest

from benchmarks.local_servers.chat_server import DROP, ChatServer, Response, refused
from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling
from lima_ray.generation.reply_stream import StreamReply, stream_from_server

SAMPLING = Sampling()


def events(*chunks: object) -> Response:
    data = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return 200, {"Content-Type": "text/event-stream"}, f"{data}data: [DONE]\n\n".encode()


def piece(text: str | None) -> dict[str, object]:
    return {"choices": [{"delta": {} if text is None else {"content": text}}]}


def streaming(server: ChatServer, system: str = "") -> StreamReply:
    """Return what streams replies of the server's first model."""
    return stream_from_server(server.url, "", system, SAMPLING)


def test_a_server_that_loads_its_model_is_waited_for(
    server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.first = {
        "hi": [refused(503, Retry_After="0.3")] * 2
        + [events(piece(None), piece("hel"), {"choices": []}, piece("lo"))]
    }
    assert list(streaming(server, "Be kind.")(["hi"], 5)) == ["", "hel", "lo"]
    assert capsys.readouterr().out == "(loading) (loading) "
    waits = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert len(waits) == 2 and all(0.3 <= wait < 2 for wait in waits)
    assert server.requests[2] == {
        "model": "m",
        "stream": True,
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
        "seed": 5,
        "temperature": 0.7,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
    }


def test_the_replys_limit_is_sent_where_it_is_given(server: ChatServer) -> None:
    server.first = {"hi": [events(piece("hel"))]}
    limited = Sampling(max_new_tokens=7)
    assert list(stream_from_server(server.url, "", "", limited)(["hi"], 5)) == ["hel"]
    assert server.requests[0]["max_tokens"] == 7 and "context" not in server.requests[0]


def test_an_error_within_a_stream_is_raised_after_the_text_before_it(server: ChatServer) -> None:
    server.first = {"hi": [events(piece("hel"), {"error": {"message": "out of memory"}})]}
    reply = streaming(server)(["hi"], 0)
    assert next(reply) == "hel"
    with pytest.raises(UserError, match=r"^out of memory$"):
        next(reply)


def test_a_refusal_and_a_lost_connection_are_reported(server: ChatServer) -> None:
    server.first = {"hi": [refused(400, "too long"), DROP]}
    stream = streaming(server)
    with pytest.raises(UserError, match=r"^400 x too long$"):
        list(stream(["hi"], 0))
    with pytest.raises(UserError, match=rf"^lost the connection to {server.url}: "):
        list(stream(["hi"], 0))


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((200, {}, b"<html>hello"), "is no list of models; does the URL end in /v1"),
        ((200, {}, b"[1]"), "is no list of models"),
        ((200, {}, b'{"data": []}'), "has no model"),
        (refused(401, "who are you"), "/models answers 401 x who are you"),
    ],
)
def test_what_is_no_list_of_models_is_reported(
    server: ChatServer, models: Response, message: str
) -> None:
    server.models = models
    with pytest.raises(UserError, match=message):
        streaming(server)
