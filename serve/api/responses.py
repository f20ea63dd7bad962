"""The engine's events made into the API's responses, at once or chunk by chunk."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from lima_ray.config.errors import UserError
from lima_ray.engine.requests import CompletionOutput, Event, Logprob
from lima_ray.web.requests import HttpError
from serve.api.completion import Completion, Json
from serve.engines.subscription import EngineFailed, QueueFull, Subscription


@contextmanager
def subscribed(completion: Completion) -> Iterator[Subscription]:
    """Subscribe to a completion's events; HttpError if the queue is full or the engine failed."""
    try:
        every_s = completion.every_s if completion.body.stream else float("inf")
        with completion.served.loop.subscribe(completion.requests, every_s) as subscription:
            yield subscription
    except QueueFull as error:
        raise HttpError(
            429,
            f"{completion.body.model} has as many requests as it takes; {error}",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(error.retry_after_s)},
        ) from error
    except EngineFailed as error:
        raise HttpError(500, str(error), code="engine_failed") from error
    except UserError as error:
        raise HttpError(400, str(error)) from error


async def full_response(completion: Completion) -> Json:
    """Return the whole response, once all choices are finished."""
    replies: dict[int, CompletionOutput] = {}
    logprobs: dict[int, list[Logprob]] = {}
    with subscribed(completion) as subscription:
        async for events in subscription:
            for event in events:
                index = choice_number(event)
                if event.logprob:
                    logprobs.setdefault(index, []).append(event.logprob)
                if event.reply:
                    replies[index] = event.reply
    choices = [
        choice_of(completion, index, replies[index], logprobs.get(index))
        for index in range(len(completion.requests))
    ]
    usage = completion.usage(sum(reply.n_tokens for reply in replies.values()))
    body = completion.common | {"choices": choices, "usage": usage, "lima": completion.lima}
    if completion.body.return_token_ids and completion.chat:
        body["prompt_token_ids"] = completion.prompts[0]
    return body


def choice_of(
    completion: Completion, index: int, reply: CompletionOutput, logprobs: list[Logprob] | None
) -> Json:
    choice: Json = {"index": index}
    if completion.chat:
        choice["message"] = {"role": "assistant", "content": reply.text, "refusal": None}
    else:
        choice["text"] = completion.echo_of(index) + reply.text
    choice["logprobs"] = format_logprobs(completion, logprobs) if logprobs else None
    choice |= {"finish_reason": finish_reason(reply), "stop_reason": reply.stopped_by}
    if completion.body.return_token_ids:
        choice["token_ids"] = reply.ids
        if not completion.chat:
            choice["prompt_token_ids"] = completion.prompts[index // (completion.body.n or 1)]
    return choice


async def stream_chunks(completion: Completion) -> AsyncGenerator[list[Json], None]:
    """Yield the response chunk by chunk, those that have come by now together.

    Raises:
        HttpError: before the first chunks, if the queue is full; after them, if the engine fails.
    """
    common, generated = completion.common, 0
    options = completion.body.stream_options
    counted = options is not None and options.include_usage
    common |= {"usage": None} if counted else {}
    with subscribed(completion) as subscription:
        yield [first_chunk(completion, common, index) for index in range(len(completion.requests))]
        async for events in subscription:
            generated += len(events)
            chunks = [token_chunk(completion, common, event) for event in events]
            if full := [chunk for chunk in chunks if chunk]:
                yield full
    if counted:
        yield [common | {"choices": [], "usage": completion.usage(generated)}]


def first_chunk(completion: Completion, common: Json, index: int) -> Json:
    choice: Json = {"index": index, "logprobs": None, "finish_reason": None}
    if completion.chat:
        choice["delta"] = {"role": "assistant", "content": ""}
    else:
        choice["text"] = completion.echo_of(index)
    chunk = common | {"choices": [choice], "lima": completion.lima}
    if completion.body.return_token_ids:
        chunk["prompt_token_ids"] = completion.prompts[index // (completion.body.n or 1)]
    return chunk


def token_chunk(completion: Completion, common: Json, event: Event) -> Json | None:
    """Return the chunk of a token; none where it has nothing to tell."""
    ids = completion.body.return_token_ids
    if not (event.text or event.reply or event.logprob or ids):
        return None
    choice: Json = {"index": choice_number(event)}
    if completion.chat:
        choice["delta"] = {"content": event.text} if event.text or not event.reply else {}
    else:
        choice["text"] = event.text
    choice["logprobs"] = format_logprobs(completion, [event.logprob]) if event.logprob else None
    choice["finish_reason"] = finish_reason(event.reply) if event.reply else None
    if event.reply:
        choice["stop_reason"] = event.reply.stopped_by
    if ids:
        choice["token_ids"] = [event.token]
    return common | {"choices": [choice]}


def choice_number(event: Event) -> int:
    """Return the index of an event's choice, which ends its request's id."""
    return int(event.id.rpartition("/")[2])


def finish_reason(reply: CompletionOutput) -> str:
    """Return OpenAI's finish_reason: stop for EOT and stop strings, else length."""
    return "stop" if reply.stopped or reply.stopped_by is not None else "length"


def format_logprobs(completion: Completion, logprobs: list[Logprob]) -> Json:
    """Return log probabilities as each kind of completion tells them."""
    tokenizer = completion.served.engine.tokenizer

    def text_of(token: int) -> str:
        return tokenizer.decode([token])

    if completion.chat:
        return {
            "content": [
                chat_logprob(text_of(p.token), p.logprob)
                | {"top_logprobs": [chat_logprob(text_of(token), value) for token, value in p.top]}
                for p in logprobs
            ]
        }
    return {
        "tokens": [text_of(p.token) for p in logprobs],
        "token_logprobs": [p.logprob for p in logprobs],
        "top_logprobs": [{text_of(token): value for token, value in p.top} for p in logprobs],
    }


def chat_logprob(text: str, logprob: float) -> Json:
    """Return a token in the chat's form; a part of a character has no bytes that are known."""
    known = list(text.encode()) if "\ufffd" not in text else None
    return {"token": text, "logprob": logprob, "bytes": known}
