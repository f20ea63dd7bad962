"""How far annotators agree: LIMA's accuracy, percent, Cohen, Fleiss and Krippendorff.

    tie_discounted_accuracy(["A", "tie"], ["A", "B"], tie="tie").value     # 0.75
    krippendorff_alpha([[1, 1, None], [2, 2, 3]], level="ordinal")

Every figure is a function of sums over items, so its interval comes from drawing items again:
2,000 percentile resamples, each a multinomial count of the items (Efron and Tibshirani 1993).
Where all resamples are equal, as where annotators agree on every item, they say nothing of what
was not seen; the interval then is Wilson's (1927) of so many items, less the agreement by chance.

Shapes: I items, K labels, R resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lima_ray.results.intervals import CONFIDENCE, NAN, QUANTILE
from lima_ray.results.statistics.clustered import (
    ROUNDING,
    number_of,
    resample_sums,
    wilson_ends,
)

Label = str | int | float
Level = Literal["nominal", "ordinal", "interval"]
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Agreement:
    value: float
    """NaN where it is not defined, such as a kappa of labels that never vary."""
    low: float
    """Ends of the 95 % interval over items; NaN with fewer than two items."""
    high: float
    n_items: int


def tie_discounted_accuracy(
    first: Sequence[Label],
    second: Sequence[Label],
    tie: Label,
    items: Sequence[Label] | None = None,
) -> Agreement:
    """Return LIMA's agreement (section 4): 1 if equal, 0.5 if exactly one says tie, else 0.

    Args:
        first: labels of one annotator, and `second` those of the other, item by item.
        items: the item of each pair of labels, where an item has several.
    """
    points = [tie_discounted_points(a, b, tie) for a, b in zip(first, second, strict=True)]
    return mean_over_items(points, items)


def percent_agreement(
    first: Sequence[Label], second: Sequence[Label], items: Sequence[Label] | None = None
) -> Agreement:
    """Return the share of equal labels."""
    equal = [float(a == b) for a, b in zip(first, second, strict=True)]
    return mean_over_items(equal, items)


def cohen_kappa(
    first: Sequence[Label], second: Sequence[Label], items: Sequence[Label] | None = None
) -> Agreement:
    """Return Cohen's (1960) kappa of two annotators."""
    labels = sorted({*first, *second}, key=str)
    pairs = [(labels.index(a), labels.index(b)) for a, b in zip(first, second, strict=True)]
    places = number_of(items if items is not None else range(len(pairs)))
    confusion_IKK = np.zeros((len(set(places)), len(labels), len(labels)))
    for place, (a, b) in zip(places, pairs, strict=True):
        confusion_IKK[place, a, b] += 1
    return over_items(confusion_IKK, kappa_of_confusion, chance_of_confusion)


def fleiss_kappa(ratings: Sequence[Sequence[Label]]) -> Agreement:
    """Return Fleiss' (1971) kappa; every item has the same number of labels, two or more.

    Args:
        ratings: the labels of each item, whoever gave them.
    """
    counts_IK, _ = count_labels(ratings)
    raters = set(counts_IK.sum(1))
    if len(raters) > 1 or raters & {0.0, 1.0}:
        raise ValueError(
            f"items have {sorted(map(int, raters))} labels; Fleiss' kappa takes two or more, the "
            "same number each; Krippendorff's alpha takes any"
        )
    (n_raters,) = raters or {2.0}
    agreed_I = (counts_IK * (counts_IK - 1)).sum(1) / (n_raters * (n_raters - 1))

    def chance(sums: np.ndarray) -> np.ndarray:
        counts = sums[..., 1:]
        return ((counts / counts.sum(-1, keepdims=True)) ** 2).sum(-1)

    def kappa(sums: np.ndarray) -> np.ndarray:
        n_items = sums[..., 1:].sum(-1) / n_raters
        return _ratio(sums[..., 0] / n_items - chance(sums), 1 - chance(sums))

    return over_items(np.column_stack([agreed_I, counts_IK]), kappa, chance)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Label | None]], level: Level = "nominal"
) -> Agreement:
    """Return Krippendorff's alpha (2011, "Computing Krippendorff's Alpha-Reliability").

    Args:
        ratings: the labels of each item; None is missing, and items with one label say nothing.
        level: `ordinal` and `interval` need numbers; ordinal ranks them.
    """
    counts_IK, labels = count_labels(ratings)
    if level != "nominal" and any(isinstance(label, str) for label in labels):
        raise ValueError(f"labels are {labels}; level {level!r} needs numbers")
    counts_IK = counts_IK[counts_IK.sum(1) > 1]
    n_labels = len(labels)
    pairs_IKK = counts_IK[:, :, None] * counts_IK[:, None, :]
    pairs_IKK -= counts_IK[:, :, None] * np.eye(n_labels)
    coincidences_IKK = pairs_IKK / np.maximum(counts_IK.sum(1) - 1, 1)[:, None, None]

    def alpha(sums: np.ndarray) -> np.ndarray:
        totals = sums.sum(-1)
        distance = squared_distance(totals, labels, level)
        n = totals.sum(-1)
        observed = (sums * distance).sum((-2, -1))
        expected = (totals[..., :, None] * totals[..., None, :] * distance).sum((-2, -1))
        return 1 - _ratio((n - 1) * observed, expected)

    return over_items(coincidences_IKK, alpha, chance_of_coincidences)


def tie_discounted_points(first: Label, second: Label, tie: Label) -> float:
    """Return 1 if equal, 0.5 if exactly one says tie, else 0."""
    return 1.0 if first == second else 0.5 if tie in (first, second) else 0.0


def kappa_of_confusion(confusion: np.ndarray) -> np.ndarray:
    """Return Cohen's kappa of confusion matrices, (..., K, K)."""
    agreed = np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))
    chance = chance_of_confusion(confusion)
    return _ratio(agreed - chance, 1 - chance)


def chance_of_confusion(confusion: np.ndarray) -> np.ndarray:
    """Return the share of equal labels that two annotators with these labels have by chance."""
    return (confusion.sum(-1) * confusion.sum(-2)).sum(-1) / confusion.sum((-2, -1)) ** 2


def chance_of_coincidences(sums: np.ndarray) -> np.ndarray:
    """Return the share of equal labels among two drawn from all that were given."""
    totals = sums.sum(-1)
    n = totals.sum(-1)
    return _ratio((totals * (totals - 1)).sum(-1), n * (n - 1))


def squared_distance(totals: np.ndarray, labels: Sequence[Label], level: Level) -> np.ndarray:
    """Return Krippendorff's metric between labels, (..., K, K), from how often each was given."""
    if level == "nominal":
        return 1 - np.eye(len(labels))
    if level == "interval":
        values_K = np.array(labels, dtype=float)
        return (values_K[:, None] - values_K[None, :]) ** 2
    # Ordinal: how many values lie between two ranks, the ends' own at half.
    middle = np.cumsum(totals, -1) - totals / 2
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def count_labels(ratings: Sequence[Sequence[Label | None]]) -> tuple[np.ndarray, list[Label]]:
    """Return how often each item was given each label, (I, K), and the labels in order."""
    given = {label for row in ratings for label in row if label is not None}
    if any(isinstance(label, float) and not np.isfinite(label) for label in given):
        raise ValueError("a label is NaN; a label that is missing is None")
    texts = any(isinstance(label, str) for label in given)
    labels: list[Label] = sorted(given, key=str if texts else float)  # pyright: ignore
    place = {label: k for k, label in enumerate(labels)}
    counts_IK = np.zeros((len(ratings), len(labels)))
    for item, row in enumerate(ratings):
        for label in row:
            if label is not None:
                counts_IK[item, place[label]] += 1
    return counts_IK, labels


def mean_over_items(points: Sequence[float], items: Sequence[Label] | None) -> Agreement:
    """Return the mean of points, drawn again item by item."""
    places = number_of(items if items is not None else range(len(points)))
    sums = np.column_stack([np.bincount(places, weights=points), np.bincount(places)])
    return over_items(sums, lambda sums: _ratio(sums[..., 0], sums[..., 1]))


def over_items(
    stats_I: np.ndarray,
    statistic: Statistic,
    chance: Statistic = lambda sums: np.zeros(()),
) -> Agreement:
    """Return a statistic of the sums over items, with its interval over items.

    Args:
        stats_I: what each item adds to the sums, (I, ...).
        statistic: of sums, (...) or (R, ...); NaN where it is not defined.
        chance: of sums, the agreement by chance that the statistic is corrected for.
    """
    n_items = len(stats_I)
    if not n_items:
        return Agreement(NAN, NAN, NAN, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(stats_I.sum(0)))
        if n_items < 2 or np.isnan(value):
            return Agreement(value, NAN, NAN, n_items)
        values_R = statistic(resample_sums(stats_I, np.random.default_rng(0)))
    tail = (1 - CONFIDENCE) / 2
    # A resample whose labels never vary has no kappa; it says nothing of the interval.
    low, high = np.nanquantile(values_R, [tail, 1 - tail])
    if high - low < ROUNDING:
        low, high = _unseen_ends(value, float(chance(stats_I.sum(0))), n_items)
    return Agreement(value, float(low), float(high), n_items)


def _unseen_ends(value: float, chance: float, n_items: int) -> tuple[float, float]:
    """Return what disagreement that was not seen among these items leaves open."""
    share = min(1.0, max(0.0, value * (1 - chance) + chance))
    low, high = wilson_ends(share, n_items, QUANTILE)
    return (low - chance) / (1 - chance), (high - chance) / (1 - chance)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide; NaN where `below` is 0, as far as rounding tells."""
    return np.where(np.abs(below) > 1e-12, above / np.where(below == 0, 1, below), np.nan)
