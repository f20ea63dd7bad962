"""Intervals for what was measured: shares of prompts, and mean grades over prompts and seeds."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share.

    Args:
        successes: how often it happened.
        count: of how many, at least 1.
    """
    test = stats.binomtest(successes, count)
    found = test.proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def mean_interval(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """Bootstrap 95 % interval of a mean, drawing whole clusters (a prompt's replies) at a time.

    Args:
        values: what was measured.
        clusters: the prompt of each; samples and seeds of one prompt are not independent.
    """
    names, index = np.unique(np.array(clusters), return_inverse=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    sums = np.bincount(index, weights=np.array(values, dtype=float))
    counts = np.bincount(index)
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(names), (RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
