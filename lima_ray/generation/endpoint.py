"""Where an OpenAI-compatible endpoint is, and how patiently it is asked."""

import os
import re
from typing import Annotated

import httpx2
import tyro
from pydantic import Field

from lima_ray.config.errors import UserError
from lima_ray.config.secrets.reading import FILE_SUFFIX, KEY_ENV, read_secret
from lima_ray.config.sections import Section


class Endpoint(Section):
    """Where to ask, and how patiently."""

    url: Annotated[str, tyro.conf.arg(name="endpoint")] = ""
    """Base URL of an OpenAI-compatible server, such as http://localhost:8000/v1; MODEL is then
    the name of a model there. sampling.max_new_tokens is sent where it is given; without it the
    server's own limit holds: most go as far as their context goes, some stop after a few tokens.
    sampling.context is not sent."""
    extra: Annotated[bool, tyro.conf.arg(name="endpoint_extra")] = False
    """Send sampling.repetition_penalty too. OpenAI's own API refuses it; vLLM and SGLang know it,
    and count the prompt's tokens, unlike the paper. Without this no penalty is applied."""
    api_key_env: str = KEY_ENV
    """Environment variable that holds the key, or with _FILE behind its name the path of a file
    that holds it; where neither is set, no key is sent."""
    concurrency: int = Field(default=8, ge=1)
    """Requests on their way at once."""
    requests_per_minute: float = Field(default=0, ge=0)
    """Most requests sent in a minute, evenly spaced, retries among them; 0 sets no limit."""
    retries: int = Field(default=5, ge=0)
    """How often a request that failed is sent again."""
    timeout_s: float = Field(default=600, gt=0)
    """Longest wait for one reply, in seconds."""
    backoff_s: float = Field(default=0.5, ge=0)
    """Wait before the first retry; it doubles with each, up to a minute. Retry-After counts too."""


def check_url(given: str) -> None:
    """Refuse what is no base URL, and one that holds a secret, since URLs are written down."""
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


def read_key(variable: str) -> str:
    """Return the API key in an environment variable or its file, or ''.

    What is neither set nor like a name may be the key itself, which is written nowhere.

    Raises:
        UserError: no name, a file that cannot be read, or a key that no header can hold.
    """
    if variable not in os.environ and not re.fullmatch("[A-Z_][A-Z0-9_]*", variable):
        raise UserError(
            "api_key_env is no name of an environment variable; export the key in one, and name "
            f"it there ({KEY_ENV} needs no naming)"
        )
    key = read_secret(variable)
    if not (key.isascii() and key.isprintable()):
        source = variable if variable in os.environ else f"the file of {variable}{FILE_SUFFIX}"
        raise UserError(f"the key in {source} has characters that no key has")
    return key
