"""What the responses of an OpenAI-compatible server say: a completion, an error, a wait."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from pydantic import BaseModel, Field, ValidationError

LONGEST_WAIT_S = 600.0


@dataclass(frozen=True)
class ChatCompletion:
    text: str
    stopped: bool
    """True where the model ended it, false where the limit did."""
    n_tokens: int | None
    """None where the endpoint does not count."""
    n_prompt_tokens: int | None = None
    snapshot: str = ""
    """Which version of the model replied, as the server tells it: `model` and
    `system_fingerprint`."""


class _Message(BaseModel):
    content: str | None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str


class _Body(BaseModel):
    """What is read of a response; anything else makes no sense."""

    choices: list[_Choice] = Field(min_length=1)
    # An answer that is paid for is not lost for what stands beside it.
    usage: Any = None
    model: Any = None
    system_fingerprint: Any = None


def read_completion(response: httpx2.Response) -> ChatCompletion:
    """Take the completion out of a response; ValueError where it makes no sense or has no end."""
    try:
        body = _Body.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise ValueError(
            f"an answer that makes no sense: {where}: {first['msg']} ({error_message(response)})"
        ) from error
    choice, usage = body.choices[0], body.usage
    if choice.finish_reason not in ("stop", "length"):
        raise ValueError(f"an answer that ended with {choice.finish_reason!r}")
    stopped = choice.finish_reason == "stop"
    # A model that reasons may use up its limit before it says a word.
    text = "" if choice.message.content is None and not stopped else choice.message.content
    if text is None:
        raise ValueError("an answer that makes no sense: choices.0.message.content is null")
    told = (body.model, body.system_fingerprint)
    return ChatCompletion(
        text,
        stopped,
        _count(usage, "completion_tokens"),
        _count(usage, "prompt_tokens"),
        " ".join(one for one in told if isinstance(one, str) and one),
    )


def _count(usage: Any, name: str) -> int | None:
    """Return a count of tokens; none where it is none that can be."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count >= 0 else None


def error_message(response: httpx2.Response) -> str:
    """Return the code and message of an error, or the beginning of a body that has none."""
    try:
        error = response.json()["error"]
        return " ".join(str(error[k]) for k in ("code", "message") if error.get(k))[:500]
    except (ValueError, KeyError, TypeError, AttributeError):
        return repr(response.text[:200])


def retry_after_s(response: httpx2.Response) -> float:
    """Return the seconds that a server asks to wait, at most ten minutes; 0 where it does not."""
    asked = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(asked)
    except ValueError:
        try:
            at = parsedate_to_datetime(asked)
        except ValueError:
            return 0.0
        seconds = (at - datetime.now(UTC)).total_seconds() if at.tzinfo else 0.0
    return min(seconds, LONGEST_WAIT_S) if seconds > 0 else 0.0
