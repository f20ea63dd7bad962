"""How long trainings take here, by the steps and judged replies of some that have run or run now.

pace = measure_pace(runs)            # none where too few steps are done
pace.seconds(cost, at_once=2)        # of what is left
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lima_ray.records.files import read_json
from lima_ray.records.run import Run
from tune.cost import Cost

FEWEST_STEPS = 5
NEWEST = 20
"""Earlier trainings that are looked at."""


@dataclass(frozen=True)
class Pace:
    """How long parts of trainings take."""

    per_flop_s: float
    per_reply_s: float | None
    """To make and judge a reply; none where no epoch is judged yet."""
    runs: int
    """How many were measured."""
    first_step_s: float
    """When the first step was done, in seconds since the epoch."""

    def seconds(self, cost: Cost, at_once: int) -> float:
        """Return how long trainings take with the judging that is known, once their workers are up.

        A judge works beside each trainer, so the slower of the two decides; the replies that
        measure come when a training is done.
        """
        each = 1 / max(cost.trainings, 1)
        training_s = cost.flops * each * self.per_flop_s
        reply_s = self.per_reply_s or 0.0
        replying_s = (cost.dev_replies + cost.replies) * each * reply_s
        rounds = math.ceil(cost.trainings / at_once)
        return rounds * max(training_s, replying_s) + cost.replies * each * reply_s


def measure_pace(runs: Iterable[Run]) -> Pace | None:
    """Measure the pace of some runs; none where they have too few steps."""
    step_s = flops = reply_s = 0.0
    replies, firsts = 0, list[float]()
    for run in runs:
        steps = run.steps()
        if len(steps) < FEWEST_STEPS:
            continue
        firsts.append(steps[0]["time"])
        step_s += sum(step["seconds"] for step in steps[1:])  # the first one warms up
        flops += sum(step["flops"] for step in steps[1:])
        for file in run.path.glob("dev/*/quality.json"):
            quality = read_json(file)
            if quality is None:
                continue  # removed since, or cut off by a full disk
            reply_s, replies = reply_s + quality["seconds"], replies + quality["replies"]
    if not firsts:
        return None
    per_reply_s = reply_s / replies if replies else None
    return Pace(step_s / flops, per_reply_s, len(firsts), min(firsts))


def earlier_runs(folder: Path, base_hash: str) -> list[Run]:
    """Return the newest runs in a folder that trained the same base."""
    cards = sorted(
        folder.glob("*/data_card.json"), key=lambda file: file.stat().st_mtime, reverse=True
    )
    runs = [Run(card.parent) for card in cards[:NEWEST]]
    same = [run for run in runs if run.data_card().get("base", {}).get("hash") == base_hash]
    return [run for run in same if run.metrics_file.exists()]
