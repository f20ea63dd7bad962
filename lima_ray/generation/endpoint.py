"""Ask a model behind any OpenAI-compatible endpoint, many requests at once and with patience.

    async def talk(client: Client, question: str) -> None:
        print(await client.chat([{"role": "user", "content": question}], Sampling()))

    ask(Endpoint(url="http://localhost:8000/v1"), "lima-7b", questions, talk, failed)

What may pass is tried again with growing waits: connection errors, timeouts, 429, 5xx, and answers
that make no sense. What will not pass stops everything at once: a wrong key, path or model, a
request that the endpoint does not understand.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, TypeVar

import httpx2
import tyro
from pydantic import BaseModel, Field, ValidationError

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling, Section

LONGEST_WAIT_S = 600.0
LONGEST_BACKOFF_S = 60.0
KEY_ENV = "OPENAI_API_KEY"
SPENT = "insufficient_quota"
"""OpenAI answers 429 with this code when the account has no money left; waiting does not help."""
FAILURES_IN_A_ROW = 8
OWN_HOSTS = (".openai.com", ".openai.azure.com")
"""Where `max_tokens` is refused by newer models; other servers may not know its new name."""

Item = TypeVar("Item")


class Endpoint(Section):
    """Where to ask, and how patiently."""

    url: Annotated[str, tyro.conf.arg(name="endpoint")] = ""
    """Base URL of an OpenAI-compatible server, such as http://localhost:8000/v1; MODEL is then
    the name of a model there, and sampling.max_tokens the longest reply alone."""
    extra: Annotated[bool, tyro.conf.arg(name="endpoint_extra")] = False
    """Send sampling.repetition_penalty too. OpenAI's own API refuses it; vLLM and SGLang know it,
    and count the prompt's tokens, unlike the paper. Without this no penalty is applied."""
    api_key_env: str = KEY_ENV
    """Environment variable that holds the key; where it is not set, no key is sent."""
    concurrency: int = Field(default=8, ge=1)
    """Requests on their way at once."""
    retries: int = Field(default=5, ge=0)
    """How often a request that failed is sent again."""
    timeout_s: float = Field(default=600, gt=0)
    """Longest wait for one reply, in seconds."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Wait before the first retry; it doubles with each, up to a minute. Retry-After counts too."""


@dataclass(frozen=True)
class Answer:
    """A reply, as the endpoint gave it."""

    text: str
    stopped: bool
    """True where the model ended it, false where the limit did."""
    n_tokens: int | None
    """None where the endpoint does not count."""


class Unanswered(Exception):
    """One request got no usable answer, however often it was sent."""


class Message(BaseModel):
    content: str


class Choice(BaseModel):
    message: Message
    finish_reason: str


class Usage(BaseModel):
    completion_tokens: int | None = None


class CompletionOutput(BaseModel):
    """What is read of an answer; anything else makes no sense."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None


def ask(
    endpoint: Endpoint,
    model: str,
    items: Iterable[Item],
    talk: Callable[["Client", Item], Awaitable[None]],
    failed: Callable[[Item, str], None],
) -> None:
    """Run `talk(client, item)` for all items, `endpoint.concurrency` of them at a time.

    Args:
        endpoint: where to ask.
        model: name of the model there.
        items: taken as others finish.
        talk: asks what it wants about one item and keeps the answers; for blocking callers only,
            since this starts an event loop.
        failed: told of each item whose `talk` raised `Unanswered`, and why.

    Raises:
        UserError: wrong URL, key, path or model; or so many failures in a row that the endpoint
            must be down. Requests on their way are then dropped.
    """

    async def together() -> None:
        source, row = iter(items), 0
        longest_row = max(FAILURES_IN_A_ROW, endpoint.concurrency)

        async def one_after_another() -> None:
            nonlocal row
            for item in source:
                try:
                    await talk(client, item)
                    row = 0
                except Unanswered as error:
                    failed(item, str(error))
                    row += 1
                    if row >= longest_row:
                        raise UserError(
                            f"{endpoint.url} failed {row} times in a row, the last time with: "
                            f"{error}. What was answered is kept; the same command goes on there"
                        ) from error

        async with Client(endpoint, model) as client, asyncio.TaskGroup() as group:
            for _ in range(endpoint.concurrency):
                group.create_task(one_after_another())

    try:
        asyncio.run(together())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


class Client(AbstractAsyncContextManager["Client"]):
    """A connection to an endpoint's model.

    Raises:
        UserError: the URL is none, or would put a secret on disk; the key is no header's value.
    """

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.endpoint, self.model = endpoint, model
        check_url(endpoint.url)
        self.url = f"{endpoint.url.rstrip('/')}/chat/completions"
        self.key = key_in(endpoint.api_key_env)
        self.answered = False
        self.http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            # Reading all certificates takes a quarter of a second, and plain HTTP has none.
            verify=httpx2.URL(self.url).scheme != "http",
            timeout=httpx2.Timeout(None, connect=min(30, endpoint.timeout_s)),
            limits=httpx2.Limits(max_connections=endpoint.concurrency),
        )

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def chat(self, messages: list[dict[str, str]], sampling: Sampling) -> Answer:
        """The assistant's next turn.

        Args:
            messages: a dialogue in OpenAI's form, the user's turn last.
            sampling: how to decode; `max_tokens` is the reply's alone here.

        Raises:
            Unanswered: it failed `retries` + 1 times, or the endpoint has answered others and
                will not answer this one (too long, filtered).
            UserError: the endpoint refuses, and would refuse every other request.
        """
        body = self.body(messages, sampling)
        problem = ""
        for attempt in range(self.endpoint.retries + 1):
            wait_s = min(self.endpoint.backoff_s * 2**attempt, LONGEST_BACKOFF_S)
            wait_s *= random.uniform(0.75, 1)
            try:
                async with asyncio.timeout(self.endpoint.timeout_s):
                    response = await self.http.post(self.url, json=body)
            except TimeoutError:
                problem = f"no reply within timeout_s {self.endpoint.timeout_s:g}"
            except httpx2.RequestError as error:
                problem = f"{type(error).__name__} {error}".strip()
            else:
                if response.status_code == 200:
                    try:
                        return self.read(response)
                    except ValueError as error:
                        problem = str(error)
                else:
                    problem = self.refusal(response)
                    wait_s = max(wait_s, retry_after_s(response))
            if attempt < self.endpoint.retries:
                await asyncio.sleep(wait_s)
        raise Unanswered(self.without_key(problem))

    def body(self, messages: list[dict[str, str]], sampling: Sampling) -> dict[str, Any]:
        """The request; fields at their neutral value stay out, as some models refuse them."""
        own = httpx2.URL(self.url).host.endswith(OWN_HOSTS)
        limit = "max_completion_tokens" if own else "max_tokens"
        fields = {"model": self.model, "messages": messages, "seed": sampling.seed}
        fields |= {limit: sampling.max_tokens, "temperature": sampling.temperature}
        if sampling.top_p < 1:
            fields["top_p"] = sampling.top_p
        if self.endpoint.extra and sampling.repetition_penalty != 1:
            fields["repetition_penalty"] = sampling.repetition_penalty
        return fields

    def read(self, response: httpx2.Response) -> Answer:
        """Take the answer out of a response.

        Raises:
            ValueError: it makes no sense.
        """
        try:
            completion = CompletionOutput.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            raise ValueError(
                f"an answer that makes no sense: {where}: {first['msg']} ({shown(response)})"
            ) from error
        choice, usage = completion.choices[0], completion.usage
        if choice.finish_reason not in ("stop", "length"):
            raise ValueError(f"an answer that ended with {choice.finish_reason!r}")
        self.answered = True
        stopped = choice.finish_reason == "stop"
        return Answer(choice.message.content, stopped, usage.completion_tokens if usage else None)

    def refusal(self, response: httpx2.Response) -> str:
        """What an error says, where asking again may help.

        Raises:
            Unanswered: it will not help this request.
            UserError: it will not help any request.
        """
        status, said = response.status_code, self.without_key(shown(response))
        problem = f"{status} {said}"
        if SPENT not in said and (status in (408, 409, 425, 429) or status >= 500):
            return problem
        if self.answered and status in (400, 413, 422):
            raise Unanswered(problem)
        variable = self.endpoint.api_key_env
        state = "as it is set" if self.key else "which is not set"
        way_out = {
            401: f"the key is taken from {variable}, {state}",
            403: f"the key is taken from {variable}, {state}",
            404: f"is {self.model!r} the model's name there, and does the URL end in /v1?",
            429: "the account needs credit",
        }
        hint = way_out.get(status, "the endpoint does not accept such requests")
        raise UserError(f"{self.url} answers {problem}\n  {hint}")

    def without_key(self, text: str) -> str:
        """A text with the key made unreadable, for messages and files."""
        return text.replace(self.key, "***") if self.key else text


def key_in(variable: str) -> str:
    """The API key in an environment variable, or nothing.

    Raises:
        UserError: it is no header's value.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the key in {variable} has characters that no key has")
    return key


def check_url(given: str) -> None:
    """Refuse what is no base URL, and one that holds a secret, since URLs are written down.

    Raises:
        UserError: what is wrong.
    """
    try:
        url = httpx2.URL(given)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"endpoint {given!r} is no URL such as http://localhost:8000/v1")
    if url.userinfo or url.query or url.fragment:
        raise UserError(
            f"the endpoint at {url.host} is given with a user, a query or a fragment; an endpoint "
            "is scheme, host and path alone, and its key stands in the environment (api_key_env)"
        )


def shown(response: httpx2.Response) -> str:
    """The message of an error, or the beginning of a body that has none."""
    try:
        error = response.json()["error"]
        return " ".join(str(error[k]) for k in ("code", "message") if error.get(k))[:500]
    except (ValueError, KeyError, TypeError, AttributeError):
        return repr(response.text[:200])


def retry_after_s(response: httpx2.Response) -> float:
    """Seconds that the endpoint asks to wait, at most ten minutes; 0 where it does not."""
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
