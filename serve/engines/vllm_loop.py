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
from serve.engines.model_loop import ModelLoop
from serve.engines.subscription import EngineFailed, Subscription

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
        return prompt_ids(self.tokenizer, turns, system)

    def text_ids(self, text: str) -> list[int]:
        return text_ids(self.tokenizer, text)


class VllmLoop(ModelLoop):
    def __init__(
        self, name: str, path: str, process: Any, flags: list[str], slots: int, queue: int
    ) -> None:
        """Prepare to start the server.

        Args:
            process: actor of `serve.engines.vllm_process`.
            flags: further flags of vLLM's server.
            slots: replies that vLLM shall decode at once.
        """
        super().__init__(name, queue)
        self.path, self.process = path, process
        self.flags = [*flags, "--max-num-seqs", str(slots)]
        self.slots = slots
        self.http = httpx2.AsyncClient(timeout=None, limits=httpx2.Limits(max_connections=None))
        self.watching: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str | None:
        return f"vLLM's server of {self.name} is broken: {self.failure}" if self.failure else None

    async def loaded(self) -> VllmEngine:
        """Wait until the server answers; refuse where it ended, or takes too long."""
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
        while self.failure is None:
            await asyncio.sleep(POLL_S)
            if ended := await self.process.ended.remote():
                self.failure = EngineFailed(f"vLLM's server ended, {ended}")

    def begin(self, requests: Sequence[Request], subscription: Subscription) -> None:
        for request in requests:
            self.requests[request.id] = asyncio.create_task(self.answer(request, subscription))

    def unsubscribe(self, subscription: Subscription) -> None:
        """Cancel what a subscription still waits for; the server notices the closed connection."""
        left = [task for id in subscription.ids if (task := self.requests.get(id))]
        for task in left:
            task.cancel()
        if left:
            self.metrics.cancelled.inc(len(left))

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
            self.requests.pop(request.id, None)

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        tokens: list[int] = []
        generated = ""
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
                    generated += choice["text"]
                    reply = finished(request, choice, generated, tokens)
                    text = choice["text"] if request.stream else ""
                    for place, token in enumerate(new[:-1]):
                        yield Event(request.id, token, "", logprobs[place])
                    if new or reply or text:
                        last = new[-1] if new else tokens[-1] if tokens else 0
                        logprob = logprobs[len(new) - 1] if new else None
                        yield Event(request.id, last, text, logprob, reply)

    def body(self, request: Request) -> dict[str, Any]:
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
        import ray

        if self.watching:
            self.watching.cancel()
        ray.kill(self.process)


def finished(
    request: Request, choice: dict[str, Any], text: str, tokens: list[int]
) -> CompletionOutput | None:
    """Return the reply, with its last piece."""
    if choice["finish_reason"] is None:
        return None
    halted = choice.get("stop_reason")
    by = halted if isinstance(halted, str) else None
    stopped = choice["finish_reason"] == "stop" and by is None
    return CompletionOutput(request.id, text, list(tokens), stopped, len(request.ids), by)


def read_logprobs(choice: dict[str, Any]) -> list[Logprob | None]:
    """Return the log probabilities of a piece's tokens, by id."""
    logprobs = choice.get("logprobs")
    if not logprobs:
        return [None] * len(choice.get("token_ids") or [])
    found: list[Logprob | None] = []
    for token, logprob, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        pairs = sorted(((number(t), p) for t, p in (top or {}).items()), key=lambda pair: -pair[1])
        found.append(Logprob(number(token), logprob, tuple(pairs)))
    return found


def number(token: str) -> int:
    """Return the id in vLLM's `token_id:123`."""
    return int(token.removeprefix(IDS))
