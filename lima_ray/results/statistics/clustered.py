"""Means of values that come in clusters: all verdicts on one prompt are a cluster.

    clustered_mean(grades, prompts)
    rate([1, 0, 1], prompts, unreadable=2)   # a share, with the bounds that unread ones leave

Shapes: N values, C clusters.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from lima_ray.results.intervals import NAN, RESAMPLES, t_quantile, wilson_interval

DRAWS_IN_MEMORY = 4_000_000
ROUNDING = 1e-12
"""A standard error below it is 0."""


@dataclass(frozen=True)
class ClusteredMean:
    """A mean and its 95 % t interval; NaN is what fewer than two clusters cannot say."""

    mean: float
    standard_error: float
    low: float
    high: float
    p: float
    """How likely a mean this far from 0, either side, would be if the true mean were 0."""
    n: int
    n_prompts: int
    """Clusters."""


@dataclass(frozen=True)
class Rate:
    """A share of verdicts, its 95 % interval, and what it could be if all verdicts were read."""

    value: float
    """Of the verdicts that were read; NaN where none was."""
    low: float
    high: float
    all_lost: float
    """The share if no verdict that was not read counted towards it."""
    all_won: float
    """The share if every verdict that was not read counted towards it."""
    n_read: int
    n_unreadable: int
    n_unanswered: int
    n_prompts: int
    """Prompts with a verdict that was read."""


def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> ClusteredMean:
    """Return a mean with its cluster-robust standard error, and the t interval of C - 1 degrees.

    The standard error is sqrt(sum_c (sum_i in c (s_i - mean))^2 C / (C - 1)) / N (Miller 2024,
    arXiv:2411.00640, appendix A, with the correction for few clusters).

    Raises:
        ValueError: a value is NaN or infinite, or the two are not of one length.
    """
    from scipy import stats

    values_N, index_N = check_values(values, clusters)
    n, n_clusters = len(values_N), len(np.unique(index_N))
    mean = float(values_N.mean()) if n else NAN
    if n_clusters < 2:
        return ClusteredMean(mean, NAN, NAN, NAN, NAN, n, n_clusters)
    sums_C = np.bincount(index_N, weights=values_N - mean)
    error = math.sqrt((sums_C**2).sum() * n_clusters / (n_clusters - 1)) / n
    half = error * t_quantile(n_clusters - 1)
    p = 2 * float(stats.t.sf(abs(mean) / error, n_clusters - 1)) if error else NAN
    return ClusteredMean(mean, error, mean - half, mean + half, p, n, n_clusters)


def rate(
    values: Sequence[float],
    prompts: Sequence[Hashable],
    unreadable: int = 0,
    unanswered: int = 0,
) -> Rate:
    """Return a share with its interval and its bounds.

    One verdict a prompt has Wilson's interval. Several have Wilson's at the effective sample size,
    N divided by the design effect (Kish 1965; Franco et al. 2019, doi:10.1093/jssam/smy019), with
    the t quantile; where all verdicts are equal the design effect is unknown, and a prompt counts
    as one verdict. A score that holds halves has the clustered t interval, cut at 0 and 1; where
    all prompts have the same, such as nothing but ties, Wilson's with a prompt as one verdict.

    Args:
        values: of the verdicts that were read, from 0 to 1.
        prompts: the prompt of each.
        unreadable: verdicts beside these that could not be read, and `unanswered` that never came.
    """
    found = clustered_mean(values, prompts)
    values_N = np.asarray(values, dtype=float)
    if ((values_N < 0) | (values_N > 1)).any():
        raise ValueError(f"a share's values lie from 0 to 1; one is {values_N.max()}")
    low, high = _share_interval(values_N, found)
    unread = unreadable + unanswered
    total, everything = float(values_N.sum()), found.n + unread
    return Rate(
        value=found.mean,
        low=low,
        high=high,
        all_lost=total / everything if everything else NAN,
        all_won=(total + unread) / everything if everything else NAN,
        n_read=found.n,
        n_unreadable=unreadable,
        n_unanswered=unanswered,
        n_prompts=found.n_prompts,
    )


def wilson_ends(share: float, count: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's interval of a share at a sample size that need not be whole."""
    square = quantile**2 / count
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def check_values(
    values: Sequence[float], clusters: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and the number of each one's cluster; refuse NaN and unequal lengths."""
    values_N = np.asarray(values, dtype=float)
    if len(values_N) != len(clusters):
        raise ValueError(f"{len(values_N)} values of {len(clusters)} prompts; give each its prompt")
    if not np.isfinite(values_N).all():
        place = int(np.flatnonzero(~np.isfinite(values_N))[0])
        raise ValueError(
            f"value {place} is {values_N[place]}; leave out what was not read, and count it as such"
        )
    return values_N, number_of(clusters)


def resample_sums(stats_C: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the sums over clusters drawn again with replacement, (C, ...) to (R, ...)."""
    n = len(stats_C)
    flat = stats_C.reshape(n, -1)
    chances = np.full(n, 1 / n)
    at_once = max(1, DRAWS_IN_MEMORY // n)
    blocks = []
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        blocks.append(generator.multinomial(n, chances, size=size) @ flat)
    return np.concatenate(blocks).reshape(RESAMPLES, *stats_C.shape[1:])


def number_of(names: Sequence[Hashable]) -> np.ndarray:
    """Return for each name its number, from 0, in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=int)


def _share_interval(values_N: np.ndarray, found: ClusteredMean) -> tuple[float, float]:
    if found.n_prompts < 2:
        return NAN, NAN
    quantile = t_quantile(found.n_prompts - 1)
    if not np.isin(values_N, (0, 1)).all():
        if found.standard_error < ROUNDING:
            return wilson_ends(found.mean, found.n_prompts, quantile)
        return max(0.0, found.low), min(1.0, found.high)
    if found.n_prompts == found.n:
        return wilson_interval(int(values_N.sum()), found.n)
    spread = found.mean * (1 - found.mean)
    known = found.standard_error > ROUNDING
    count = spread / found.standard_error**2 if known else 0.0
    # Clusters that all say the same give an error of nearly 0 by chance; a prompt is no more than
    # its verdicts.
    count = min(count, found.n) if spread and count else found.n_prompts
    return wilson_ends(found.mean, count, quantile)
