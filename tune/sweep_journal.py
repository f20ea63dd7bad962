"""A sweep's lasting record: how each training ended, and what a searcher asked for.

`trainings.jsonl` has a line each time a training ends, for each point and seed that it serves; a
training that is done is written once. `asked.jsonl` has the points that a searcher proposed.
"""

from pathlib import Path
from typing import Any

from lima_ray.records.journal import Journal
from tune.training import Job

ENDED, ASKED = "trainings.jsonl", "asked.jsonl"


class SweepJournal:
    """What a sweep has done; every line survives a kill and a power cut."""

    def __init__(self, path: Path) -> None:
        """Open the journal of the sweep in a directory; a line that a kill cut off is dropped."""
        self.trainings = Journal(path / ENDED, durable=True)
        self.proposals = Journal(path / ASKED, durable=True)
        for journal in (self.trainings, self.proposals):
            journal.repair()
        done = [line for line in self.trainings.records() if line["status"] == "done"]
        self.done = {(line["id"], line["point"], line["seed"]) for line in done}

    def ended(
        self, job: Job, askers: set[tuple[int, int]], status: str, error: str, seconds: float
    ) -> None:
        """Note how a training ended.

        Args:
            job: the training.
            askers: points and seeds that it serves.
            status: done, failed or stopped.
            error: why it failed.
            seconds: it took.
        """
        record = {"id": job.id, "status": status, "run": str(job.run.path)}
        record |= {"measured": str(job.measured) if status == "done" else None}
        record |= {"error": error, "seconds": round(seconds, 1)}
        for point, seed in sorted(askers):
            if (job.id, point, seed) not in self.done:
                self.trainings.append(record | {"point": point, "seed": seed})
            if status == "done":
                self.done.add((job.id, point, seed))

    def refused(self, point: int, seeds: list[int], error: str) -> None:
        """Note a point whose trainings cannot be."""
        record = {"id": f"refused-{point}", "status": "failed", "run": "", "measured": None}
        for seed in seeds:
            self.trainings.append(
                record | {"error": error, "seconds": 0, "point": point, "seed": seed}
            )

    def asked(self, point: dict[str, Any]) -> None:
        """Note a point that a searcher proposed."""
        self.proposals.append(point)
