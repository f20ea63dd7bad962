"""How long each phase of a start takes, across the driver and its workers."""

import time
from dataclasses import dataclass, field


@dataclass
class Phases:
    """Seconds of each phase from the command to the first step."""

    last: float
    """When the last phase ended, in seconds since the epoch."""
    seconds: dict[str, float] = field(default_factory=dict)

    def done(self, phase: str) -> None:
        now = time.time()
        self.seconds[f"{phase}_s"] = round(now - self.last, 3)
        self.last = now
