"""The model that answers on the page, and a reply as it comes.

    turn = Turn("assistant", "")
    async for _ in stream_reply(client, body, turn, timing, stop):
        show(turn.content)

A `ChatClient` is anything with the API's two calls; in the Serve app it is the engine's replica.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from serve.conversations.dialogue import SEEDS, Dialogue, Turn, clean

LOADING_WAIT_S = 2.0
LOADING_LIMIT_S = 300.0
LOADING = "model_loading"
MAX_ERROR_CHARACTERS = 200


class ChatClient(Protocol):
    """An OpenAI API's two calls that a page needs."""

    async def models(self) -> list[dict[str, Any]]:
        """Return `GET /v1/models`' entries: `revision`, `max_model_len`, `default`, `examples`."""
        ...

    def chat(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield chunks of `POST /v1/chat/completions`; closing the generator cancels."""
        ...


@dataclass
class ReplyTiming:
    """How a reply came, and what the page is told beside its text."""

    started: float = field(default_factory=time.perf_counter)
    first: float | None = None
    """When the first text came."""
    last: float = 0.0
    loading: bool = False
    """True while the model is being loaded."""
    error: str | None = None
    """Why there is no reply, or no more of it."""

    @property
    def first_token_s(self) -> float | None:
        """Return the seconds from the question to the first text."""
        return None if self.first is None else self.first - self.started

    def tokens_per_s(self, tokens: int | None) -> float | None:
        """Return the tokens after the first, by the second."""
        if tokens is None or tokens < 2 or self.first is None or self.last <= self.first:
            return None
        return (tokens - 1) / (self.last - self.first)


@dataclass(frozen=True)
class ReplyOptions:
    model: str
    sampling: dict[str, Any]
    """Decoding fields by the API's names; all but the seed."""
    seed: int | None = None
    """None draws one for each reply."""

    def turn(self) -> Turn:
        """Return the turn that the reply fills, with its seed."""
        seed = secrets.randbelow(SEEDS) if self.seed is None else self.seed
        return Turn("assistant", "", model=self.model, seed=seed, sampling=self.sampling)


def request_body(dialogue: Dialogue, turn: Turn) -> dict[str, Any]:
    """Return the body of a chat completion that answers a dialogue by a turn."""
    return {
        "model": turn.model,
        "messages": dialogue.messages(),
        **turn.sampling,
        "seed": turn.seed,
        "overflow": "drop_oldest",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def stream_reply(
    client: ChatClient, body: dict[str, Any], turn: Turn, timing: ReplyTiming, stop: asyncio.Event
) -> AsyncGenerator[None, None]:
    """Fill a turn with a reply and yield at each news; its end always ends the engine's request."""
    deadline = time.monotonic() + LOADING_LIMIT_S
    while not stop.is_set():
        timing.loading = False
        async with aclosing(chunks(client, body, stop)) as stream:
            async for chunk in stream:
                take(chunk, turn, timing)
                if not timing.loading:
                    yield
        if not timing.loading or time.monotonic() > deadline:
            break
        yield
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOADING_WAIT_S)
        timing.started = time.perf_counter()
    if timing.loading and not stop.is_set():
        timing.error = "The model is still being loaded. Try again in a minute."
    if turn.finish_reason is None:
        if not stop.is_set() and not timing.error:
            timing.error = "The connection to the model ended before the reply did."
        turn.finish_reason = "error" if timing.error else "stopped"
    yield


async def chunks(
    client: ChatClient, body: dict[str, Any], stop: asyncio.Event
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield chunks until the last or until `stop`; the stream is closed in any case."""
    stream = client.chat(body)
    stopped = asyncio.ensure_future(stop.wait())
    coming: asyncio.Future[dict[str, Any]] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(stream))
            await asyncio.wait({coming, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                return
            try:
                chunk = coming.result()
            except StopAsyncIteration:
                return
            except Exception as error:  # whatever broke the way to the engine ends this reply alone
                chunk = {"error": {"message": f"The model cannot be reached ({brief(error)})."}}
            yield chunk
            if "error" in chunk:
                return
    finally:
        stopped.cancel()
        if coming is not None and not coming.done():
            coming.cancel()
            await asyncio.wait({coming})
        with suppress(Exception):
            await stream.aclose()


def brief(error: Exception) -> str:
    """Return the last line of an error; remote ones carry their traceback before it."""
    lines = str(error).strip().splitlines()
    return (lines[-1].strip() if lines else type(error).__name__)[:MAX_ERROR_CHARACTERS]


def take(chunk: dict[str, Any], turn: Turn, timing: ReplyTiming) -> None:
    """Apply a chunk to the turn and its timing."""
    if error := chunk.get("error"):
        timing.loading = error.get("code") == LOADING
        timing.error = None if timing.loading else str(error.get("message", error))
        return
    about = chunk.get("lima") or {}
    turn.model = chunk.get("model") or turn.model
    turn.revision = about.get("revision") or chunk.get("system_fingerprint") or turn.revision
    turn.seed = about.get("seed", turn.seed)
    turn.dropped_messages = about.get("dropped_messages", turn.dropped_messages) or 0
    for choice in chunk.get("choices") or []:
        if text := (choice.get("delta") or {}).get("content"):
            turn.content += clean(text)
            timing.last = time.perf_counter()
            timing.first = timing.first or timing.last
        turn.finish_reason = choice.get("finish_reason") or turn.finish_reason
    if usage := chunk.get("usage"):
        turn.prompt_tokens = usage["prompt_tokens"]
        turn.completion_tokens = usage["completion_tokens"]


def outcome(turn: Turn, timing: ReplyTiming) -> str:
    """Return what a reader must know of how a reply ended."""
    empty = not turn.content.strip()
    notes = []
    if turn.dropped_messages:
        messages = "message" if turn.dropped_messages == 1 else "messages"
        notes.append(
            f"The conversation has outgrown the model's context: the oldest "
            f"{turn.dropped_messages} {messages} were left out."
        )
    if timing.error:
        notes.append(timing.error if empty else f"The reply broke off: {timing.error}")
    elif turn.finish_reason == "length":
        notes.append("The reply hit its length limit and may be cut off.")
    elif turn.finish_reason == "stopped":
        notes.append("Stopped." if empty else "Stopped; what was said so far is kept.")
    elif empty:
        notes.append("The model ended its reply without a word.")
    return " ".join(notes)
