"""The engine's events made into the API's responses, at once or chunk by chunk."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from lima_ray.engine import Event, Logprob, Reply
from lima_ray.errors import UserError
from lima_ray.web.requests import HttpError
from serve.api.completion import Completion, Json
from serve.engines.subscription import EngineFailed, QueueFull, Subscription


@contextmanager
def subscribed(answer: Completion) -> Iterator[Subscription]:
    """Have the engine answer, and listen.

    Raises:
        HttpError: the queue is full, or the engine failed.
    """
    try:
        every_s = answer.every_s if answer.ask.stream else float("inf")
        with answer.served.loop.subscribe(answer.requests, every_s) as subscription:
            yield subscription
    except QueueFull as error:
        raise HttpError(
            429,
            f"{answer.ask.model} has as many requests as it takes; {error}",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(error.retry_after_s)},
        ) from error
    except EngineFailed as error:
        raise HttpError(500, str(error), code="engine_failed") from error
    except UserError as error:
        raise HttpError(400, str(error)) from error


async def whole(answer: Completion) -> Json:
    """The answer at once."""
    replies: dict[int, Reply] = {}
    logprobs: dict[int, list[Logprob]] = {}
    with subscribed(answer) as subscription:
        async for events in subscription:
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


def choice_of(answer: Completion, index: int, reply: Reply, logprobs: list[Logprob] | None) -> Json:
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


async def chunks(answer: Completion) -> AsyncGenerator[list[Json], None]:
    """The answer piece by piece: chunks that have come by now, at once.

    Raises:
        HttpError: before the first chunks, if the queue is full; after them, if the engine fails.
    """
    about, generated = answer.about, 0
    options = answer.ask.stream_options
    counted = options is not None and options.include_usage
    about |= {"usage": None} if counted else {}
    with subscribed(answer) as subscription:
        yield [opening(answer, about, index) for index in range(len(answer.requests))]
        async for events in subscription:
            generated += len(events)
            told = [piece(answer, about, event) for event in events]
            if told := [chunk for chunk in told if chunk]:
                yield told
    if counted:
        yield [about | {"choices": [], "usage": answer.usage(generated)}]


def opening(answer: Completion, about: Json, index: int) -> Json:
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


def piece(answer: Completion, about: Json, event: Event) -> Json | None:
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


def finish(reply: Reply) -> str:
    """OpenAI's finish_reason: stop for EOT and stop strings, length for the end of the room."""
    return "stop" if reply.stopped or reply.stopped_by is not None else "length"


def told_logprobs(answer: Completion, logprobs: list[Logprob]) -> Json:
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
