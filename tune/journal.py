"""A sweep's lasting record: how each training ended, and what a searcher asked for.

`trainings.jsonl` has a line each time a training ends, for each point and seed that it serves; a
training that is done is written once. `asked.jsonl` has the points that a searcher proposed.
"""

import json
import os
from pathlib import Path
from typing import Any

from tune.trial import Job

ENDED, ASKED = "trainings.jsonl", "asked.jsonl"


class Journal:
    """Appends, so that every line survives a kill."""

    def __init__(self, path: Path) -> None:
        """Open the journal of the sweep in a directory; a line that a kill cut off is dropped."""
        self.path = path
        for file in (path / ENDED, path / ASKED):
            if file.exists():
                whole = [x for x in file.read_bytes().splitlines(True) if x.endswith(b"\n")]
                os.truncate(file, sum(map(len, whole)))
        done = [line for line in read(path / ENDED) if line["status"] == "done"]
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
                self.append(ENDED, record | {"point": point, "seed": seed})
            if status == "done":
                self.done.add((job.id, point, seed))

    def refused(self, point: int, seeds: list[int], error: str) -> None:
        """Note a point whose trainings cannot be."""
        record = {"id": f"refused-{point}", "status": "failed", "run": "", "measured": None}
        for seed in seeds:
            self.append(
                ENDED, record | {"error": error, "seconds": 0, "point": point, "seed": seed}
            )

    def asked(self, point: dict[str, Any]) -> None:
        """Note a point that a searcher proposed."""
        self.append(ASKED, point)

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Write a line and see that it is on the disk."""
        with (self.path / name).open("a", encoding="utf-8") as out:
            out.write(f"{json.dumps(record, ensure_ascii=False)}\n")
            out.flush()
            os.fsync(out.fileno())


def read(file: Path) -> list[dict[str, Any]]:
    """Lines of a journal's file; one that a kill cut off does not count."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
