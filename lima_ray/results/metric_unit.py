"""The unit in which a metric is written: levels and differences with their intervals, p-values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lima_ray.config.sections import Metric
from lima_ray.records.quality import Quality
from lima_ray.results.intervals import Estimate
from lima_ray.results.units import counted


@dataclass(frozen=True)
class Unit:
    name: str
    """In titles and sentences."""
    noun: str
    scale: str
    factor: float
    """Times the metric."""
    decimals: int
    lowest: float
    """Ends of what is possible, in this unit; an interval is cut there."""
    highest: float
    lower_is_better: bool = False

    def rank(self, level: float) -> float:
        """Return a number that is highest for the best level."""
        return -level if self.lower_is_better else level

    @property
    def axis_limits(self) -> tuple[float, float]:
        """The ends of what is possible, with room for a marker on the highest."""
        return self.lowest, self.highest + 0.02 * (self.highest - self.lowest)

    @property
    def heading(self) -> str:
        return f"{self.noun}, {self.scale}"

    def number(self, value: float) -> str:
        """Write a level of the metric in this unit."""
        return self.text(self.factor * value)

    @property
    def sign(self) -> str:
        """What stands after a number."""
        return " %" if self.scale == "%" else ""

    def with_sign(self, value: float) -> str:
        """Write a level with its sign, where it has one: `83.0 %`."""
        return self.number(value) + self.sign

    def text(self, value: float) -> str:
        """Write a number that is in this unit already."""
        return f"{value:.{self.decimals}f}"

    def ends(self, estimate: Estimate) -> tuple[float, float]:
        """Return a level's interval in this unit."""
        low, high = self.factor * estimate.low, self.factor * estimate.high
        return max(low, self.lowest), min(high, self.highest)

    def level(self, estimate: Estimate) -> str:
        """Write a level with its interval, such as `4.32 [4.10, 4.54]`."""
        low, high = map(self.text, self.ends(estimate))
        mean = self.number(estimate.mean)
        return mean if math.isnan(estimate.low) else f"{mean} [{low}, {high}]"

    def change(self, estimate: Estimate) -> str:
        """Write a difference with its interval, such as `+0.52 [+0.31, +0.73]`."""
        mean, low, high = (
            f"{self.factor * value:+.{self.decimals}f}"
            for value in (estimate.mean, estimate.low, estimate.high)
        )
        return mean if math.isnan(estimate.low) else f"{mean} [{low}, {high}]"


def percent(noun: str) -> Unit:
    return Unit(f"share of {noun}", noun, "%", 100, 1, 0, 100)


GRADE = Unit("mean grade", "grade", "1 to 6", 1, 2, 1, 6)
WIN_RATE = Unit("win rate against the reference", "win rate", "%", 100, 1, 0, 100)
JUDGED: dict[Metric, Unit] = {"grade": GRADE, "win_rate": WIN_RATE}
"""Of what a judge's verdicts on replies are counted as."""


def in_unit(qualities: Sequence[Quality], unit: Unit) -> tuple[list[float], ...]:
    """Return the low ends, values and high ends of epochs, in a unit."""
    low, value, high = (
        [unit.factor * getattr(quality, name) for quality in qualities]
        for name in ("low", "value", "high")
    )
    return low, value, high


def describe_epoch(quality: Quality) -> str:
    """Write what the dev prompts showed of an epoch, in a line."""
    unit = JUDGED[quality.metric]
    low, high = unit.number(quality.low), unit.number(quality.high)
    told = [
        f"{unit.noun} {unit.number(quality.value)} [{low}, {high}]{unit.sign}",
        f"{quality.stopped:.0%} stop",
        "" if quality.perplexity is None else f"perplexity {quality.perplexity:.3f}",
        f"{counted(quality.invalid, 'reply', 'replies')} not readably judged"
        if quality.invalid
        else "",
        f"{counted(quality.unanswered, 'reply', 'replies')} without an answer"
        if quality.unanswered
        else "",
    ]
    return f"epoch {quality.epoch}: {', '.join(filter(None, told))}"


def format_p(p: float) -> str:
    """Write a p-value; nothing where there is none."""
    if math.isnan(p):
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
