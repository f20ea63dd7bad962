"""What the dev prompts showed of each epoch of a run: `dev/NN/quality.json`."""

from dataclasses import dataclass, fields
from pathlib import Path

from lima_ray.records.files import read_json
from lima_ray.records.run import Run


@dataclass(frozen=True)
class Quality:
    epoch: int
    grade: float
    """Mean grade, 1 to 6, over replies that have one."""
    low: float
    """Ends of its 95 % interval, over prompts."""
    high: float
    stopped: float
    """Share of replies that EOT ended."""
    replies: int
    invalid: int
    """Replies whose verdict could not be read; they have no grade."""
    perplexity: float | None
    """Of `data.heldout`; none where the recipe names no such rows."""
    judge: str
    seconds: float
    weights: str = ""
    """Hash of the weights that replied; a grade counts for these alone."""

    def describe(self) -> str:
        perplexity = "" if self.perplexity is None else f", perplexity {self.perplexity:.3f}"
        interval = f"[{self.low:.2f}, {self.high:.2f}]"
        unread = f", {self.invalid} verdicts not readable" if self.invalid else ""
        return (
            f"epoch {self.epoch}: grade {self.grade:.2f} {interval}, "
            f"{self.stopped:.0%} stop{perplexity}{unread}"
        )


def read_qualities(run: Run, judge: str) -> dict[int, Quality]:
    """Return qualities by epoch that a judge has given already to the weights that stand there.

    Weights that a sweep has dropped keep theirs.
    """
    found = {}
    for file in run.path.glob("dev/*/quality.json"):
        read = read_json(file)
        if read is None or set(read) != {field.name for field in fields(Quality)}:
            continue  # cut off by a full disk; the epoch is judged again
        quality = Quality(**read)
        now = run.lineage(run.epoch_dir(quality.epoch)).get("weights", quality.weights)
        if quality.judge == judge and quality.weights == now:
            found[quality.epoch] = quality
    return found


def problem_file(run: Run, epoch: int) -> Path:
    """Return the file that says why an epoch could not be judged; it is gone once it is judged."""
    return run.dev_dir(epoch) / "problem.json"


def read_problems(run: Run) -> dict[int, str]:
    found = [read_json(file) for file in run.path.glob("dev/*/problem.json")]
    return {one["epoch"]: one["error"] for one in found if one}
