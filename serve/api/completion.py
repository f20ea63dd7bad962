"""Requests of the API made into requests of the engine.

Every answer tells what made it: `system_fingerprint` is the revision of the model, and `lima` holds
the revision, the seed (also where none was given) and how many messages were dropped, so that the
same request with that seed gives the same reply.
"""

import asyncio
import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lima_ray.engine.detokenizer import decode
from lima_ray.engine.requests import Request
from lima_ray.web.requests import HttpError
from serve.api.prompts import dialogue_prompt, is_large, text_prompts
from serve.api.schema import ChatRequest, CompletionRequest
from serve.engines.pool import LoadedModel, ModelPool

THREADS = ThreadPoolExecutor(2, thread_name_prefix="tokenise")
Json = dict[str, Any]


@dataclass
class Completion:
    """One request of the API, and the requests of the engine that answer it."""

    body: ChatRequest | CompletionRequest
    served: LoadedModel
    prompts: list[list[int]]
    seed: int
    dropped: int = 0
    """Messages left out of the prompt."""
    every_s: float = 0
    """Pieces of a stream wait for each other so long."""
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    requests: list[Request] = field(default_factory=list)

    @property
    def chat(self) -> bool:
        """Whether a dialogue is answered, not plain text."""
        return isinstance(self.body, ChatRequest)

    @property
    def common(self) -> Json:
        """Return the fields that every part of the response has."""
        kind = "chat.completion" if self.chat else "text_completion"
        kind += ".chunk" if self.chat and self.body.stream else ""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.body.model,
            "system_fingerprint": self.served.revision,
        }

    @property
    def lima(self) -> Json:
        """Return what made the response: revision, seed, dropped messages."""
        return {
            "revision": self.served.revision,
            "seed": self.seed,
            "dropped_messages": self.dropped,
        }

    def usage(self, generated: int) -> Json:
        """Return the numbers of tokens; EOT counts as generated."""
        prompt = sum(map(len, self.prompts))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
        }

    def echo_of(self, index: int) -> str:
        """Return the prompt of a choice, where its text begins with it."""
        if not (isinstance(self.body, CompletionRequest) and self.body.echo):
            return ""
        prompt = index // (self.body.n or 1)
        given = self.body.prompts[prompt]
        if isinstance(given, str):
            return given
        return decode(self.served.engine.tokenizer, given)


async def prepare(models: ModelPool, body: ChatRequest | CompletionRequest) -> Completion:
    """Check that a request can be answered, and make its prompts; HttpError says why not."""
    served = await models.get(body.model)
    check_penalty(served, body)
    seed = random.getrandbits(31) if body.seed is None else body.seed
    completion = Completion(body, served, [], seed, every_s=models.settings.stream_every_s)
    left = threading.Event()
    if isinstance(body, ChatRequest):
        completion.id = f"chatcmpl-{uuid.uuid4().hex}"
        large = is_large([message.text for message in body.messages])
        make = partial(dialogue_prompt, served.engine, body, left)
    else:
        completion.id = f"cmpl-{uuid.uuid4().hex}"
        large = is_large(body.prompts)
        make = partial(text_prompts, served.engine, body, left)
    try:
        if large:
            made = await asyncio.get_running_loop().run_in_executor(THREADS, make)
        else:
            made = make()
        completion.prompts, completion.dropped = made
    finally:
        left.set()
    check_reply_count(served, len(completion.prompts), body.n or 1)
    context = served.engine.context
    for number, ids in enumerate(completion.prompts):
        which = "" if len(completion.prompts) == 1 else f"[{number}]"
        check_context(ids, context, "messages" if completion.chat else f"prompt{which}")
        for choice in range(body.n or 1):
            completion.requests.append(
                Request(
                    f"{completion.id}/{len(completion.requests)}",
                    ids,
                    body.sampling(seed + choice, body.max_new_tokens, context),
                    stop=body.stops,
                    stream=bool(body.stream),
                    logprobs=body.alternatives,
                )
            )
    return completion


def check_penalty(served: LoadedModel, body: ChatRequest | CompletionRequest) -> None:
    """Refuse a form of the penalty that the engine does not have."""
    if body.penalise_prompt is False and getattr(served.engine, "penalises_prompt", False):
        raise HttpError(
            400,
            "penalise_prompt (false): vLLM's penalty counts the prompt's tokens; leave it out, or "
            "send repetition_penalty 1 without it",
            "penalise_prompt",
        )


def check_reply_count(served: LoadedModel, prompts: int, choices: int) -> None:
    most = served.loop.most
    if prompts * choices > most:
        raise HttpError(
            400,
            f"{prompts} prompts times n {choices} is {prompts * choices} replies, and "
            f"{served.loop.name} takes {most} at once (slots and queue); ask for fewer, or send "
            "several requests",
            "n" if prompts == 1 else "prompt",
        )


def check_context(ids: list[int], context: int, field: str) -> None:
    if len(ids) >= context:
        raise HttpError(
            400,
            f"the prompt has {len(ids)} tokens, and the model's context is {context}, prompt and "
            "reply together; shorten it"
            + (', or send overflow "drop_oldest"' if field == "messages" else ""),
            field,
            "context_length_exceeded",
        )
