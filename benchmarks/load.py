"""A seeded workload, what it is measured by, and the client that sends it to an OpenAI server.

    python -m benchmarks.load http://127.0.0.1:8000/v1 MODEL asks.json --concurrency 16 --stream

`benchmarks/serve.py` runs this as a process of its own. It shares its cores with the server that it
measures, so it is frugal: plain asyncio streams note when bytes came, and what the bytes say is
read when all replies are in. Each of the concurrent clients asks again as soon as it is answered.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h11
import numpy as np
import tyro


@dataclass(frozen=True)
class Ask:
    """One request."""

    prompt: str
    prompt_tokens: int
    max_new_tokens: int
    """Tokens of the reply; it ends before where the model says EOS, which is counted."""


@dataclass
class Answer:
    """What came back for one request; times are seconds of one monotonic clock."""

    sent_s: float
    ended_s: float = 0.0
    text_s: list[float] = field(default_factory=list)
    """When pieces of text came, where it was streamed."""
    text: str = ""
    n_tokens: int = 0
    prompt_tokens: int = 0
    error: str = ""


@dataclass(frozen=True)
class Shape:
    """How long prompts and replies are; `share_long` of the prompts have the long range."""

    short: tuple[int, int]
    long: tuple[int, int]
    share_long: float
    reply: tuple[int, int]


SHAPES = {
    "ragged": Shape((16, 512), (16, 512), 0, (32, 256)),
    "mixed": Shape((16, 64), (1024, 1536), 0.25, (32, 128)),
}
"""What speed is measured on, and a load in which long prompts could hold up short ones."""


def workload(tokenizer: Any, shape: str, count: int, seed: int) -> list[Ask]:
    """Prompts of random words, each word one token, with the token counts that the shape draws."""
    drawn, sizes = random.Random(seed), SHAPES[shape]
    words = whole_words(tokenizer)
    bos = len(tokenizer("").input_ids)
    asks = []
    for number in range(count):
        is_long = sizes.share_long and number % round(1 / sizes.share_long) == 0
        length = drawn.randint(*(sizes.long if is_long else sizes.short))
        text = "".join(drawn.choices(words, k=length - bos))
        asks.append(Ask(text, length, drawn.randint(*sizes.reply)))
    wrong = [a for a in asks if len(tokenizer(a.prompt).input_ids) != a.prompt_tokens]
    if wrong:
        raise SystemExit(f"{len(wrong)} prompts have another number of tokens than was drawn")
    return asks


def whole_words(tokenizer: Any) -> list[str]:
    """Words, with the space before them, that are one token each."""
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    words = [
        text for text in texts if text[:1] == " " and text[1:].isascii() and text[1:].isalpha()
    ]
    ids = tokenizer(words, add_special_tokens=False).input_ids
    return [word for word, tokens in zip(words, ids, strict=True) if len(tokens) == 1]


def measures(asks: list[Ask], answers: list[Answer]) -> dict[str, Any]:
    """The figures of a run.

    `ttft`, time to first token: from sending a request to its first piece of text. `itl`,
    inter-token latency: seconds between two pieces of text of one reply, over all replies; a piece
    may hold more than one token where the server sends several at once, so `tokens_per_piece` is
    told. `tpot`: seconds from first to last piece over the tokens but one, for each reply.
    """
    good = [a for a in answers if not a.error]
    first = [a.text_s[0] - a.sent_s for a in good if a.text_s]
    gaps = [float(gap) for a in good for gap in np.diff(a.text_s)]
    per_token = [
        (a.text_s[-1] - a.text_s[0]) / (a.n_tokens - 1) for a in good if a.text_s and a.n_tokens > 1
    ]
    wall_s = max(a.ended_s for a in answers) - min(a.sent_s for a in answers)
    tokens = sum(a.n_tokens for a in good)
    pieces = sum(len(a.text_s) for a in good)
    pairs = list(zip(asks, answers, strict=True))
    return {
        "tokens_per_s": tokens / wall_s,
        "tokens": tokens,
        "wall_s": wall_s,
        "requests": len(answers),
        "errors": [a.error for a in answers if a.error],
        "short_replies": sum(a.n_tokens < ask.max_new_tokens for ask, a in pairs if not a.error),
        "miscounted_prompts": sum(
            a.prompt_tokens not in (0, ask.prompt_tokens) for ask, a in pairs if not a.error
        ),
        "tokens_per_piece": tokens / pieces if pieces else None,
        "ttft_s": spread(first),
        "itl_s": spread(gaps),
        "tpot_s": spread(per_token),
        "whole_s": spread([a.ended_s - a.sent_s for a in good]),
        "texts": [a.text for a in answers],
    }


def spread(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    p50, p95 = np.quantile(seconds, (0.5, 0.95))
    return {"p50": float(p50), "p95": float(p95), "worst": max(seconds)}


def main(
    url: tyro.conf.Positional[str],
    model: tyro.conf.Positional[str],
    asks: tyro.conf.Positional[Path],
    concurrency: int = 8,
    stream: bool = False,
    extra: str = "{}",
    key: str = "",
    limit_s: float = 300,
) -> None:
    """Send a workload and print its figures as JSON.

    Args:
        url: base URL of an OpenAI server, ending in /v1.
        model: name of the model there.
        asks: file with the workload.
        concurrency: requests under way at once.
        stream: have replies streamed.
        extra: further fields of the request, as JSON.
        key: the server's API key, where it wants one.
        limit_s: requests that are not answered by then are errors.
    """
    rows, fields = load(asks), json.loads(extra)
    bodies = [body(model, ask, stream, fields) for ask in rows]
    answers = asyncio.run(send_all(url, key, bodies, concurrency, stream, limit_s))
    json.dump(measures(rows, answers), sys.stdout)


async def send_all(
    url: str, key: str, bodies: list[bytes], concurrency: int, stream: bool, limit_s: float
) -> list[Answer]:
    answers: dict[int, Answer] = {}
    raw: dict[int, list[tuple[float, bytes]]] = {}
    left: Iterator[int] = iter(range(len(bodies)))

    async def client() -> None:
        for number in left:
            answers[number] = Answer(sent_s=time.perf_counter())
            raw[number] = []
            try:
                await send(url, key, bodies[number], raw[number])
            except OSError as error:
                answers[number].error = f"{type(error).__name__}: {error}"
            answers[number].ended_s = time.perf_counter()

    clients = [asyncio.create_task(client()) for _ in range(concurrency)]
    _, unfinished = await asyncio.wait(clients, timeout=limit_s)
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)
    now_s = time.perf_counter()
    for number in range(len(bodies)):
        answer = answers.setdefault(number, Answer(sent_s=now_s, ended_s=now_s))
        if not answer.ended_s or number not in raw:
            answer.ended_s, answer.error = now_s, f"no answer within {limit_s:g} s"
        if not answer.error:
            read(answer, raw[number], stream)
    return [answers[number] for number in range(len(bodies))]


def body(model: str, ask: Ask, stream: bool, extra: dict[str, Any]) -> bytes:
    """A request of /v1/completions, greedy."""
    fields = {"model": model, "prompt": ask.prompt, "temperature": 0}
    fields |= {"max_tokens": ask.max_new_tokens}
    if stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    # null takes a field away, for a server that refuses it.
    return json.dumps({k: v for k, v in (fields | extra).items() if v is not None}).encode()


async def send(url: str, key: str, content: bytes, raw: list[tuple[float, bytes]]) -> None:
    """One request on a connection of its own; what comes is kept with its time."""
    parts = urlsplit(url)
    assert parts.hostname
    secret = f"Authorization: Bearer {key}\r\n" if key else ""
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(
            f"POST {parts.path}/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            f"{secret}Connection: close\r\n\r\n".encode()
            + content
        )
        while data := await reader.read(2**16):
            raw.append((time.perf_counter(), data))
    finally:
        writer.close()


def read(answer: Answer, raw: list[tuple[float, bytes]], stream: bool) -> None:
    """Fill an answer from the bytes of its response."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "localhost")]))
    connection.send(h11.EndOfMessage())
    status, pieces = 0, list[tuple[float, bytes]]()
    try:
        for came_s, data in [*raw, (answer.ended_s, b"")]:
            connection.receive_data(data)
            while not isinstance(event := connection.next_event(), type(h11.NEED_DATA)):
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    pieces.append((came_s, bytes(event.data)))
                elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                    break
    except h11.RemoteProtocolError as error:
        answer.error = f"the response ended early: {error}"
        return
    content = b"".join(data for _, data in pieces)
    if status != 200:
        answer.error = f"{status}: {content[:300].decode(errors='replace')}"
        return
    for came_s, chunk in events(pieces) if stream else [(answer.ended_s, json.loads(content))]:
        if "error" in chunk:
            answer.error = str(chunk["error"])[:300]
        if usage := chunk.get("usage"):
            answer.n_tokens = usage["completion_tokens"]
            answer.prompt_tokens = usage["prompt_tokens"]
        text = "".join(choice.get("text") or "" for choice in chunk.get("choices") or [])
        answer.text += text
        if text and stream:
            answer.text_s.append(came_s)
    if not answer.n_tokens and not answer.error:
        answer.error = "the server does not tell how many tokens it made"


def events(pieces: list[tuple[float, bytes]]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Server-sent events, each with the time at which its last byte came."""
    left = b""
    for came_s, data in pieces:
        *lines, left = (left + data).split(b"\n")
        for line in lines:
            said = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and said != b"[DONE]":
                yield came_s, json.loads(said)


def save(asks: list[Ask], path: Path) -> None:
    path.write_text(json.dumps([asdict(ask) for ask in asks]))


def load(path: Path) -> list[Ask]:
    return [Ask(**row) for row in json.loads(path.read_text())]


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.load", description=__doc__, use_underscores=True)
