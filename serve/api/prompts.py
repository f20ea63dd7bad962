"""Prompts of the API's requests as token ids, and what of a long dialogue is dropped for them."""

import threading
from collections.abc import Sequence

from lima_ray.config.errors import UserError
from lima_ray.web.requests import HttpError
from serve.api.schema import ChatRequest, CompletionRequest, Message
from serve.engines.pool import AnyEngine

LARGE_CHARACTERS = 20_000
LARGE_DIALOGUE = 32
"""Longer texts, and dialogues of more messages, are tokenised on a thread, since that takes
milliseconds for which all would wait."""
TURNS_AT_ONCE = 128


def is_large(texts: Sequence[str | list[int]]) -> bool:
    """Whether texts are too many or too long to be tokenised while all wait."""
    return len(texts) > LARGE_DIALOGUE or sum(map(len, texts)) > LARGE_CHARACTERS


def dialogue_prompt(
    engine: AnyEngine, body: ChatRequest, left: threading.Event
) -> tuple[list[list[int]], int]:
    """Return a dialogue's prompt and the number of messages dropped; refuse roles out of order."""
    system, turns = split_roles(body.messages)
    if body.overflow != "drop_oldest":
        return [prompt(engine, turns, system)], 0
    wanted = min(body.max_new_tokens or engine.context // 4, engine.context // 2)
    ids, kept = newest_turns(engine, turns, system, engine.context - wanted, left)
    return [ids], len(turns) - kept


def newest_turns(
    engine: AnyEngine, turns: list[str], system: str | None, room: int, left: threading.Event
) -> tuple[list[int], int]:
    """Return the prompt of as many of the last turns as fit, and their number, at least one.

    The turns' own tokens, counted from the last on, say how many may fit at all; the whole prompt
    is then made for a few numbers of those, so that the work does not grow with what is dropped.
    """
    most = (most_turns(engine, turns, room, left) - 1) // 2  # exchanges before the last turn
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


def most_turns(engine: AnyEngine, turns: list[str], room: int, left: threading.Event) -> int:
    """Return how many of the last turns, an odd number, may fit by their texts' tokens alone."""
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


def split_roles(messages: list[Message]) -> tuple[str | None, list[str]]:
    """Return the system message, if there is one, and the turns; refuse roles out of order."""
    begins = messages[0].role in ("system", "developer")
    turns = messages[1:] if begins else messages
    for number, message in enumerate(turns):
        expected = ("user", "assistant")[number % 2]
        if message.role != expected:
            raise HttpError(
                400,
                f"message {number + begins} is the {message.role}'s where the {expected}'s is due: "
                "a system message comes first, then user and assistant in turn",
                f"messages.{number + begins}.role",
            )
    if len(turns) % 2 == 0:
        raise HttpError(400, "the last message must be the user's, to be answered", "messages")
    return (messages[0].text if begins else None), [message.text for message in turns]


def prompt(engine: AnyEngine, turns: list[str], system: str | None) -> list[int]:
    try:
        return engine.prompt(turns, system)
    except UserError as error:
        raise HttpError(400, str(error), "messages") from error


def text_prompts(
    engine: AnyEngine, body: CompletionRequest, left: threading.Event
) -> tuple[list[list[int]], int]:
    found = []
    for number, given in enumerate(body.prompts):
        if left.is_set():
            break
        ids = engine.text_ids(given) if isinstance(given, str) else given
        if not ids:
            raise HttpError(400, f"prompt {number} has no tokens", "prompt")
        strange = next((id for id in ids if id >= engine.vocab), None)
        if strange is not None:
            raise HttpError(
                400,
                f"prompt {number} holds the token {strange}; the model's are 0 to "
                f"{engine.vocab - 1}",
                "prompt",
            )
        found.append(ids)
    return found, 0
