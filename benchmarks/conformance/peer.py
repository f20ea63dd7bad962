"""A server that speaks OpenAI's API, one check of a field, and what it came to."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2 as httpx

Verdict = Literal["honoured", "refused", "ignored", "wrong"]
COLOURS = {"honoured": "green", "refused": "green", "ignored": "yellow", "wrong": "red"}
QUESTION = "What is the capital of France? Tell me all about it."
PROMPT = "The capital of France is"
Body = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What a check came to."""

    verdict: Verdict
    detail: str = ""


class Refused(Exception):
    """The server refused a request, which ends a check."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"{response.status_code}: {response.text[:200]}")
        self.status, self.text = response.status_code, response.text


@dataclass
class Peer:
    """A server that speaks OpenAI's API, and the model to ask."""

    url: str
    model: str
    key: str | None = None
    timeout_s: float = 300.0
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self.client = httpx.Client(headers=headers, timeout=self.timeout_s)

    def post(self, path: str, body: Body) -> httpx.Response:
        """The response to any body."""
        return self.client.post(f"{self.url.rstrip('/')}/{path}", json=body)

    def ask(self, kind: str, **fields: Any) -> Body:
        """An answer of a kind of completion.

        Raises:
            Refused: the server refused.
        """
        response = self.post(PATHS[kind], self.body(kind, **fields))
        if response.status_code != 200:
            raise Refused(response)
        return response.json()

    def body(self, kind: str, **fields: Any) -> Body:
        """A request: a short greedy reply unless the fields say otherwise; None leaves out."""
        content: Body = {"prompt": PROMPT}
        if kind == "chat":
            content = {"messages": [{"role": "user", "content": QUESTION}]}
        asked = {"model": self.model, "temperature": 0, "max_tokens": 12} | content | fields
        return {name: value for name, value in asked.items() if value is not None}

    def events(self, kind: str, **fields: Any) -> list[str]:
        """The data of a stream's events."""
        response = self.post(PATHS[kind], self.body(kind, stream=True, **fields))
        if response.status_code != 200:
            raise Refused(response)
        if not response.headers["content-type"].startswith("text/event-stream"):
            return []
        lines = response.text.replace("\r", "").split("\n")
        return [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]

    def chunks(self, kind: str, **fields: Any) -> list[Body]:
        return [json.loads(data) for data in self.events(kind, **fields) if data != "[DONE]"]


PATHS = {"chat": "chat/completions", "completions": "completions"}
Holds = Callable[[Peer, str], bool | Found]


@dataclass(frozen=True)
class Check:
    """One field of one kind of completion."""

    kind: str
    """One of `PATHS`."""
    field: str
    holds: Holds
    note: str = ""

    def __str__(self) -> str:
        return f"{self.kind}-{self.field}{'-' if self.note else ''}{self.note}".replace(" ", "_")

    def run(self, peer: Peer) -> Found:
        """See what the server makes of the field."""
        try:
            found = self.holds(peer, self.kind)
        except Refused as error:
            if error.status in (400, 422) and self.field.split(".")[0] in error.text:
                return Found("refused")
            return Found("wrong", str(error))
        except (KeyError, IndexError, TypeError, ValueError, httpx.HTTPError) as error:
            return Found("wrong", f"{type(error).__name__}: {error}")
        if isinstance(found, Found):
            return found
        return Found("honoured") if found else Found("ignored")


def text_of(answer: Body, choice: int = 0) -> str:
    found = answer["choices"][choice]
    return found["message"]["content"] if "message" in found else found["text"]


def text(peer: Peer, kind: str, **fields: Any) -> str:
    """What the first choice says."""
    return text_of(peer.ask(kind, **fields))


def said(chunks: list[Body]) -> str:
    """The text of a stream's first choice."""
    choices = [choice for chunk in chunks for choice in chunk["choices"] if not choice["index"]]
    parts = [c["delta"].get("content") if "delta" in c else c.get("text") for c in choices]
    return "".join(part or "" for part in parts)


def right(holds: bool, detail: str) -> Found:
    return Found("honoured") if holds else Found("wrong", detail)
