"""Why workers were restarted: noted by Ray Train's controller, told by the driver."""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ray.exceptions import OutOfMemoryError
from ray.train import UserCallback

from lima_ray.config.errors import UserError
from lima_ray.config.storage.changing_files import push
from lima_ray.records.run import Run

FILE = "failures.log"
ENDED = "its process ended unexpectedly (killed, out of memory, or crashed)"


class FailureLog(UserCallback):
    """Writes a line to the run's directory when workers fail; it lives in the controller."""

    def __init__(self, run: Run) -> None:
        self.file = run.path / FILE

    def after_exception(
        self, run_context: Any, worker_exceptions: Mapping[int, BaseException]
    ) -> None:
        """Note which workers failed, by rank, and of what."""
        del run_context
        reasons: dict[str, list[int]] = {}
        for rank, error in sorted(worker_exceptions.items()):
            reasons.setdefault(describe_exception(error), []).append(rank)
        # A worker that died is the cause; the others lost contact with it.
        causes = sorted(reasons.items(), key=lambda reason: reason[0] != ENDED)
        line = "; ".join(
            f"worker{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))} failed: {why}"
            for why, ranks in causes
        )
        # On a full disk this raises, which ends the training at once, as another try would.
        with self.file.open("a", encoding="utf-8") as out:
            out.write(f"{line}\n")
        with suppress(UserError):  # a store that is down; the file goes there at the end
            push(self.file)


def describe_exception(error: BaseException) -> str:
    """Return the line of an error that says most: its last, or how its process ended."""
    text = str(error)
    if isinstance(error, OutOfMemoryError):
        found = re.search(r"was (\S+) used / (\S+) limit", text)
        used = f", {found[1]} of {found[2]} in use" if found else ""
        return (
            f"its node ran low on memory{used}; ask for fewer workers there (cluster.workers) or "
            "smaller train.tokens_per_micro_batch, or end what else runs on it"
        )
    if "Worker unexpectedly exits" in text:
        return ENDED
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"


def read_failures(run: Run) -> list[str]:
    """Return what was noted so far, a line each."""
    file = run.path / FILE
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
