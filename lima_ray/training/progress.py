"""What the driver shows while workers train: a bar on a terminal, lines in a log."""

from contextlib import AbstractContextManager

from lima_ray.config.display import ProgressDisplay
from lima_ray.config.recipe import Recipe
from lima_ray.records.quality import read_problems, read_qualities
from lima_ray.records.run import Run
from lima_ray.results.metric_unit import describe_epoch
from lima_ray.training.failures import read_failures
from lima_ray.training.schedule import Schedule

POLL_S = 0.5
LOG_EVERY_S = 10.0
RECENT_STEPS = 20


class TrainingProgress(AbstractContextManager["TrainingProgress"]):
    """Follows a run's metrics.jsonl in a thread of its own until the context ends."""

    def __init__(self, run: Run, recipe: Recipe, schedule: Schedule) -> None:
        self.run, self.recipe, self.schedule = run, recipe, schedule
        self.display = ProgressDisplay(schedule.steps, "starting workers", log_every_s=LOG_EVERY_S)
        self.read = 0
        self.starts = self.notes = 0
        self.judged: set[int] = set()
        self.problems: dict[int, str] = {}
        self.failures = 0
        self.said_step = 0
        self.steps: list[dict] = []

    def __enter__(self) -> "TrainingProgress":
        already = self.run.metrics()
        self.starts = sum(m["kind"] == "start" for m in already)
        self.notes = sum(m["kind"] == "note" for m in already)
        self.read = len(already)
        self.said_step = max((m["step"] for m in already if m["kind"] == "step"), default=0)
        self.failures = len(read_failures(self.run))
        self.judged = set(read_qualities(self.run, self.recipe.select.judge_name))
        self.problems = read_problems(self.run)
        self.display.__enter__()
        self.display.print(
            f"run {self.run.place}: {self.schedule.steps} steps, {self.recipe.cluster.workers} "
            f"worker{'s' * (self.recipe.cluster.workers > 1)}"
        )
        self.display.follow(self._update, POLL_S)
        return self

    def __exit__(self, *raised: object) -> None:
        self.display.__exit__(*raised)

    def _update(self, final: bool) -> None:
        """Read what is new and show it; a restart shortens the file, which is then read afresh."""
        for failure in (new := read_failures(self.run)[self.failures :]):
            self.display.print(failure)
        self.failures += len(new)
        records = self.run.metrics()
        starts = sum(m["kind"] == "start" for m in records)
        if starts > self.starts:
            start = next(m for m in reversed(records) if m["kind"] == "start")
            self.display.print(describe_start(start))
        if starts > self.starts or len(records) < self.read:
            self.starts = starts
        notes = [m["text"] for m in records if m["kind"] == "note"]
        for text in notes[self.notes :]:
            self.display.print(text)
        self.notes = len(notes)
        self.read = len(records)
        for epoch, quality in sorted(
            read_qualities(self.run, self.recipe.select.judge_name).items()
        ):
            if epoch not in self.judged:
                self.judged.add(epoch)
                self.display.print(describe_epoch(quality))
        for epoch, problem in read_problems(self.run).items():
            if self.problems.get(epoch) != problem:
                self.problems[epoch] = problem
                self.display.print(
                    f"epoch {epoch} could not be judged, and is judged again at the end: {problem}"
                )
        self.steps = [m for m in records if m["kind"] == "step"]
        if not self.steps:
            return
        last = self.steps[-1]
        numbers = self._numbers(last)
        title = f"epoch {last['epoch']}/{self.recipe.optim.epochs} step {last['step']}"
        self.display.update(last["step"], title, numbers)
        if last["step"] != self.said_step and self.display.log(
            f"{title}/{self.schedule.steps} {numbers}", at_once=final
        ):
            self.said_step = last["step"]

    def _numbers(self, last: dict) -> str:
        """Return loss, rate, speed, time left and MFU, over the most recent steps."""
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


def describe_start(start: dict) -> str:
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
