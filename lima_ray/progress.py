"""What the driver shows while workers train: a bar on a terminal, lines in a log."""

import sys
import threading
import time
from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from lima_ray.config import Recipe
from lima_ray.records.quality import assessed, problems
from lima_ray.restarts import failures
from lima_ray.run import Run
from lima_ray.schedule import Schedule

POLL_S = 0.5
LOG_EVERY_S = 10.0
RECENT_STEPS = 20


class Progress(AbstractContextManager["Progress"]):
    """Follows a run's metrics.jsonl in a thread of its own until the context ends."""

    def __init__(self, run: Run, recipe: Recipe, schedule: Schedule) -> None:
        self.run, self.recipe, self.schedule = run, recipe, schedule
        self.console = Console(highlight=False)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            disable=not sys.stdout.isatty(),
        )
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.read = 0
        self.starts = self.notes = 0
        self.judged: set[int] = set()
        self.problems: dict[int, str] = {}
        self.failures = 0
        self.logged = time.monotonic()
        self.said_step = 0
        self.steps: list[dict] = []

    def __enter__(self) -> "Progress":
        already = self.run.metrics()
        self.starts = sum(m["kind"] == "start" for m in already)
        self.notes = sum(m["kind"] == "note" for m in already)
        self.read = len(already)
        self.said_step = max((m["step"] for m in already if m["kind"] == "step"), default=0)
        self.failures = len(failures(self.run))
        self.judged = set(assessed(self.run, self.recipe.select.judge_name))
        self.problems = problems(self.run)
        self.bar.start()
        self.task = self.bar.add_task("starting workers", total=self.schedule.steps, numbers="")
        self._say(
            f"run {self.run.path}: {self.schedule.steps} steps, {self.recipe.cluster.workers} "
            f"worker{'s' * (self.recipe.cluster.workers > 1)}"
        )
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join()
        self._update(final=True)
        self.bar.stop()

    def _follow(self) -> None:
        while not self.stopping.wait(POLL_S):
            self._update()

    def _update(self, final: bool = False) -> None:
        """Read what is new and show it; a restart shortens the file, which is then read afresh."""
        for failure in (new := failures(self.run)[self.failures :]):
            self._say(failure)
        self.failures += len(new)
        records = self.run.metrics()
        starts = sum(m["kind"] == "start" for m in records)
        if starts > self.starts or len(records) < self.read:
            start = next((m for m in reversed(records) if m["kind"] == "start"), None)
            if start and starts > self.starts:
                self._say(describe_start(start))
            self.starts = starts
        notes = [m["text"] for m in records if m["kind"] == "note"]
        for text in notes[self.notes :]:
            self._say(text)
        self.notes = len(notes)
        self.read = len(records)
        for epoch, quality in sorted(assessed(self.run, self.recipe.select.judge_name).items()):
            if epoch not in self.judged:
                self.judged.add(epoch)
                self._say(quality.describe())
        for epoch, problem in problems(self.run).items():
            if self.problems.get(epoch) != problem:
                self.problems[epoch] = problem
                self._say(
                    f"epoch {epoch} could not be judged, and is judged again at the end: {problem}"
                )
        self.steps = [m for m in records if m["kind"] == "step"]
        if not self.steps:
            return
        last = self.steps[-1]
        numbers = self._numbers(last)
        title = f"epoch {last['epoch']}/{self.recipe.optim.epochs} step {last['step']}"
        self.bar.update(self.task, completed=last["step"], description=title, numbers=numbers)
        due = time.monotonic() - self.logged > LOG_EVERY_S
        news = last["step"] != self.said_step
        if not self.console.is_terminal and news and (due or final):
            self.logged, self.said_step = time.monotonic(), last["step"]
            self._say(f"{title}/{self.schedule.steps} {numbers}")

    def _numbers(self, last: dict) -> str:
        """Loss, rate, speed, time left and MFU, over the most recent steps."""
        recent = self.steps[-RECENT_STEPS:]
        seconds = sum(s["seconds"] for s in recent)
        tokens = sum(s["supervised_tokens"] for s in recent)
        left = (self.schedule.steps - last["step"]) * seconds / len(recent)
        mfu = f" MFU {last['mfu']:.0%}" if "mfu" in last else ""
        return (
            f"loss {last['loss']:.3f} lr {last['learning_rate']:.2e} "
            f"{tokens / seconds:,.0f} supervised tok/s{mfu} "
            f"ETA {int(left) // 60}:{int(left) % 60:02d}"
        )

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False)


def describe_start(start: dict) -> str:
    """One line about a start of the worker group."""
    workers = f"{start['workers']} worker{'s' * (start['workers'] > 1)}"
    workers += f", ZeRO {start['zero_stage']}, {start['precision']}, {start['attention']} attention"
    workers += ", Liger's layers," if start["liger"] else ","
    if start["step"]:
        return f"{workers} go on after step {start['step']}"
    phases = {k.removesuffix("_s"): v for k, v in start.items() if k.endswith("_s")}
    shares = ", ".join(
        f"{name.replace('_', ' ')} {seconds:.1f}" for name, seconds in phases.items()
    )
    total = f"{sum(phases.values()):.0f} s after the command"
    return f"{workers} start {total} ({shares})"
