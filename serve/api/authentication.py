"""The keys that the API asks for: `Authorization: Bearer KEY`."""

import hmac
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.web.requests import HttpError


def read_keys(name: str | None) -> frozenset[str]:
    """Return a file's keys, one a line; skip blank lines and `#` comments, refuse an empty file."""
    if name is None:
        return frozenset()
    lines = (line.strip() for line in Path(name).read_text().splitlines())
    keys = frozenset(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UserError(f"{name} has no key; write one a line")
    return keys


def wrong_key(authorization: bytes, keys: frozenset[str]) -> HttpError | None:
    """Return why a request's Authorization header does not let it in; none where it does."""
    scheme, _, key = authorization.partition(b" ")
    right = [hmac.compare_digest(key.strip(), ours.encode()) for ours in keys]
    if scheme.lower() == b"bearer" and any(right):
        return None
    wrong = "is not one of ours" if key else "is missing: send Authorization: Bearer KEY"
    way_out = {"WWW-Authenticate": "Bearer"}
    return HttpError(401, f"the API key {wrong}", code="invalid_api_key", headers=way_out)
