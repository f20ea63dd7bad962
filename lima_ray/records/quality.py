"""What the dev prompts showed of each epoch of a run: `dev/NN/quality.json`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lima_ray.config.sections import Metric
from lima_ray.records.files import read_json
from lima_ray.records.run import Run

NEWER = {"metric": "grade", "unanswered": 0, "reference": ""}
"""What files of earlier versions do not say."""


@dataclass(frozen=True)
class Quality:
    epoch: int
    value: float
    """Mean over the replies that have one: of grades, 1 to 6, or of wins against the reference, 0
    to 1, as `metric` says."""
    low: float
    """Ends of its 95 % interval, over prompts."""
    high: float
    stopped: float
    """Share of replies that EOT ended."""
    replies: int
    invalid: int
    """Replies whose verdict could not be read, or of a pair's two verdicts one; they have no value,
    nor do those that are unanswered."""
    perplexity: float | None
    """Of `data.heldout`; none where the recipe names no such rows."""
    judge: str
    seconds: float
    weights: str = ""
    """Hash of the weights that replied; the value counts for these alone."""
    metric: Metric = "grade"
    unanswered: int = 0
    """Replies on which the judge gave no answer."""
    reference: str = ""
    """Hash of the replies that they were compared with."""


def read_qualities(run: Run, judge: str) -> dict[int, Quality]:
    """Return qualities by epoch that a judge has given already to the weights that stand there.

    Weights that a sweep has dropped keep theirs.
    """
    found = {}
    for file in run.path.glob("dev/*/quality.json"):
        read = _upgrade(read_json(file) or {})
        if set(read) != {field.name for field in fields(Quality)}:
            continue  # cut off by a full disk; the epoch is judged again
        quality = Quality(**read)
        now = run.lineage(run.epoch_dir(quality.epoch)).get("weights", quality.weights)
        if quality.judge == judge and quality.weights == now:
            found[quality.epoch] = quality
    return found


def _upgrade(read: dict[str, Any]) -> dict[str, Any]:
    """Return what a file of any version holds, as it is written today."""
    now = {"value" if name == "grade" else name: value for name, value in read.items()}
    return NEWER | now


def problem_file(run: Run, epoch: int) -> Path:
    """Return the file that says why an epoch could not be judged; it is gone once it is judged."""
    return run.dev_dir(epoch) / "problem.json"


def read_problems(run: Run) -> dict[int, str]:
    found = [read_json(file) for file in run.path.glob("dev/*/problem.json")]
    return {one["epoch"]: one["error"] for one in found if one}
