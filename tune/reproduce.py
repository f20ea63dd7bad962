"""Run the paper's ablations and put the results on one page, beside the paper's figures.

    python -m tune.reproduce [--setting lima-7b] [--seeds 0 1 2 3 4] [--out docs/reproduce]

On the miniature this takes about 45 minutes on two CPU cores (`make reproduce`). Studies share the
trainings that they have in common; a run that was stopped goes on where it was. The page says what
was found, whether it agrees with the paper or not, by the rule that each sweep file states.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("reproduce"))

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil

from lima_ray.config.paths import output_path
from lima_ray.config.storage.changing_files import pull, push
from lima_ray.judging.asking.budget import confirm
from lima_ray.records.files import write_json
from lima_ray.results.page.blocks import Block, Code, Heading, Line, Link, Strong, rows_table, text
from lima_ray.results.page.markdown import markdown_page
from tune import sweep
from tune.arguments import ReproduceCommand as Command
from tune.report import BEST
from tune.reports.finding import finding
from tune.reports.page import result_blocks
from tune.results import Outcome, Study
from tune.workers.tune_trials import connect
from tune.workers.worker_pool import WorkerPool, trainings_at_once

PAGE = "README.md"


def reproduce(command: Command) -> Path:
    """Run every study and write the page."""
    same: dict[str, Any] = {"setting": command.setting, "seeds": command.seeds}
    same |= {"runs_dir": command.runs_dir}
    plans = [sweep.plan(sweep.Command(sweep=name, **same)) for name in command.studies]
    studies = []
    connect()
    cluster, path = plans[0].base.cluster, plans[0].path
    at_once, gpus = trainings_at_once(
        plans[0].sweep, cluster, sum(len(plan.trainings) for plan in plans)
    )
    judging = [one for plan in plans for one in plan.judging_estimates()]
    confirm(judging, command.most_usd, sys.stdin.isatty())
    with (
        Stopwatch(path.with_name("reproduce.json")) as stopwatch,
        WorkerPool(cluster, at_once, gpus, path.parent / "workers") as pool,
    ):
        for number, plan in enumerate(plans, start=1):
            print(f"\nstudy {number} of {len(plans)}: {plan.sweep.name}", flush=True)
            studies.append(sweep.run_plan(plan, resume=True, pool=pool))
    return write(studies, output_path(command.out), stopwatch)


class Stopwatch(AbstractContextManager["Stopwatch"]):
    """Keeps the seconds of every start so far in a file, this one included once it ends."""

    def __init__(self, file: Path) -> None:
        self.file, self.started_s = file, time.monotonic()
        pull(file)
        self.starts: list[float] = json.loads(file.read_text()) if file.exists() else []

    def __exit__(self, *_: object) -> None:
        self.starts.append(round(time.monotonic() - self.started_s))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, self.starts)
        push(self.file)


def write(studies: list[Study], out: Path, stopwatch: Stopwatch) -> Path:
    """Write the page of some studies, in their order, and their pictures to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    table, sections = [], list[Block]()
    for study in studies:
        heading, found = Heading(study.sweep.name), finding(study)
        row: dict[str, Line] = {"study": Link(heading.text, heading.anchor)}
        row["the paper"] = study.sweep.claim
        row["what was measured"] = found.sentence if found else "see below"
        row["agrees"] = Strong(found.answer) if found else ""
        table.append(row)
        pictures = [
            Path(shutil.copy(picture, out / f"{heading.text}-{picture.name}"))
            for picture in sorted(study.path.glob("*.png"))
        ]
        sections += [heading, *result_blocks(study, pictures, BEST)]
    title = Heading("The paper's ablations, measured here", 1)
    page = out / PAGE
    blocks = [title, *how_made(studies, stopwatch), rows_table(table), *sections]
    page.write_text(markdown_page(blocks, out), encoding="utf-8")
    return page


def how_made(studies: list[Study], stopwatch: Stopwatch) -> Iterator[Block]:
    """Yield what was run, on what, in what time."""
    trainings: dict[str, Outcome] = {}
    for outcome in (o for study in studies for o in study.outcomes):
        known = trainings.get(outcome.id)
        if known is None or outcome.seconds > known.seconds:
            trainings[outcome.id] = outcome
    failed = sum(o.status == "failed" for o in trainings.values())
    trained_s, starts = sum(o.seconds for o in trainings.values()), len(stopwatch.starts)
    memory = psutil.virtual_memory().total / 2**30
    yield text(
        Code("python -m tune.reproduce"),
        f": {len(trainings)} trainings ({failed} failed) of "
        f"{len(studies)} studies, {minutes(sum(stopwatch.starts))} in all"
        f"{f' in {starts} starts' if starts > 1 else ''} ({minutes(trained_s)} of trainings, side "
        f"by side), on {os.cpu_count()} cores ({platform.machine()}, {memory:.0f} GiB).",
    )
    yield text(
        "Intervals are 95 %, over seeds and prompts together; differences are paired over both."
    )


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes"


def main(command: Command) -> None:
    print(f"page         {reproduce(command)}")
