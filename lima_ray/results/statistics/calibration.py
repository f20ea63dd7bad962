"""Rates of a judge that errs, corrected by items that people judged too.

    corrected_rate(400, 1000, right_of_negative=(140, 200), right_of_positive=(180, 200)).value
    corrected_shares(judge, prompts, people, judge_on_theirs, their_prompts)["win"].value

The judge's errors are seen on the calibration items alone, so those must be drawn from the same
prompts and systems (LIMA's 50 shared items). Both intervals hold two errors: of the judged sample
and of the calibration.

Shapes: K labels, T true labels (the same), R resamples.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from lima_ray.results.intervals import CONFIDENCE, NAN, QUANTILE
from lima_ray.results.statistics.clustered import number_of, resample_sums

LEAST_SINGULAR_VALUE = 0.05
"""Of a confusion matrix that is inverted; below it an error of 1 point becomes one of 20."""
SMOOTHING = 0.5
"""Added to each cell of a resampled confusion matrix, so that what was not seen is not taken for
impossible."""
EM_STEPS = 300


@dataclass(frozen=True)
class Corrected:
    """A rate as the judge gives it, and corrected; NaN where it cannot be, and why."""

    raw: float
    value: float
    low: float
    high: float
    problem: str = ""


def corrected_rate(
    positive: int,
    n: int,
    right_of_negative: tuple[int, int],
    right_of_positive: tuple[int, int],
) -> Corrected:
    """Return a share corrected by Rogan and Gladen (1978), with the interval of Lee et al.

    theta = (p + q0 - 1) / (q0 + q1 - 1), cut at 0 and 1; the interval (arXiv:2511.21140) adds
    z^2 / 2 of z^2 to p, 1 of 2 to q0 and q1, and is moved for the ratio's skew.

    Args:
        positive: how many of `n` replies the judge calls positive (a pass, safe, a win).
        n: replies that the judge judged and that were read.
        right_of_negative: of the calibration items that people call negative, how many the judge
            calls so too, and how many there are.
        right_of_positive: the same of those that people call positive.
    """
    raw = positive / n if n else NAN
    (right0, count0), (right1, count1) = right_of_negative, right_of_positive
    if not n or not count0 or not count1:
        problem = (
            "no replies are judged"
            if not n
            else "people call no item " + ("negative" if not count0 else "positive")
        )
        return Corrected(raw, NAN, NAN, NAN, problem)
    q0, q1 = right0 / count0, right1 / count1
    if q0 + q1 <= 1:
        return Corrected(
            raw,
            NAN,
            NAN,
            NAN,
            f"the judge is right on {q0:.0%} of negative and {q1:.0%} of positive items, which is "
            "no better than guessing",
        )
    value = (raw + q0 - 1) / (q0 + q1 - 1)
    low, high = _rogan_gladen_interval(raw, n, q0, count0, q1, count1)
    return Corrected(raw, min(1.0, max(0.0, value)), low, high)


def corrected_shares(
    judged: Sequence[str],
    prompts: Sequence[Hashable],
    people: Sequence[str],
    judge: Sequence[str],
    calibration_prompts: Sequence[Hashable],
    labels: Sequence[str] = ("win", "tie", "lose"),
) -> dict[str, Corrected]:
    """Return the share of each label, corrected by the judge's confusion matrix against people.

    With M[k, t] the share of items that people call t which the judge calls k, the corrected
    shares x solve M x = p, or are the most likely where that would make one negative. The interval
    draws prompts again, of both sets.

    Args:
        judged: the judge's labels of the sample, all read.
        prompts: the prompt of each.
        people: people's labels of the calibration items, and `judge` the judge's.
        calibration_prompts: the prompt of each of those.
        labels: all that occur.

    Returns:
        a value for each label; NaN with `problem` where the matrix cannot be inverted.
    """
    sample_CK = _counts_by_prompt(judged, prompts, labels)
    pairs = [f"{said}\t{true}" for said, true in zip(judge, people, strict=True)]
    cells = [f"{said}\t{true}" for said in labels for true in labels]
    n_labels = len(labels)
    calibration = _counts_by_prompt(pairs, calibration_prompts, cells)
    calibration_DKT = calibration.reshape(-1, n_labels, n_labels)
    total = sample_CK.sum()
    raw_K = sample_CK.sum(0) / total if total else np.full(n_labels, NAN)
    problem = _problem(calibration_DKT.sum(0), total, labels)
    if problem:
        found = zip(labels, raw_K, strict=True)
        return {label: Corrected(float(raw), NAN, NAN, NAN, problem) for label, raw in found}
    value_K = _solve(calibration_DKT.sum(0)[None], raw_K[None])[0]
    low_K = high_K = np.full(n_labels, NAN)
    if len(sample_CK) > 1 and len(calibration_DKT) > 1:
        generator = np.random.default_rng(0)
        sums_RK = resample_sums(sample_CK, generator)
        confusion_RKT = resample_sums(calibration_DKT, generator) + SMOOTHING
        values_RK = _solve(confusion_RKT, sums_RK / sums_RK.sum(1, keepdims=True))
        tail = (1 - CONFIDENCE) / 2
        low_K, high_K = np.quantile(values_RK, [tail, 1 - tail], axis=0)
    rows = zip(labels, raw_K, value_K, low_K, high_K, strict=True)
    return {
        label: Corrected(float(raw), float(value), float(low), float(high))
        for label, raw, value, low, high in rows
    }


def confusion_matrix(
    judge: Sequence[str], people: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """Return how many items the judge calls `labels[k]` and people `labels[t]`, (K, T)."""
    counts_KT = np.zeros((len(labels), len(labels)), dtype=int)
    for said, true in zip(judge, people, strict=True):
        counts_KT[labels.index(said), labels.index(true)] += 1
    return counts_KT


def _rogan_gladen_interval(
    p: float, n: int, q0: float, count0: int, q1: float, count1: int
) -> tuple[float, float]:
    square = QUANTILE**2
    size, size0, size1 = n + square, count0 + 2, count1 + 2
    p = (n * p + square / 2) / size
    q0, q1 = (count0 * q0 + 1) / size0, (count1 * q1 + 1) / size1
    gain = q0 + q1 - 1
    if gain <= 0:
        return 0.0, 1.0
    value = min(1.0, max(0.0, (p + q0 - 1) / gain))
    spread0, spread1 = q0 * (1 - q0) / size0, q1 * (1 - q1) / size1
    shift = 2 * square * (value * spread1 - (1 - value) * spread0)
    variance = p * (1 - p) / size + (1 - value) ** 2 * spread0 + value**2 * spread1
    half = QUANTILE * math.sqrt(variance) / gain
    low, high = value + shift - half, value + shift + half
    return min(1.0, max(0.0, low)), min(1.0, max(0.0, high))


def _problem(confusion_KT: np.ndarray, total: float, labels: Sequence[str]) -> str:
    if not total:
        return "no replies are judged"
    if missing := [label for label, n in zip(labels, confusion_KT.sum(0), strict=True) if not n]:
        return f"people call no calibration item {' or '.join(missing)}"
    least = np.linalg.svd(confusion_KT / confusion_KT.sum(0), compute_uv=False)[-1]
    if least < LEAST_SINGULAR_VALUE:
        return (
            "the judge's confusion matrix cannot be inverted: its verdicts hardly depend on what "
            "people prefer"
        )
    return ""


def _solve(confusion_RKT: np.ndarray, shares_RK: np.ndarray) -> np.ndarray:
    """Return the true shares (R, T) behind observed ones (R, K), the most likely that are none < 0.

    Where the inverse gives a share below 0, the likelihood is greatest on the edge, and expectation
    maximisation finds it there; elsewhere the inverse is its maximum.
    """
    matrix_RKT = confusion_RKT / confusion_RKT.sum(1, keepdims=True)
    found_RT = np.einsum("rtk,rk->rt", np.linalg.pinv(matrix_RKT), shares_RK)
    outside = (found_RT < 0).any(1)
    matrix_RKT, shares_RK = matrix_RKT[outside], shares_RK[outside]
    edge_RT = np.full_like(found_RT[outside], 1 / found_RT.shape[1])
    for _ in range(EM_STEPS):
        expected_RK = np.einsum("rkt,rt->rk", matrix_RKT, edge_RT)
        ratio_RK = shares_RK / np.where(expected_RK > 0, expected_RK, 1)
        edge_RT = edge_RT * np.einsum("rkt,rk->rt", matrix_RKT, ratio_RK)
    found_RT[outside] = edge_RT
    return found_RT / found_RT.sum(1, keepdims=True)


def _counts_by_prompt(
    said: Sequence[str], prompts: Sequence[Hashable], labels: Sequence[str]
) -> np.ndarray:
    """Return how often each prompt has each label, (C, K)."""
    if unknown := set(said) - set(labels):
        raise ValueError(f"labels {sorted(unknown)} are not among {list(labels)}")
    if len(said) != len(prompts):
        raise ValueError(f"{len(said)} labels of {len(prompts)} prompts; give each its prompt")
    places = number_of(prompts)
    counts = np.zeros((len(set(places)), len(labels)))
    for place, label in zip(places, said, strict=True):
        counts[place, labels.index(label)] += 1
    return counts
