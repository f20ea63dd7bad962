"""vLLM in the place of our engine: the same requests and events, so the same API and page.

Prompts are made here and sent as token ids, so that template, EOT and control tokens in texts are
what they are with our engine. What differs: vLLM's repetition penalty counts the prompt's tokens
(`penalise_prompt` false is refused by name), and its replies are not bitwise the same in any
company.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from lima_ray.config.errors import UserError
from lima_ray.data.tokenizer import prompt_ids, text_ids
from lima_ray.engine.requests import CompletionOutput, Event, Logprob, Request
from serve.engines.metrics import EngineMetrics
from serve.engines.subscription import EngineFailed, QueueFull, Subscription

START_LIMIT_S = 1800.0
POLL_S = 1.0
IDS = "token_id:"


@dataclass(frozen=True)
class VllmEngine:
    """What the API needs to know of a model that vLLM holds."""

    tokenizer: Any
    context: int
    vocab: int
    slots: int
    batch_invariant: bool = False
    penalises_prompt: bool = True

    def prompt(self, turns: Sequence[str], system: str | None = None) -> list[int]:
        """Return the token ids of a dialogue to reply to."""
        return prompt_ids(self.tokenizer, turns, system)

    def text_ids(self, text: str) -> list[int]:
        """Return the token ids of plain text to go on with."""
        return text_ids(self.tokenizer, text)


class VllmLoop:
    """One model in vLLM's server, with the interface of `serve.engines.engine_loop.EngineLoop`."""

    def __init__(
        self, name: str, path: str, process: Any, flags: list[str], slots: int, queue: int
    ) -> None:
        """Start the server.

        Args:
            name: the model's.
            path: its directory.
            process: actor of `serve.engines.vllm_process`.
            flags: further flags of vLLM's server.
            slots: replies that vLLM shall decode at once.
            queue: requests that may wait beyond them.
        """
        self.name, self.path, self.process, self.queue = name, path, process, queue
        self.flags = [*flags, "--max-num-seqs", str(slots)]
        self.slots = slots
        self.metrics = EngineMetrics(name)
        self.engine: VllmEngine | None = None
        self.failure: Exception | None = None
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.http = httpx2.AsyncClient(timeout=None, limits=httpx2.Limits(max_connections=None))
        self.watching: asyncio.Task[None] | None = None

    @property
    def most(self) -> int:
        """Return how many requests are ever taken at once."""
        return self.slots + self.queue

    @property
    def in_flight(self) -> int:
        """Return how many requests wait or are being answered."""
        return len(self.tasks)

    @property
    def problem(self) -> str | None:
        """Return what is wrong with the server."""
        return f"vLLM's server of {self.name} is broken: {self.failure}" if self.failure else None

    async def loaded(self) -> VllmEngine:
        """Wait until the server answers.

        Raises:
            UserError: it ended, or takes too long.
        """
        from transformers import AutoConfig, AutoTokenizer

        tokenizer = await asyncio.to_thread(
            AutoTokenizer.from_pretrained, self.path, trust_remote_code=False
        )
        config = await asyncio.to_thread(
            AutoConfig.from_pretrained, self.path, trust_remote_code=False
        )
        named = any(flag.startswith("--dtype") for flag in self.flags)
        if str(config.dtype) == "torch.float32" and not named:
            self.flags += ["--dtype", "float32"]  # by itself vLLM would round it to 16 bits
        try:
            return await self.started(tokenizer, config.vocab_size)
        except BaseException:
            self.close()
            raise

    async def started(self, tokenizer: Any, vocab: int) -> VllmEngine:
        """Start the server and wait until it answers."""
        port = await self.process.start.remote(self.path, self.name, self.flags)
        self.url = f"http://127.0.0.1:{port}"
        deadline_s = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline_s:
            if ended := await self.process.ended.remote():
                raise UserError(f"vLLM's server did not start, {ended}")
            with suppress(httpx2.RequestError):
                listed = await self.http.get(f"{self.url}/v1/models")
                if listed.status_code == 200:
                    context = listed.json()["data"][0]["max_model_len"]
                    self.engine = VllmEngine(tokenizer, context, vocab, self.slots)
                    self.watching = asyncio.create_task(self.watch())
                    return self.engine
            await asyncio.sleep(POLL_S)
        raise UserError(f"vLLM's server did not answer within {START_LIMIT_S:g} s")

    async def watch(self) -> None:
        """Notice when the server ends."""
        while self.failure is None:
            await asyncio.sleep(POLL_S)
            if ended := await self.process.ended.remote():
                self.failure = EngineFailed(f"vLLM's server ended, {ended}")

    def subscribe(self, requests: Sequence[Request], every_s: float = 0) -> Subscription:
        """Take requests in, all or none.

        Args:
            requests: each with an id of its own, never used again.
            every_s: see `Subscription`.

        Raises:
            QueueFull: the queue is full.
            EngineFailed: the server is broken.
        """
        if self.failure or self.engine is None:
            raise EngineFailed(self.problem or f"{self.name} does not take requests now")
        over = self.in_flight + len(requests) - self.slots - self.queue
        if over > 0:
            self.metrics.refused(len(requests))
            raise QueueFull(1)
        subscription = Subscription(
            {r.id for r in requests}, self.unsubscribe, self.metrics, every_s
        )
        for request in requests:
            self.tasks[request.id] = asyncio.create_task(self.answer(request, subscription))
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Cancel what a subscription still waits for; the server notices the closed connection."""
        left = [task for id in subscription.ids if (task := self.tasks.get(id))]
        for task in left:
            task.cancel()
        if left:
            self.metrics.cancelled(len(left))

    async def answer(self, request: Request, subscription: Subscription) -> None:
        """Ask the server, and hand its tokens to the subscription."""
        try:
            async for event in self.events(request):
                subscription.receive(event)
        except (UserError, EngineFailed) as error:
            subscription.fail(error)
        except (httpx2.RequestError, KeyError, ValueError) as error:
            subscription.fail(EngineFailed(f"vLLM's server broke off: {error!r}"))
        finally:
            self.tasks.pop(request.id, None)

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """Yield a request's tokens."""
        tokens: list[int] = []
        said = ""
        body = self.body(request)
        async with self.http.stream("POST", f"{self.url}/v1/completions", json=body) as response:
            if response.status_code != 200:
                text = (await response.aread()).decode(errors="replace")
                raise UserError(f"vLLM answers {response.status_code} {text[:500]}")
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    raise EngineFailed(str(chunk["error"]))
                for choice in chunk["choices"]:
                    new, logprobs = choice.get("token_ids") or [], read_logprobs(choice)
                    tokens += new
                    said += choice["text"]
                    reply = finished(request, choice, said, tokens)
                    text = choice["text"] if request.stream else ""
                    for place, token in enumerate(new[:-1]):
                        yield Event(request.id, token, "", logprobs[place])
                    if new or reply or text:
                        last = new[-1] if new else tokens[-1] if tokens else 0
                        logprob = logprobs[len(new) - 1] if new else None
                        yield Event(request.id, last, text, logprob, reply)

    def body(self, request: Request) -> dict[str, Any]:
        """Return a request in vLLM's fields."""
        assert self.engine  # requests are taken in once it is there
        sampling = request.sampling
        return {
            "model": self.name,
            "prompt": request.ids,
            "max_tokens": request.reply_limit(self.engine.context),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
            "seed": sampling.seed,
            "stop": list(request.stop),
            "logprobs": request.logprobs,
            "return_tokens_as_token_ids": True,
            "return_token_ids": True,
            "stream": True,
        }

    async def drain(self) -> None:
        """Wait for the requests in flight, then end the server."""
        while self.in_flight:
            await asyncio.sleep(0.1)
        self.close()

    def close(self) -> None:
        """End the server and its actor."""
        import ray

        if self.watching:
            self.watching.cancel()
        ray.kill(self.process)


def finished(
    request: Request, choice: dict[str, Any], said: str, tokens: list[int]
) -> CompletionOutput | None:
    """Return the reply, with its last piece."""
    if choice["finish_reason"] is None:
        return None
    halted = choice.get("stop_reason")
    by = halted if isinstance(halted, str) else None
    stopped = choice["finish_reason"] == "stop" and by is None
    return CompletionOutput(request.id, said, list(tokens), stopped, len(request.ids), by)


def read_logprobs(choice: dict[str, Any]) -> list[Logprob | None]:
    """Return the log probabilities of a piece's tokens, by id."""
    told = choice.get("logprobs")
    if not told:
        return [None] * len(choice.get("token_ids") or [])
    found: list[Logprob | None] = []
    for token, logprob, top in zip(
        told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True
    ):
        pairs = sorted(((number(t), p) for t, p in (top or {}).items()), key=lambda pair: -pair[1])
        found.append(Logprob(number(token), logprob, tuple(pairs)))
    return found


def number(token: str) -> int:
    """Return the id in vLLM's `token_id:123`."""
    return int(token.removeprefix(IDS))
