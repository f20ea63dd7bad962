"""What was measured, with 95 % intervals: shares, means over prompts, means over seeds and prompts.

    intervals.wilson_interval(265, 332)           # a share of independent prompts
    intervals.mean_interval(grades, prompts)      # several replies to each prompt
    intervals.crossed_mean(grades_SP)             # the same prompts at each seed of training
    intervals.paired_difference(a_SP, b_SP)       # two points of a sweep, prompt by prompt
    intervals.holm_adjustment([d.p for d in ds])  # many points against one reference

Replies to one prompt are alike, and so are replies of one training; an interval that takes them
for independent is too narrow (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640).

Shapes: S seeds of training, P prompts, C clusters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

CONFIDENCE = 0.95
QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Of the normal distribution, 1.96."""
RESAMPLES = 2000
NAN = float("nan")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and prompts, and how far to trust it; NaN is what the values cannot say."""

    mean: float
    standard_error: float
    low: float
    """Ends of its 95 % interval."""
    high: float
    p: float
    """How likely a mean this far from 0, either side, would be if the true mean were 0."""
    n_seeds: int
    n_prompts: int
    """Prompts that count: those with a value at every seed."""


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Return Wilson's (1927) 95 % interval of a share, count >= 1, no continuity correction."""
    from scipy import stats

    test = stats.binomtest(successes, count)
    found = test.proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def mean_interval(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of a mean, clustered by prompt.

    Args:
        clusters: the prompt of each; samples and seeds of one prompt are not independent.

    Returns:
        both ends, the same at every call; NaN where there is one cluster only.
    """
    if len(set(clusters)) < 2:
        return NAN, NAN
    ends = bootstrap(values, clusters).confidence_interval
    return float(ends.low), float(ends.high)


def bootstrap(values: Sequence[float], clusters: Sequence[str]) -> Any:
    """Return scipy's result of the resampling, with `standard_error`; of two or more clusters."""
    from scipy import stats

    _, index = np.unique(np.array(clusters), return_inverse=True)
    sums_C = np.bincount(index, weights=np.array(values, dtype=float))
    counts_C = np.bincount(index)

    def mean(sums: np.ndarray, counts: np.ndarray, axis: int) -> np.ndarray:
        return sums.sum(axis) / counts.sum(axis)

    return stats.bootstrap(
        (sums_C, counts_C),
        mean,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )


def crossed_mean(values_SP: np.ndarray) -> Estimate:
    """Return the mean over seeds and prompts, with both taken at random.

    A value is mean + seed + prompt + residual, the two-way crossed layout with one value a cell
    (Cornfield and Tukey 1956; Searle, Casella and McCulloch 1992, chapter 4). From the mean squares
    of its analysis of variance, the mean's variance is (MS_seed + MS_prompt - MS_residual) / SP;
    a component that comes out negative counts as zero. The t interval has Satterthwaite's (1946)
    degrees of freedom: three seeds that disagree give the wide interval three values deserve.
    Simulated with normal effects of any proportion and 60 to 300 prompts, it holds the true mean in
    92 to 98 % of studies with 3 seeds, 94 to 98 % with 5 and 87 to 98 % with 2. One seed gives the
    t interval over prompts, which says nothing of other seeds.

    Args:
        values_SP: NaN where a verdict could not be read. Such a prompt is left out at every seed,
            so that the layout stays balanced and all seeds are measured on the same prompts.

    Returns:
        the estimate. Fewer than two values left have no interval and no p. Where all values are
        equal the interval is that value, and there is no p: their spread has not been seen.
    """
    from scipy import stats

    values_SP = values_SP[:, ~np.isnan(values_SP).any(axis=0)]
    seeds, prompts = values_SP.shape
    mean = float(values_SP.mean()) if values_SP.size else NAN
    if values_SP.size < 2:
        return Estimate(mean, NAN, NAN, NAN, NAN, seeds, prompts)
    if np.ptp(values_SP) == 0:
        return Estimate(mean, 0.0, mean, mean, NAN, seeds, prompts)
    error, freedom = standard_error(values_SP)
    half = error * t_quantile(freedom)
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
    return Estimate(mean, error, mean - half, mean + half, p, seeds, prompts)


def t_quantile(freedom: float) -> float:
    """Return the half width of a 95 % t interval in standard errors."""
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def standard_error(values_SP: np.ndarray) -> tuple[float, float]:
    """Return the standard error of `crossed_mean`'s mean, and its degrees of freedom.

    There are two or more values, not all equal, none NaN.
    """
    seeds, prompts = values_SP.shape
    seed_S1 = values_SP.mean(axis=1, keepdims=True) - values_SP.mean()
    prompt_1P = values_SP.mean(axis=0, keepdims=True) - values_SP.mean()
    residual_SP = values_SP - values_SP.mean() - seed_S1 - prompt_1P
    # A single seed or prompt has no square to divide; 1 keeps its 0 from becoming 0 / 0.
    freedom = np.maximum([seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)], 1)
    squares = [prompts * (seed_S1**2).sum(), seeds * (prompt_1P**2).sum(), (residual_SP**2).sum()]
    mean_squares = np.array(squares) / freedom
    by_seed, by_prompt = mean_squares[:2] > mean_squares[2]
    terms = mean_squares * [by_seed, by_prompt, 1 - int(by_seed) - int(by_prompt)]
    satterthwaite = terms.sum() ** 2 / (terms**2 / freedom).sum()
    return float(np.sqrt(terms.sum() / values_SP.size)), float(satterthwaite)


def paired_difference(a_SP: np.ndarray, b_SP: np.ndarray) -> Estimate:
    """Return how much higher a is than b, paired: over the same prompts and the same seeds.

    What makes a prompt hard for both cancels, so this is tighter than two intervals side by side
    (Miller 2024). With one seed it is the paired t test.

    Args:
        a_SP: as `crossed_mean` takes them.
        b_SP: of the same shape, seeds and prompts in the same order.

    Raises:
        ValueError: their shapes differ.
    """
    if a_SP.shape != b_SP.shape:
        raise ValueError(
            f"values of shape {a_SP.shape} and {b_SP.shape} do not pair; give both the same seeds "
            "and prompts"
        )
    return crossed_mean(a_SP - b_SP)


def holm_adjustment(p_values: Sequence[float]) -> list[float]:
    """Return Holm's (1979) adjustment of p-values for how many there are.

    Args:
        p_values: one a comparison; NaN is no comparison and stays NaN.

    Returns:
        adjusted, in the same order. The chance that any below 0.05 is a false alarm is at most 5 %.
    """
    p_N = np.array(p_values, dtype=float)
    order_N = np.argsort(p_N)
    left_N = np.count_nonzero(~np.isnan(p_N)) - np.arange(len(p_N))
    adjusted_N = np.empty_like(p_N)
    adjusted_N[order_N] = np.minimum(np.maximum.accumulate(left_N * p_N[order_N]), 1)
    return adjusted_N.tolist()
