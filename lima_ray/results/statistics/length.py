"""How far preference follows length, and what it would be at equal lengths.

adjusted = length_adjusted(points, lengths, other_lengths, prompts)
adjusted.value, adjusted.slope.value
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lima_ray.results.intervals import NAN, QUANTILE
from lima_ray.results.statistics import ordered_logit
from lima_ray.results.statistics.bradley_terry import Coefficient
from lima_ray.results.statistics.clustered import check_values

RIDGE = 0.02
"""Of the length coefficient, times the number of comparisons. It meets AlpacaEval's rates within
1.2 points on average; their own penalty is shared over all their models."""


@dataclass(frozen=True)
class LengthAdjusted:
    """A system's score, wins and half the ties, at equal lengths."""

    value: float
    low: float
    """Ends of the 95 % interval, by the sandwich clustered by prompt; NaN of one prompt."""
    high: float
    raw: float
    """The score as it is."""
    slope: Coefficient
    """Added log odds of a win per unit of tanh(length difference / its deviation), unpenalised."""
    n: int


def length_adjusted(
    points: Sequence[float],
    lengths: Sequence[float],
    other_lengths: Sequence[float],
    prompts: Sequence[Hashable],
    ridge: float = RIDGE,
) -> LengthAdjusted:
    """Return the score that a logistic model expects where both replies are of one length.

    The form is AlpacaEval's (Dubois et al. 2024, arXiv:2404.04475): the log odds of a win are a
    constant, and a coefficient times tanh of the length difference over its standard deviation;
    without the difficulty of instructions, which needs many systems.

    Args:
        points: 1 where the system wins, 0.5 for a tie, 0 where it loses; or a judge's probability.
        lengths: of its replies, and `other_lengths` of the other's, in any one unit.
        prompts: the prompt of each.
        ridge: of the length coefficient, times the number of comparisons.
    """
    points_N, prompt_N = check_values(points, prompts)
    if ((points_N < 0) | (points_N > 1)).any():
        raise ValueError("points lie from 0 to 1")
    scaled_N = tanh_difference(lengths, other_lengths, prompts)
    n, raw = len(points_N), float(points_N.mean()) if len(points_N) else NAN
    slope = length_slope(points, lengths, other_lengths, prompts)
    if not 0 < raw < 1:  # nothing to explain: it always wins or always loses
        return LengthAdjusted(raw, NAN, NAN, raw, slope, n)
    design = _logistic(points_N, scaled_N)
    ridge_Q = np.array([0.0, ridge * n])
    found_Q = ordered_logit.fit(design, np.ones(n), ridge_Q)
    error = float(np.sqrt(ordered_logit.covariance(design, found_Q, prompt_N, ridge_Q)[0, 0]))
    ends = (found_Q[0], found_Q[0] - QUANTILE * error, found_Q[0] + QUANTILE * error)
    value, low, high = (float(1 / (1 + np.exp(-end))) for end in ends)
    return LengthAdjusted(value, low, high, raw, slope, n)


def length_slope(
    points: Sequence[float],
    lengths: Sequence[float],
    other_lengths: Sequence[float],
    prompts: Sequence[Hashable],
) -> Coefficient:
    """Return how the log odds of a win grow with tanh of the standardised length difference.

    Its interval has the sandwich error, clustered by prompt. NaN where lengths never differ,
    one side always wins, or length alone decides, so that no finite slope exists.
    """
    points_N, prompt_N = check_values(points, prompts)
    scaled_N = tanh_difference(lengths, other_lengths, prompts)
    nothing = Coefficient(NAN, NAN, NAN, NAN)
    if not len(points_N) or not 0 < points_N.mean() < 1 or not np.ptp(scaled_N):
        return nothing
    if _separated(points_N, scaled_N):
        return nothing
    design, ridge_Q = _logistic(points_N, scaled_N), np.zeros(2)
    found_Q = ordered_logit.fit(design, np.ones(len(points_N)), ridge_Q)
    error = float(np.sqrt(ordered_logit.covariance(design, found_Q, prompt_N, ridge_Q)[1, 1]))
    value, half = float(found_Q[1]), QUANTILE * error
    return Coefficient(value, error, value - half, value + half)


def longer_preferred(
    points: Sequence[float], lengths: Sequence[float], other_lengths: Sequence[float]
) -> float:
    """Return the share of wins of the longer reply, among decided pairs of unequal length."""
    points_N = np.asarray(points, dtype=float)
    gap_N = np.asarray(lengths, dtype=float) - np.asarray(other_lengths, dtype=float)
    decided = (points_N != 0.5) & (gap_N != 0)
    return float(((points_N > 0.5) == (gap_N > 0))[decided].mean()) if decided.any() else NAN


def length_correlation(grades: Sequence[float], lengths: Sequence[float]) -> float:
    """Return Spearman's correlation of grades with the lengths of their replies."""
    if len(set(grades)) < 2 or len(set(lengths)) < 2:
        return NAN
    from scipy import stats

    found: Any = stats.spearmanr(grades, lengths)
    return float(found.statistic)


def tanh_difference(
    lengths: Sequence[float], other_lengths: Sequence[float], prompts: Sequence[Hashable]
) -> np.ndarray:
    """Return tanh of the differences over their standard deviation; 0 where they never differ."""
    gap_N = check_values(lengths, prompts)[0] - check_values(other_lengths, prompts)[0]
    deviation = gap_N.std() if len(gap_N) else 0.0
    # Differences that are all alike have no deviation; their own size is the scale then.
    scale = deviation or float(np.abs(gap_N).max(initial=0.0)) or 1.0
    return np.tanh(gap_N / scale)


def _logistic(points_N: np.ndarray, scaled_N: np.ndarray) -> ordered_logit.Design:
    n = len(points_N)
    return ordered_logit.Design(np.column_stack([np.ones(n), scaled_N]), np.zeros((n, 0)), points_N)


def _separated(points_N: np.ndarray, scaled_N: np.ndarray) -> bool:
    """Tell whether a length splits all wins from all losses; a tie is both."""
    won, lost = scaled_N[points_N > 0], scaled_N[points_N < 1]
    return bool(won.min() >= lost.max() or won.max() <= lost.min())
