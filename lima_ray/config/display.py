"""Progress of long work: a bar on a terminal, lines in a log."""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn


class ProgressDisplay(AbstractContextManager["ProgressDisplay"]):
    """A bar with title and numbers, lines above it; without a terminal lines each `log_every_s`."""

    def __init__(
        self,
        total: int,
        title: str = "",
        numbers: str = "",
        completed: int = 0,
        count: bool = False,
        log_every_s: float = 10.0,
    ) -> None:
        """Prepare the display; the context shows it.

        Args:
            total: units of work, of which `completed` are done before.
            title: what stands before the bar, and `numbers` after it.
            count: show completed units of all instead of a percentage.
        """
        self.console = Console(highlight=False)
        self.bar = Progress(
            *([TextColumn("{task.description}")] if title else []),
            BarColumn(bar_width=20),
            MofNCompleteColumn() if count else TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
            disable=not sys.stdout.isatty(),
        )
        self.task = self.bar.add_task(title, total=total, completed=completed, numbers=numbers)
        self.log_every_s, self.logged_s = log_every_s, time.monotonic()
        self.ending = threading.Event()
        self.refresh: Callable[[bool], None] | None = None

    def __enter__(self) -> "ProgressDisplay":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.refresh:
            self.ending.set()
            self.thread.join()
            self.refresh(True)
        self.bar.stop()

    def follow(self, refresh: Callable[[bool], None], every_s: float) -> None:
        """Call `refresh(False)` repeatedly in a thread, and at the end `refresh(True)`."""

        def repeat() -> None:
            while not self.ending.wait(every_s):
                refresh(False)

        self.refresh = refresh
        self.thread = threading.Thread(target=repeat, daemon=True)
        self.thread.start()

    def update(self, completed: int, title: str | None = None, numbers: str = "") -> None:
        self.bar.update(self.task, completed=completed, description=title, numbers=numbers)

    def log(self, line: str, at_once: bool = False) -> bool:
        """Print a line where there is no terminal and one is due; return whether it was printed."""
        now_s = time.monotonic()
        if self.console.is_terminal or not (at_once or now_s - self.logged_s > self.log_every_s):
            return False
        self.logged_s = now_s
        self.print(line)
        return True

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, soft_wrap=True, markup=False)
