"""Errors in OpenAI's shape, with the status code that says what to do about them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lima_ray.web.requests import HttpError

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "metadata": ({},),
    "best_of": (1,),
    "suffix": ("",),
    "top_k": (-1, 0),
    "min_p": (0,),
}
"""Values at which fields that are not honoured ask for nothing; null is one for each of them."""
TYPES = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
PLAIN = {
    "json_invalid": "the body is not JSON",
    "missing": "the field is missing",
    "extra_forbidden": "this field is not known here, so nothing would come of it; leave it out",
    "finite_number": "the number must be finite",
}
"""Words for pydantic's kinds of errors that read badly."""
MEMBER = re.compile(r"constrained-|function-|list\[")
"""What pydantic puts into an error's path for the member of a union that was tried."""


def error_body(error: HttpError) -> dict[str, Any]:
    kind = TYPES.get(error.status, "invalid_request_error")
    return {
        "error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    }


def invalid_fields(errors: Sequence[Mapping[str, Any]]) -> HttpError:
    """Return the error for wrong fields, from pydantic's; the first field is named."""
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    # Of a union's members that were tried, the one that got furthest was meant.
    tried = (error for error in errors if error["loc"][:2] == first["loc"][:2])
    first = first if first["type"] == "extra_forbidden" else max(tried, key=lambda e: len(e["loc"]))
    parts = (str(part) for part in first["loc"] if part != "body")
    field = ".".join(part for part in parts if not MEMBER.match(part))
    message = PLAIN.get(first["type"]) or str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return invalid_json((first.get("ctx") or {}).get("error", ""))
    if first["type"] == "extra_forbidden" and (neutral := NEUTRAL.get(str(first["loc"][-1]))):
        values = " or ".join(map(str, neutral))
        message = f"this is not honoured here, so it may only be {values}; or leave it out"
    given = "" if first["type"] in ("missing", "value_error") else f" ({shorten(first['input'])})"
    return HttpError(400, f"{field}{given}: {message}" if field else message, field or None)


def invalid_json(reason: object) -> HttpError:
    return HttpError(400, f"{PLAIN['json_invalid']}: {reason}".rstrip(": "), code="invalid_json")


def shorten(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
