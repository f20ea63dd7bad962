"""Which of two systems is preferred: win, tie and lose, and tests of a difference.

win_tie_lose(["win", "tie", "unreadable"], ["p1", "p2", "p3"])
compare_paired({"p1": 4.0, "p2": 5.0}, {"p1": 3.0, "p2": 5.0})
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from lima_ray.results.intervals import NAN, bootstrap, paired_difference
from lima_ray.results.statistics.clustered import ClusteredMean, Rate, clustered_mean, rate

Outcome = Literal["win", "tie", "lose", "unreadable", "unanswered"]
POINTS = {"win": 1.0, "tie": 0.5, "lose": 0.0}
"""Of outcomes that were read."""


@dataclass(frozen=True)
class Preference:
    """How often one system is preferred to another (LIMA figures 1 and 2)."""

    win: Rate
    tie: Rate
    lose: Rate
    score: Rate
    """Wins and half the ties: AlpacaEval's win rate."""
    margin: ClusteredMean
    """Wins less losses; its `p` tests that neither is preferred."""

    @property
    def rates(self) -> dict[str, Rate]:
        return {"win": self.win, "tie": self.tie, "lose": self.lose}


@dataclass(frozen=True)
class PairedDifference:
    """How much higher the first system's mean is, over the prompts that both have."""

    mean: float
    low: float
    """Ends of the paired t interval."""
    high: float
    p: float
    bootstrap_low: float
    """Ends of the paired bootstrap over prompts."""
    bootstrap_high: float
    n_prompts: int
    only_first: tuple[str, ...]
    """Prompts that are left out because the second has no value there."""
    only_second: tuple[str, ...]


def win_tie_lose(outcomes: Sequence[str], prompts: Sequence[Hashable]) -> Preference:
    """Return shares of win, tie and lose with intervals, clustered by prompt, and with bounds.

    Args:
        outcomes: an `Outcome` of each verdict, from the side of the first system; what is no
            verdict is `unreadable` or `unanswered`, and no tie.
        prompts: the prompt of each; both orders of a pair and several annotators share one.
    """
    if unknown := set(outcomes) - set(get_args(Outcome)):
        raise ValueError(f"no outcomes: {sorted(map(str, unknown))}; they are {get_args(Outcome)}")
    pairs = list(zip(outcomes, prompts, strict=True))
    read = [(outcome, prompt) for outcome, prompt in pairs if outcome in POINTS]
    seen = [prompt for _, prompt in read]
    counts = Counter(outcomes)
    unread = counts["unreadable"], counts["unanswered"]

    def share(wanted: str) -> Rate:
        return rate([float(outcome == wanted) for outcome, _ in read], seen, *unread)

    points = [POINTS[outcome] for outcome, _ in read]
    return Preference(
        win=share("win"),
        tie=share("tie"),
        lose=share("lose"),
        score=rate(points, seen, *unread),
        margin=clustered_mean([2 * point - 1 for point in points], seen),
    )


def flip(outcome: Outcome) -> Outcome:
    """Return an outcome from the side of the other system."""
    return {"win": "lose", "lose": "win"}.get(outcome, outcome)  # pyright: ignore[reportReturnType]


def prompt_means(values: Sequence[float], prompts: Sequence[str]) -> dict[str, float]:
    """Return the mean over samples of each prompt, as `compare_paired` takes them."""
    by_prompt: dict[str, list[float]] = {}
    for value, prompt in zip(values, prompts, strict=True):
        by_prompt.setdefault(prompt, []).append(value)
    return {prompt: sum(found) / len(found) for prompt, found in by_prompt.items()}


def compare_paired(first: Mapping[str, float], second: Mapping[str, float]) -> PairedDifference:
    """Return the difference between two systems prompt by prompt, with t test and bootstrap.

    What makes a prompt hard for both cancels (Miller 2024, section 4).

    Args:
        first: its value at each prompt: a grade, 1 for a pass, or a score against a third system.
        second: the same of the other. Prompts that one lacks are named, not silently dropped.
    """
    both = [prompt for prompt in first if prompt in second]
    a_P, b_P = (np.array([side[p] for p in both], dtype=float) for side in (first, second))
    if not (np.isfinite(a_P).all() and np.isfinite(b_P).all()):
        raise ValueError("a value is NaN; leave out what was not read")
    found = paired_difference(a_P[None], b_P[None])
    low = high = NAN
    if len(both) > 1:
        ends = bootstrap(list(a_P - b_P), [str(n) for n in range(len(both))]).confidence_interval
        low, high = float(ends.low), float(ends.high)
    return PairedDifference(
        mean=found.mean,
        low=found.low,
        high=found.high,
        p=found.p,
        bootstrap_low=low,
        bootstrap_high=high,
        n_prompts=len(both),
        only_first=tuple(prompt for prompt in first if prompt not in second),
        only_second=tuple(prompt for prompt in second if prompt not in first),
    )
