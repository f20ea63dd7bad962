"""Checks of the fields that may be refused, and of requests that must be."""

import json
from typing import Any

from benchmarks.conformance.peer import PATHS, Found, Holds, Peer, text

# What may be refused


def nothing_shows(name: str, value: Any) -> Holds:
    """A field whose effect would show in no answer of a text model: taken, it is ignored."""

    def holds(peer: Peer, kind: str) -> bool:
        peer.ask(kind, **{name: value})
        return False

    return holds


def taken(name: str, value: Any) -> Holds:
    """A field that only informs the server: taking it is honouring it."""

    def holds(peer: Peer, kind: str) -> bool:
        return bool(peer.ask(kind, **{name: value}))

    return holds


def json_object(peer: Peer, kind: str) -> bool:
    try:
        json.loads(text(peer, kind, response_format={"type": "json_object"}, max_tokens=200))
    except json.JSONDecodeError:
        return False
    return True


TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}


def tools(peer: Peer, kind: str) -> bool:
    """A tool that must be called is called."""
    answer = peer.ask(kind, tools=[TOOL], tool_choice="required", max_tokens=100)
    return bool(answer["choices"][0]["message"].get("tool_calls"))


def logit_bias(peer: Peer, kind: str) -> bool:
    """A biased token is all that is said."""
    return text(peer, kind, logit_bias={"5": 100}) != text(peer, kind)


def best_of(peer: Peer, kind: str) -> bool:
    """More is generated than is told."""
    told = peer.ask(kind, best_of=4, temperature=1.5)["usage"]["completion_tokens"]
    return told > peer.ask(kind)["usage"]["completion_tokens"]


def suffix(peer: Peer, kind: str) -> bool:
    """What follows the text is read."""
    plain = peer.ask(kind)["usage"]["prompt_tokens"]
    return peer.ask(kind, suffix=" and it lies on the Seine.")["usage"]["prompt_tokens"] > plain


# What must be refused


def status(peer: Peer, kind: str, expected: int, **fields: Any) -> Found:
    """A request that must be refused with a status, in OpenAI's shape."""
    response = peer.post(PATHS[kind], peer.body(kind, **fields))
    if response.status_code != expected:
        return Found("wrong", f"{response.status_code}: {response.text[:100]}")
    shape = response.json().get("error")
    if not (isinstance(shape, dict) and shape.get("message")):
        return Found("wrong", f"no OpenAI error: {response.text[:100]}")
    return Found("refused")


def overflow(peer: Peer, kind: str) -> Found:
    """A prompt beyond the context is 400, not an answer to something else."""
    long = "word " * 150_000
    if kind == "chat":
        return status(peer, kind, 400, messages=[{"role": "user", "content": long}])
    return status(peer, kind, 400, prompt=long)


def unknown_model(peer: Peer, kind: str) -> Found:
    return status(peer, kind, 404, model="surely-no-such-model")


def out_of_range(name: str, value: Any) -> Holds:
    """A value outside the field's range is 400."""
    return lambda peer, kind: status(peer, kind, 400, **{name: value})
