"""Progress of generation: replies done, share that stopped, speed and time left."""

import time
from collections import deque
from contextlib import AbstractContextManager

from lima_ray.config.display import ProgressDisplay
from lima_ray.records.reply import Reply

RECENT_REPLIES = 200


class GenerationProgress(AbstractContextManager["GenerationProgress"]):
    def __init__(self, total: int, before: int) -> None:
        self.total, self.done = total, before
        self.display = ProgressDisplay(total, numbers="loading", completed=before)
        self.recent: deque[tuple[float, int, bool]] = deque(maxlen=RECENT_REPLIES)

    def __enter__(self) -> "GenerationProgress":
        self.display.__enter__()
        self.display.log(f"{self.total - self.done} replies to make", at_once=True)
        return self

    def __exit__(self, *raised: object) -> None:
        self.display.__exit__(*raised)

    def add(self, record: Reply) -> None:
        self.done += 1
        self.recent.append((time.monotonic(), record.n_tokens or 0, record.stopped))
        line = self.line()
        self.display.update(self.done, numbers=line)
        self.display.log(line)

    def line(self) -> str:
        """Return the replies done; of recent ones the share that stopped, speed and time left."""
        times, tokens, stopped = zip(*self.recent, strict=True)
        line = f"{self.done}/{self.total} replies {sum(stopped) / len(stopped):.0%} stopped"
        seconds = times[-1] - times[0]
        if not seconds:
            return line
        speed = (len(times) - 1) / seconds
        left = int((self.total - self.done) / speed)
        return (
            f"{line} {speed:,.1f}/s {sum(tokens[1:]) / seconds:,.0f} tok/s "
            f"ETA {left // 60}:{left % 60:02d}"
        )
