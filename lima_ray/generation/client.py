"""Ask a model behind an OpenAI-compatible endpoint, with patience.

What may pass is tried again with growing waits: connection errors, timeouts, 429, 5xx, and answers
that make no sense. What will not pass stops everything at once: a wrong key, path or model, a
request that the endpoint does not understand.
"""

# Why not the `openai` client: its retries ask again where the quota is spent, give up where
# Retry-After is over two minutes and at 425, take no length of the first wait, and hand an answer
# of status 200 that makes no sense to the caller; with them off, as much code is left as here.
# It sends OPENAI_ORG_ID, OPENAI_PROJECT_ID and OPENAI_CUSTOM_HEADERS to whatever server it is
# pointed at, and its import takes 0.3 s, that of httpx2 0.04 s.

import asyncio
import random
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx2

from lima_ray.config.errors import UserError
from lima_ray.config.secrets.reading import describe_source
from lima_ray.config.sections import Sampling
from lima_ray.generation.endpoint import Endpoint, check_url, read_key
from lima_ray.generation.responses import (
    ChatCompletion,
    error_message,
    read_completion,
    retry_after_s,
)

LONGEST_BACKOFF_S = 60.0
CONNECT_S = 30.0
SPENT = "insufficient_quota"
"""OpenAI answers 429 with this code when the account has no money left; waiting does not help."""
OPENAI_HOSTS = (".openai.com", ".openai.azure.com")
"""Where `max_tokens` is refused by newer models; other servers may not know its new name."""


class Unanswered(Exception):
    """One request got no usable answer, however often it was sent."""


def length_fields(url: str, sampling: Sampling) -> dict[str, int]:
    """Return the request's field that bounds the reply to `max_new_tokens`; empty without one."""
    if sampling.max_new_tokens is None:
        return {}
    openai = httpx2.URL(url).host.endswith(OPENAI_HOSTS)
    return {"max_completion_tokens" if openai else "max_tokens": sampling.max_new_tokens}


class Client(AbstractAsyncContextManager["Client"]):
    """A connection to an endpoint's model; refuses a bad URL, a secret in it, and a bad key."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.endpoint, self.model = endpoint, model
        check_url(endpoint.url)
        self.url = f"{endpoint.url.rstrip('/')}/chat/completions"
        self.key = read_key(endpoint.api_key_env)
        self.answered = False
        self.next_start_s = 0.0
        self.http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            # Reading all certificates takes a quarter of a second, and plain HTTP has none.
            verify=httpx2.URL(self.url).scheme != "http",
            # The reply as a whole has its limit in `chat`: httpx's is one of each piece.
            timeout=httpx2.Timeout(None, connect=min(CONNECT_S, endpoint.timeout_s)),
            limits=httpx2.Limits(max_connections=endpoint.concurrency),
        )

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def chat(self, messages: list[dict[str, str]], sampling: Sampling) -> ChatCompletion:
        """Return the assistant's next turn.

        Args:
            messages: a dialogue in OpenAI's form, the user's turn last.
            sampling: how to decode; `context` is not sent.

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
            await self._wait_for_turn()
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
                        completion = read_completion(response)
                    except ValueError as error:
                        problem = str(error)
                    else:
                        self.answered = True
                        return completion
                else:
                    problem = self._check_refusal(response)
                    wait_s = max(wait_s, retry_after_s(response))
            if attempt < self.endpoint.retries:
                await asyncio.sleep(wait_s)
        raise Unanswered(self._without_key(problem))

    def body(self, messages: list[dict[str, str]], sampling: Sampling) -> dict[str, Any]:
        """Return the request, without fields at their neutral value, as some models refuse them."""
        fields = {"model": self.model, "messages": messages, "seed": sampling.seed}
        fields |= {"temperature": sampling.temperature} | length_fields(self.url, sampling)
        if sampling.top_p < 1:
            fields["top_p"] = sampling.top_p
        if self.endpoint.extra and sampling.repetition_penalty != 1:
            fields["repetition_penalty"] = sampling.repetition_penalty
        return fields

    async def _wait_for_turn(self) -> None:
        """Wait until the next request may be sent, by `requests_per_minute`."""
        if self.endpoint.requests_per_minute:
            now_s = time.monotonic()
            start_s = max(now_s, self.next_start_s)
            self.next_start_s = start_s + 60 / self.endpoint.requests_per_minute
            await asyncio.sleep(start_s - now_s)

    def _check_refusal(self, response: httpx2.Response) -> str:
        """Return what an error says, where asking again may help.

        Raises:
            Unanswered: it will not help this request.
            UserError: it will not help any request.
        """
        status, said = response.status_code, self._without_key(error_message(response))
        problem = f"{status} {said}"
        if SPENT not in said and (status in (408, 409, 425, 429) or status >= 500):
            return problem
        if self.answered and status in (400, 413, 422):
            raise Unanswered(problem)
        source = f"the key is taken from {describe_source(self.endpoint.api_key_env)}"
        way_out = {
            401: source,
            403: source,
            404: f"is {self.model!r} the model's name there, and does the URL end in /v1?",
            429: "the account needs credit",
        }
        if moved := response.headers.get("Location"):
            way_out[status] = f"it redirects to {self._without_key(moved)}; give that server's URL"
        hint = way_out.get(status, "the endpoint does not accept such requests")
        raise UserError(f"{self.url} answers {problem}\n  {hint}")

    def _without_key(self, text: str) -> str:
        """Return a text with the key made unreadable, for messages and files."""
        return text.replace(self.key, "***") if self.key else text
