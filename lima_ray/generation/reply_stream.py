"""One reply as a stream of text, from a model in this process or behind a server."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2

from lima_ray.config.errors import UserError
from lima_ray.config.secrets.reading import KEY_ENV
from lima_ray.config.sections import Sampling, WeightFormat
from lima_ray.config.storage.bucket import is_url
from lima_ray.engine.requests import Request
from lima_ray.generation.client import length_fields
from lima_ray.generation.endpoint import check_url, read_key
from lima_ray.generation.job import find_model
from lima_ray.generation.responses import error_message, retry_after_s
from lima_ray.records.example import Example

StreamReply = Callable[[list[str], int], Iterator[str]]
"""A reply to a dialogue, with a seed, piece by piece; closing it cancels."""
LOADING_TRIES = 100
CONNECT_S = 10.0


def stream_from_model(
    reference: str, system: str, sampling: Sampling, weights: WeightFormat = "auto"
) -> StreamReply:
    """Load a model into this process, return what streams its replies; refuse a missing one."""
    elsewhere = reference.startswith("lima_ray/") or is_url(reference)
    if not Path(reference).exists() and not elsewhere:
        raise UserError(f"no model at {reference}; `make demo` leaves one in runs/miniature/export")
    from lima_ray.engine.engine import Engine  # seconds, which a chat on a server need not wait

    engine = Engine(find_model(reference), slots=1, weights=weights)

    def stream(turns: list[str], seed: int) -> Iterator[str]:
        ids = engine.prompt(turns, system or None)
        how = sampling.model_copy(update={"seed": seed})
        try:
            engine.submit(Request("reply", ids, how, stream=True))
        except UserError as error:
            raise UserError(f"{error}; /new begins a new conversation") from error
        try:
            while engine.in_flight:
                yield from (event.text for event in engine.step())
        finally:
            engine.cancel("reply")

    return stream


def stream_from_server(url: str, name: str, system: str, sampling: Sampling) -> StreamReply:
    """Find a model behind a server, and return what streams its replies.

    A server that answers 503, as while it loads the model, is asked again.
    """
    check_url(url)
    key = read_key(KEY_ENV)
    # Why not the `openai` client: see client.py; its errors take more lines than its SSE saves.
    client = httpx2.Client(
        base_url=url.rstrip("/"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(None, connect=CONNECT_S),
    )
    names = _model_names(client, url)
    if name and name not in names:
        raise UserError(f"{url} has no model {name!r}; it has {', '.join(names)}")
    fields: dict[str, Any] = {"model": name or names[0], "stream": True}
    fields |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.repetition_penalty != 1:
        fields["repetition_penalty"] = sampling.repetition_penalty
    fields |= {"penalise_prompt": True} if sampling.penalise_prompt else {}
    fields |= length_fields(url, sampling)

    def stream(turns: list[str], seed: int) -> Iterator[str]:
        messages = Example(tuple(turns), id="", system=system or None).messages()
        body = fields | {"messages": messages, "seed": seed}
        problem = ""
        try:
            for _ in range(LOADING_TRIES):
                with client.stream("POST", "/chat/completions", json=body) as response:
                    if response.status_code == 200:
                        yield from _read_pieces(response)
                        return
                    response.read()
                problem = f"{response.status_code} {error_message(response)}"
                if response.status_code != 503:
                    break
                print("(loading) ", end="", flush=True)
                time.sleep(retry_after_s(response) or 1)
        except httpx2.RequestError as error:
            problem = f"lost the connection to {url}: {error}"
        raise UserError(problem)

    return stream


def _model_names(client: httpx2.Client, url: str) -> list[str]:
    try:
        listed = client.get("/models")
    except httpx2.RequestError as error:
        raise UserError(f"no server at {url}: {error}") from error
    if listed.status_code != 200:
        raise UserError(f"{url}/models answers {listed.status_code} {error_message(listed)}")
    try:
        names = [str(model["id"]) for model in listed.json()["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{url}/models is no list of models; does the URL end in /v1?") from error
    if not names:
        raise UserError(f"{url} has no model")
    return names


def _read_pieces(response: httpx2.Response) -> Iterator[str]:
    """Yield the text of a stream of server-sent events; refuse one that ends with an error."""
    for line in response.iter_lines():
        if not line.startswith("data:") or line.endswith("[DONE]"):
            continue
        chunk = json.loads(line.removeprefix("data:"))
        if "error" in chunk:
            raise UserError(chunk["error"]["message"])
        for choice in chunk["choices"]:
            yield choice["delta"].get("content") or ""
