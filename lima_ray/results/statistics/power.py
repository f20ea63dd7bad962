"""How many prompts a study needs, and what more answers would do to its interval.

resolvable_difference(300, preference_deviation(ties=0.21))   # in points of wins less losses
prompts_needed(0.06, deviation=0.37)
interval_after(successes=31, n=50, more=20)
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from lima_ray.results.intervals import CONFIDENCE, QUANTILE, t_quantile
from lima_ray.results.statistics.clustered import wilson_ends

POWER = 0.8
"""The chance to find a difference that is there; the usual one."""


@dataclass(frozen=True)
class Forecast:
    """An interval as it is, and as it would be after more answers of the same kind."""

    low: float
    high: float
    low_after: float
    high_after: float

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def width_after(self) -> float:
        return self.high_after - self.low_after


def power_of(difference: float, prompts: int, deviation: float) -> float:
    """Return the chance that the two-sided 5 % t test over prompts finds a mean difference.

    Args:
        difference: between the two means; `deviation`, of the differences prompt by prompt.
    """
    from scipy import stats

    if not difference:
        return 1 - CONFIDENCE
    shift = abs(difference) / deviation * math.sqrt(prompts)
    edge = t_quantile(prompts - 1)
    # The square of a noncentral t is a noncentral F, which scipy computes without NaN.
    return float(stats.ncf.sf(edge**2, 1, prompts - 1, shift**2))


def resolvable_difference(prompts: int, deviation: float, power: float = POWER) -> float:
    """Return the smallest difference of means that this many prompts find with that chance.

    Raises:
        ValueError: fewer than two prompts, or no deviation.
    """
    from scipy import optimize

    _check(prompts, deviation, power)
    # The normal approximation is within a few percent but at the fewest prompts, where it is low.
    guess = (QUANTILE + NormalDist().inv_cdf(power)) * deviation / math.sqrt(prompts)
    most = guess
    while power_of(most, prompts, deviation) < power:
        most *= 2
    found: Any = optimize.brentq(
        lambda d: power_of(d, prompts, deviation) - power, 0, most, xtol=1e-12
    )
    return float(found)


def prompts_needed(difference: float, deviation: float, power: float = POWER) -> int:
    """Return the fewest prompts that find a difference with that chance."""
    _check(2, deviation, power)
    if not difference:
        raise ValueError("a difference of 0 is never found")
    low, high = 1, 2
    while power_of(difference, high, deviation) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(difference, middle, deviation) < power:
            low = middle
        else:
            high = middle
    return high


def preference_deviation(ties: float, margin: float = 0.0) -> float:
    """Return the deviation of wins less losses (1, 0, -1), one verdict a prompt.

    Args:
        ties: their share.
        margin: wins less losses; 0 is the widest.
    """
    return math.sqrt(max(0.0, 1 - ties - margin**2))


def samples_deviation(between: float, within: float, samples: int) -> float:
    """Return the deviation of a prompt's mean over samples (Miller 2024, section 5).

    Args:
        between: deviation of the prompts' true means, and `within` of samples of one prompt.
    """
    return math.sqrt(between**2 + within**2 / samples)


def interval_after(successes: float, n: int, more: int) -> Forecast:
    """Return a share's Wilson interval, and after more answers on new prompts at the same share."""
    if not n:
        raise ValueError("no answers yet; an interval needs one")
    share = successes / n
    return Forecast(*wilson_ends(share, n, QUANTILE), *wilson_ends(share, n + more, QUANTILE))


def mean_after(mean: float, standard_error: float, n_prompts: int, more: int) -> Forecast:
    """Return a clustered mean's t interval, and after more prompts of the same spread."""
    ends = []
    for count in (n_prompts, n_prompts + more):
        quantile = t_quantile(count - 1)
        half = quantile * standard_error * math.sqrt(n_prompts / count)
        ends += [mean - half, mean + half]
    return Forecast(*ends)


def _check(prompts: int, deviation: float, power: float) -> None:
    if prompts < 2 or not deviation > 0 or not 0 < power < 1:
        raise ValueError(
            f"{prompts} prompts, deviation {deviation}, power {power}: a test needs two or more "
            "prompts, a deviation above 0 and a power between 0 and 1"
        )
