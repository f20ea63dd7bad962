"""Whether what a study measured agrees with its claim, by the rule that its file states.

The 95 % interval of a difference decides. `expect` compares two groups of points: the claim holds
where the interval lies above 0, or, of a claim that nothing changes, within the margin it names.
`every_epoch` compares a training's last epoch with that of the lowest held-out perplexity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lima_ray.results.intervals import Estimate, paired_difference
from lima_ray.results.metric_unit import format_p
from lima_ray.results.units import counted
from tune.reports.epochs import dev_values_P
from tune.reports.wording import dev_unit, group, matches, unit_of
from tune.results import Outcome, Study
from tune.space import Expectation, Point

Answer = Literal["agrees", "disagrees", "not resolved"]


@dataclass(frozen=True)
class Finding:
    answer: Answer
    sentence: str
    """With the numbers."""


def finding(study: Study) -> Finding | None:
    """Apply a study's rule to what it measured; none where its file states no rule."""
    if study.sweep.every_epoch:
        return of_epochs(study)
    return of_groups(study, study.sweep.expect) if study.sweep.expect else None


def of_groups(study: Study, expect: Expectation) -> Finding:
    """Compare two groups of points, pair by pair: over the axes not named, seeds and prompts."""
    better, than = group(expect.better), group(expect.than) or "all others"
    pairs = pairs_of(study, expect)
    done = [pair for pair in pairs if all(study.done(point) for point in pair)]
    seeds = common_seeds(study, [point for pair in done for point in pair])
    if not seeds:
        return Finding("not resolved", f"No seed is done of both {better} and {than}.")
    better_SP = mean_values_SP(study, [a for a, _ in done], seeds)
    than_SP = mean_values_SP(study, [b for _, b in done], seeds)
    found = paired_difference(better_SP, than_SP)
    unit = unit_of(study)
    levels = [unit.with_sign(float(np.nanmean(values))) for values in (better_SP, than_SP)]
    sentence = (
        f"The {unit.name} is {levels[0]} with {better} and {levels[1]} with {than}: "
        f"{unit.change(found)}, {basis(found)}"
    )
    if len(pairs) > 1:
        left = f" of {len(pairs)}" if len(done) < len(pairs) else ""
        sentence += f", the mean of {len(done)}{left} pairs that differ in nothing else"
    if expect.within is None:
        return Finding(sign(found, unit.lower_is_better), f"{sentence}.")
    margin = unit.number(expect.within)
    return Finding(within(found, expect.within), f"{sentence}. The claim is within ±{margin}.")


def pairs_of(study: Study, expect: Expectation) -> list[tuple[Point, Point]]:
    """Pair points that should be better with those they are compared with."""
    pairs = []
    for point in study.points:
        if not matches(point, expect.better):
            continue
        named = expect.better | expect.than
        same = {axis: label for axis, label in point.labels.items() if axis not in named}
        pairs += [
            (point, other)
            for other in study.points
            if matches(other, same | expect.than) and not matches(other, expect.better)
        ]
    return pairs


def common_seeds(study: Study, points: Sequence[Point]) -> list[int]:
    done = [{outcome.seed for outcome in study.done(point)} for point in points]
    return sorted(set.intersection(*done)) if done else []


def mean_values_SP(study: Study, points: Sequence[Point], seeds: Sequence[int]) -> np.ndarray:
    """Return the metric's mean over points, by seed and prompt."""
    values = []
    for point in points:
        rows = [i for i, outcome in enumerate(study.done(point)) if outcome.seed in seeds]
        values.append(study.values_SP(point)[rows])
    return np.mean(values, axis=0)


def of_epochs(study: Study) -> Finding:
    """Compare each training's last epoch with that of its lowest held-out perplexity."""
    points = [point for point in study.points if study.done(point)]
    seeds = common_seeds(study, points)
    done = [[o for o in study.done(point) if o.seed in seeds] for point in points]
    rises = {outcome.id: rise(outcome) for own in done for outcome in own}
    known = {id: one for id, one in rises.items() if one is not None}
    if not known or len(known) < len(rises):
        return Finding("not resolved", "Held-out perplexity is not known of every epoch.")

    def dev_values_SP(epoch: dict[str, int]) -> np.ndarray:
        """Return what dev replies are worth at an epoch of each training, mean over points."""
        by_point = [[dev_values_P(outcome, epoch[outcome.id]) for outcome in own] for own in done]
        return np.mean(by_point, axis=0)

    last = {id: one.last for id, one in known.items()}
    lowest = {id: one.lowest for id, one in known.items()}
    found = paired_difference(dev_values_SP(last), dev_values_SP(lowest))
    unit = dev_unit(study)
    change = f"{unit.change(found)}{unit.sign}"
    ratios = [one.ratio for one in known.values()]
    rising = sum(ratio > 1 for ratio in ratios)
    sentence = (
        f"Held-out perplexity is lowest at epoch {', '.join(map(str, lowest.values()))} and "
        f"{100 * np.mean(ratios) - 100:.1f} % higher at the last, epoch {max(last.values())} "
        f"(higher in {rising} of {counted(len(ratios), 'training')}); from the one to the other "
        f"the dev {unit.noun} changes by {change}, {basis(found, 'dev prompt')}."
    )
    if not rising or sign(found) == "disagrees":
        return Finding("disagrees", sentence)
    return Finding(sign(found) if rising == len(ratios) else "not resolved", sentence)


@dataclass(frozen=True)
class Rise:
    """How a training's held-out perplexity ends."""

    lowest: int
    """Epoch where it is lowest."""
    last: int
    ratio: float
    """Perplexity of the last over the lowest."""


def rise(outcome: Outcome) -> Rise | None:
    """Return how a training's held-out perplexity ends; none where it was not measured."""
    known = {q.epoch: q.perplexity for q in outcome.qualities if q.perplexity is not None}
    if not known or len(known) < len(outcome.qualities):
        return None
    lowest, last = min(known, key=lambda epoch: known[epoch]), max(known)
    return Rise(lowest, last, known[last] / known[lowest])


def basis(found: Estimate, prompt: str = "prompt") -> str:
    """Describe the p-value, seeds and prompts of an estimate."""
    p = f"p {format_p(found.p)}, " if found.p == found.p else ""
    alone = " alone, so it says nothing of other seeds" if found.n_seeds == 1 else ""
    return f"{p}over {counted(found.n_seeds, 'seed')}{alone} and {counted(found.n_prompts, prompt)}"


def sign(found: Estimate, lower_is_better: bool = False) -> Answer:
    """Answer whether an interval lies on the better side of 0, on the other, or around it."""
    if lower_is_better:
        return "agrees" if found.high < 0 else "disagrees" if found.low > 0 else "not resolved"
    return "agrees" if found.low > 0 else "disagrees" if found.high < 0 else "not resolved"


def within(found: Estimate, margin: float) -> Answer:
    """Answer whether an interval lies within a margin of 0, outside it, or across."""
    if -margin <= found.low and found.high <= margin:
        return "agrees"
    return "disagrees" if found.low > margin or found.high < -margin else "not resolved"
