"""The error a user can mend: what is wrong, the value, and the way out, without a traceback."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from lima_ray.config.terminal import printable

QUOTE = "'"
SHOWN_ERRORS = 5
"""Of many alike, as many as a message names."""


class UserError(Exception):
    """Bad input or a missing resource, with what to change; what refuses something raises it."""


def join_names(names: list[str], most: int = 10) -> str:
    """Return the first names of a list, and how many more there are, for messages."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def dotted(keys: Sequence[int | str]) -> str:
    """Return the dotted name of a field, from the keys that lead to it."""
    return ".".join(map(str, keys))


def describe_invalid(
    error: ValidationError,
    origin: str,
    describe_unknown: Callable[[str, Any], str],
    name_of: Callable[[Sequence[int | str]], str] = dotted,
) -> str:
    """Say what is wrong with each field of a pydantic model, a line each.

    Args:
        origin: begins each line, such as a file's name.
        describe_unknown: says it of a field that is not known, by its name and its value.
        name_of: returns a field's name, from the keys that lead to it.
    """
    lines: list[str] = []
    for problem in error.errors():
        name, context = name_of(problem["loc"]), problem.get("ctx", {})
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = describe_unknown(name, problem["input"])
        elif problem["type"] == "missing":
            message = f"{name} is missing"
        elif problem["type"] == "union_tag_not_found":
            message = f"{name}.{context['discriminator'].strip(QUOTE)} is missing"
        elif problem["type"] == "union_tag_invalid":
            key, tag = context["discriminator"].strip(QUOTE), context["tag"]
            message = f"{name}.{key} is {tag!r}; it is one of {context['expected_tags']}"
        elif name:
            before = f"{name} is {problem['input']!r}: "
            message = f"{message[0].lower()}{message[1:]}"
            if lines and lines[-1].startswith(f"{origin}: {before}"):  # a field of several types
                lines[-1] += f", or {message.removeprefix('input should be ')}"
                continue
            message = before + message
        lines.append(f"{origin}: {message}")
    return "\n  ".join(lines)


class SignalExit(BaseException):
    """A signal ended the work; the message says where it stands and how it goes on."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
        """Of the process, as a shell has it: 128 and the signal's number."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a `UserError` as one message and exit with status 2, for `__main__` blocks.

    Ctrl-C ends without a traceback, with the shell's status 130; what was saved is kept.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who reads it has enough, as in `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except UserError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        sys.exit(2)
    except SignalExit as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.status)
    except KeyboardInterrupt:
        print("interrupted; what was saved is kept", file=sys.stderr)
        sys.exit(130)
