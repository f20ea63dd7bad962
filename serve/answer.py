"""Requests of the API made into requests of the engine, and its events into the API's answers.

Every answer tells what made it: `system_fingerprint` is the revision of the model, and `lima` holds
the revision, the seed (also where none was given) and how many messages were dropped, so that the
same request with that seed gives the same reply.
"""

import asyncio
import random
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lima_ray.engine.detokenizer import decode
from lima_ray.engine.requests import Completion, Event, Logprob, Request
from lima_ray.errors import UserError
from serve.listener import Busy, EngineFailed, Listener
from serve.models import AnyEngine, Models, Served
from serve.refusal import Refusal
from serve.schema import ChatRequest, CompletionRequest, Message

LARGE_CHARACTERS = 20_000
LARGE_DIALOGUE = 32
"""Longer texts, and dialogues of more messages, are tokenised on a thread, since that takes
milliseconds for which all would wait."""
TURNS_AT_ONCE = 128
THREADS = ThreadPoolExecutor(2, thread_name_prefix="tokenise")
Json = dict[str, Any]


@dataclass
class Answer:
    """What is asked of the engine for one request of the API."""

    ask: ChatRequest | CompletionRequest
    served: Served
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


async def prepare(models: Models, ask: ChatRequest | CompletionRequest) -> Answer:
    """See that a request can be answered, and make its prompts.

    Raises:
        Refusal: it cannot, and why.
    """
    served = await models.get(ask.model)
    check_penalty(served, ask)
    seed = random.getrandbits(31) if ask.seed is None else ask.seed
    answer = Answer(ask, served, [], seed, every_s=models.settings.stream_every_s)
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


def is_large(texts: Sequence[str | list[int]]) -> bool:
    """Whether texts are too many or too long to be tokenised while all wait."""
    return len(texts) > LARGE_DIALOGUE or sum(map(len, texts)) > LARGE_CHARACTERS


def check_penalty(served: Served, ask: ChatRequest | CompletionRequest) -> None:
    """Refuse a form of the penalty that the engine does not have."""
    if ask.penalise_prompt is False and getattr(served.engine, "penalises_prompt", False):
        raise Refusal(
            400,
            "penalise_prompt (false): vLLM's penalty counts the prompt's tokens; leave it out, or "
            "send repetition_penalty 1 without it",
            "penalise_prompt",
        )


def check_count(served: Served, prompts: int, choices: int) -> None:
    """Refuse more replies than the engine ever has room for."""
    most = served.loop.most
    if prompts * choices > most:
        raise Refusal(
            400,
            f"{prompts} prompts times n {choices} is {prompts * choices} replies, and "
            f"{served.loop.name} takes {most} at once (slots and queue); ask for fewer, or send "
            "several requests",
            "n" if prompts == 1 else "prompt",
        )


def check_room(ids: list[int], context: int, field: str) -> None:
    """Refuse a prompt that leaves no room for a reply."""
    if len(ids) >= context:
        raise Refusal(
            400,
            f"the prompt has {len(ids)} tokens, and the model's context is {context}, prompt and "
            "reply together; shorten it"
            + (', or send overflow "drop_oldest"' if field == "messages" else ""),
            field,
            "context_length_exceeded",
        )


def dialogue_ids(
    engine: AnyEngine, ask: ChatRequest, left: threading.Event
) -> tuple[list[list[int]], int]:
    """The prompt of a dialogue, and how many messages were dropped for it.

    Raises:
        Refusal: roles out of order, or nothing to answer.
    """
    system, turns = split(ask.messages)
    if ask.overflow != "drop_oldest":
        return [prompt(engine, turns, system)], 0
    wanted = min(ask.reply_tokens or engine.context // 4, engine.context // 2)
    ids, kept = newest(engine, turns, system, engine.context - wanted, left)
    return [ids], len(turns) - kept


def newest(
    engine: AnyEngine, turns: list[str], system: str | None, room: int, left: threading.Event
) -> tuple[list[int], int]:
    """The prompt of as many of the last turns as fit, and how many they are; at least one is kept.

    The turns' own tokens, counted from the last on, say how many may fit at all; the whole prompt
    is then made for a few numbers of those, so that the work does not grow with what is dropped.
    """
    most = (at_most(engine, turns, room, left) - 1) // 2  # exchanges before the last turn
    ids = prompt(engine, turns[-2 * most - 1 :], system)
    if len(ids) <= room or not most:
        return ids, 2 * most + 1
    fit, most, ids = 0, most - 1, prompt(engine, turns[-1:], system)
    while fit < most and not left.is_set():
        tried = (fit + most + 1) // 2
        made = prompt(engine, turns[-2 * tried - 1 :], system)
        if len(made) <= room:
            fit, ids = tried, made
        else:
            most = tried - 1
    return ids, 2 * fit + 1


def at_most(engine: AnyEngine, turns: list[str], room: int, left: threading.Event) -> int:
    """How many of the last turns, an odd number, may fit by the tokens of their text alone."""
    if not is_large(turns):
        return len(turns)
    count = tokens = 0
    for end in range(len(turns), 0, -TURNS_AT_ONCE):
        if left.is_set():
            break
        some = turns[max(0, end - TURNS_AT_ONCE) : end]
        # Markers in a text are split in the prompt, so this counts too few where it has them; split
        # here, they would be split for whoever else uses the tokeniser meanwhile.
        found = engine.tokenizer(some, add_special_tokens=False, split_special_tokens=False)
        for ids in reversed(found.input_ids):
            tokens += max(0, len(ids) - 1)  # one may be merged with what joins the turns
            if tokens > room:
                return max(1, count - (count + 1) % 2)
            count += 1
    return max(1, count - (count + 1) % 2)


def split(messages: list[Message]) -> tuple[str | None, list[str]]:
    """The system message, if there is one, and the turns.

    Raises:
        Refusal: roles out of order.
    """
    begins = messages[0].role in ("system", "developer")
    turns = messages[1:] if begins else messages
    for number, message in enumerate(turns):
        expected = ("user", "assistant")[number % 2]
        if message.role != expected:
            raise Refusal(
                400,
                f"message {number + begins} is the {message.role}'s where the {expected}'s is due: "
                "a system message comes first, then user and assistant in turn",
                f"messages.{number + begins}.role",
            )
    if len(turns) % 2 == 0:
        raise Refusal(400, "the last message must be the user's, to be answered", "messages")
    return (messages[0].text if begins else None), [message.text for message in turns]


def prompt(engine: AnyEngine, turns: list[str], system: str | None) -> list[int]:
    """Token ids of a dialogue."""
    try:
        return engine.prompt(turns, system)
    except UserError as error:
        raise Refusal(400, str(error), "messages") from error


def plain_ids(
    engine: AnyEngine, ask: CompletionRequest, left: threading.Event
) -> tuple[list[list[int]], int]:
    """The prompts of plain texts or token ids."""
    found = []
    for number, given in enumerate(ask.prompts):
        if left.is_set():
            break
        ids = engine.text_ids(given) if isinstance(given, str) else given
        if not ids:
            raise Refusal(400, f"prompt {number} has no tokens", "prompt")
        strange = next((id for id in ids if id >= engine.vocab), None)
        if strange is not None:
            raise Refusal(
                400,
                f"prompt {number} holds the token {strange}; the model's are 0 to "
                f"{engine.vocab - 1}",
                "prompt",
            )
        found.append(ids)
    return found, 0


@contextmanager
def listening(answer: Answer) -> Iterator[Listener]:
    """Have the engine answer, and listen.

    Raises:
        Refusal: the queue is full, or the engine failed.
    """
    try:
        every_s = answer.every_s if answer.ask.stream else float("inf")
        with answer.served.loop.listen(answer.requests, every_s) as listener:
            yield listener
    except Busy as error:
        raise Refusal(
            429,
            f"{answer.ask.model} has as many requests as it takes; {error}",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(error.retry_after_s)},
        ) from error
    except EngineFailed as error:
        raise Refusal(500, str(error), code="engine_failed") from error
    except UserError as error:
        raise Refusal(400, str(error)) from error


async def whole(answer: Answer) -> Json:
    """The answer at once."""
    replies: dict[int, Completion] = {}
    logprobs: dict[int, list[Logprob]] = {}
    with listening(answer) as listener:
        async for events in listener:
            for event in events:
                index = choice_number(event)
                if event.logprob:
                    logprobs.setdefault(index, []).append(event.logprob)
                if event.reply:
                    replies[index] = event.reply
    choices = [
        choice_of(answer, index, replies[index], logprobs.get(index))
        for index in range(len(answer.requests))
    ]
    usage = answer.usage(sum(reply.n_tokens for reply in replies.values()))
    body = answer.about | {"choices": choices, "usage": usage, "lima": answer.lima}
    if answer.ask.return_token_ids and answer.chat:
        body["prompt_token_ids"] = answer.prompts[0]
    return body


def choice_of(
    answer: Answer, index: int, reply: Completion, logprobs: list[Logprob] | None
) -> Json:
    """A finished choice."""
    choice: Json = {"index": index}
    if answer.chat:
        choice["message"] = {"role": "assistant", "content": reply.text, "refusal": None}
    else:
        choice["text"] = answer.echoed(index) + reply.text
    choice["logprobs"] = told_logprobs(answer, logprobs) if logprobs else None
    choice |= {"finish_reason": finish(reply), "stop_reason": reply.stopped_by}
    if answer.ask.return_token_ids:
        choice["token_ids"] = reply.ids
        if not answer.chat:
            choice["prompt_token_ids"] = answer.prompts[index // (answer.ask.n or 1)]
    return choice


async def chunks(answer: Answer) -> AsyncGenerator[list[Json], None]:
    """The answer piece by piece: chunks that have come by now, at once.

    Raises:
        Refusal: before the first chunks, if the queue is full; after them, if the engine fails.
    """
    about, generated = answer.about, 0
    options = answer.ask.stream_options
    counted = options is not None and options.include_usage
    about |= {"usage": None} if counted else {}
    with listening(answer) as listener:
        yield [opening(answer, about, index) for index in range(len(answer.requests))]
        async for events in listener:
            generated += len(events)
            told = [piece(answer, about, event) for event in events]
            if told := [chunk for chunk in told if chunk]:
                yield told
    if counted:
        yield [about | {"choices": [], "usage": answer.usage(generated)}]


def opening(answer: Answer, about: Json, index: int) -> Json:
    """The first chunk of a choice."""
    choice: Json = {"index": index, "logprobs": None, "finish_reason": None}
    if answer.chat:
        choice["delta"] = {"role": "assistant", "content": ""}
    else:
        choice["text"] = answer.echoed(index)
    chunk = about | {"choices": [choice], "lima": answer.lima}
    if answer.ask.return_token_ids:
        chunk["prompt_token_ids"] = answer.prompts[index // (answer.ask.n or 1)]
    return chunk


def piece(answer: Answer, about: Json, event: Event) -> Json | None:
    """The chunk of a token; none where it has nothing to tell."""
    ids = answer.ask.return_token_ids
    if not (event.text or event.reply or event.logprob or ids):
        return None
    choice: Json = {"index": choice_number(event)}
    if answer.chat:
        choice["delta"] = {"content": event.text} if event.text or not event.reply else {}
    else:
        choice["text"] = event.text
    choice["logprobs"] = told_logprobs(answer, [event.logprob]) if event.logprob else None
    choice["finish_reason"] = finish(event.reply) if event.reply else None
    if event.reply:
        choice["stop_reason"] = event.reply.stopped_by
    if ids:
        choice["token_ids"] = [event.token]
    return about | {"choices": [choice]}


def choice_number(event: Event) -> int:
    """The index of an event's choice, which ends its request's id."""
    return int(event.id.rpartition("/")[2])


def finish(reply: Completion) -> str:
    """OpenAI's finish_reason: stop for EOT and stop strings, length for the end of the room."""
    return "stop" if reply.stopped or reply.stopped_by is not None else "length"


def told_logprobs(answer: Answer, logprobs: list[Logprob]) -> Json:
    """Log probabilities as each kind of completion tells them."""
    tokenizer = answer.served.engine.tokenizer

    def spelt(token: int) -> str:
        return tokenizer.decode([token])

    if answer.chat:
        return {
            "content": [
                scored(spelt(p.token), p.logprob)
                | {"top_logprobs": [scored(spelt(token), value) for token, value in p.top]}
                for p in logprobs
            ]
        }
    return {
        "tokens": [spelt(p.token) for p in logprobs],
        "token_logprobs": [p.logprob for p in logprobs],
        "top_logprobs": [{spelt(token): value for token, value in p.top} for p in logprobs],
    }


def scored(text: str, logprob: float) -> Json:
    """A token in the chat's form; a part of a character has no bytes that are known."""
    whole = "\ufffd" not in text
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if whole else None}
