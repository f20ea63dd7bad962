"""What the drill tells of each fault: what was lost, for how long, and what held as promised."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What one fault did."""

    lost: str
    """What was lost, with its number."""
    seconds: float | None
    """From the fault until the work went on; none where nothing stood still."""
    held: str
    """What was compared, and came out as promised."""
    skipped: str = ""
    """Why it could not be tried here."""


class NotHeldError(AssertionError):
    """A promise that a fault has broken; the message says what was expected and what came."""


@dataclass(frozen=True)
class Fault:
    """A row of the drill."""

    name: str
    """As the command line takes it."""
    title: str
    run: Callable[[Path], Outcome]
    """Cause it and watch, in a directory of its own; NotHeldError where a promise is broken."""


def skipped(why: str) -> Outcome:
    return Outcome("", None, "", why)


def expect(holds: bool, otherwise: str) -> None:
    """Raise NotHeldError where a promise does not hold."""
    if not holds:
        raise NotHeldError(otherwise)


def wait_until(holds: Callable[[], Any], timeout_s: float, what: str, every_s: float = 0.1) -> Any:
    """Wait until something is true, and return it; NotHeldError where it is not in time."""
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        expect(time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}")
        time.sleep(every_s)
    return found
