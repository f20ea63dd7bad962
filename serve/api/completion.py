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

from lima_ray.engine import Request
from lima_ray.text import decode
from lima_ray.web.requests import HttpError
from serve.api.prompts import dialogue_ids, is_large, plain_ids
from serve.api.schema import ChatRequest, CompletionRequest
from serve.engines.pool import LoadedModel, ModelPool

THREADS = ThreadPoolExecutor(2, thread_name_prefix="tokenise")
Json = dict[str, Any]


@dataclass
class Completion:
    """What is asked of the engine for one request of the API."""

    ask: ChatRequest | CompletionRequest
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
        return isinstance(self.ask, ChatRequest)

    @property
    def about(self) -> Json:
        """What all parts of the answer say."""
        kind = "chat.completion" if self.chat else "text_completion"
        kind += ".chunk" if self.chat and self.ask.stream else ""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.ask.model,
            "system_fingerprint": self.served.revision,
        }

    @property
    def lima(self) -> Json:
        """What made the answer."""
        return {
            "revision": self.served.revision,
            "seed": self.seed,
            "dropped_messages": self.dropped,
        }

    def usage(self, generated: int) -> Json:
        """Numbers of tokens; EOT counts as generated."""
        prompt = sum(map(len, self.prompts))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
        }

    def echoed(self, index: int) -> str:
        """The prompt of a choice, where the text begins with it."""
        if not (isinstance(self.ask, CompletionRequest) and self.ask.echo):
            return ""
        prompt = index // (self.ask.n or 1)
        given = self.ask.prompts[prompt]
        if isinstance(given, str):
            return given
        return decode(self.served.engine.tokenizer, given)


async def prepare(models: ModelPool, ask: ChatRequest | CompletionRequest) -> Completion:
    """See that a request can be answered, and make its prompts.

    Raises:
        HttpError: it cannot, and why.
    """
    served = await models.get(ask.model)
    check_penalty(served, ask)
    seed = random.getrandbits(31) if ask.seed is None else ask.seed
    answer = Completion(ask, served, [], seed, every_s=models.settings.stream_every_s)
    left = threading.Event()
    if isinstance(ask, ChatRequest):
        answer.id = f"chatcmpl-{uuid.uuid4().hex}"
        large = is_large([message.text for message in ask.messages])
        make = partial(dialogue_ids, served.engine, ask, left)
    else:
        answer.id = f"cmpl-{uuid.uuid4().hex}"
        large = is_large(ask.prompts)
        make = partial(plain_ids, served.engine, ask, left)
    try:
        made = asyncio.get_running_loop().run_in_executor(THREADS, make) if large else make()
        answer.prompts, answer.dropped = await made if isinstance(made, asyncio.Future) else made
    finally:
        left.set()
    check_count(served, len(answer.prompts), ask.n or 1)
    context = served.engine.context
    for number, ids in enumerate(answer.prompts):
        which = "" if len(answer.prompts) == 1 else f"[{number}]"
        check_room(ids, context, "messages" if answer.chat else f"prompt{which}")
        for choice in range(ask.n or 1):
            room = context if ask.reply_tokens is None else len(ids) + ask.reply_tokens
            answer.requests.append(
                Request(
                    f"{answer.id}/{len(answer.requests)}",
                    ids,
                    ask.sampling(seed + choice, min(room, context)),
                    stop=ask.stops,
                    stream=bool(ask.stream),
                    logprobs=ask.alternatives,
                )
            )
    return answer


def check_penalty(served: LoadedModel, ask: ChatRequest | CompletionRequest) -> None:
    """Refuse a form of the penalty that the engine does not have."""
    if ask.penalise_prompt is False and getattr(served.engine, "penalises_prompt", False):
        raise HttpError(
            400,
            "penalise_prompt (false): vLLM's penalty counts the prompt's tokens; leave it out, or "
            "send repetition_penalty 1 without it",
            "penalise_prompt",
        )


def check_count(served: LoadedModel, prompts: int, choices: int) -> None:
    """Refuse more replies than the engine ever has room for."""
    most = served.loop.most
    if prompts * choices > most:
        raise HttpError(
            400,
            f"{prompts} prompts times n {choices} is {prompts * choices} replies, and "
            f"{served.loop.name} takes {most} at once (slots and queue); ask for fewer, or send "
            "several requests",
            "n" if prompts == 1 else "prompt",
        )


def check_room(ids: list[int], context: int, field: str) -> None:
    """Refuse a prompt that leaves no room for a reply."""
    if len(ids) >= context:
        raise HttpError(
            400,
            f"the prompt has {len(ids)} tokens, and the model's context is {context}, prompt and "
            "reply together; shorten it"
            + (', or send overflow "drop_oldest"' if field == "messages" else ""),
            field,
            "context_length_exceeded",
        )
