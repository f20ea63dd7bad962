"""Agreement between every two groups of annotators: people, authors, models (LIMA section 4).

for row in agreement_table(labels, tie="neither"):
    row.groups, row.tie_discounted.value
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, product

import numpy as np

from lima_ray.results.statistics.agreement import (
    Agreement,
    Label,
    Level,
    chance_of_confusion,
    kappa_of_confusion,
    krippendorff_alpha,
    over_items,
    tie_discounted_points,
)


@dataclass(frozen=True)
class Annotation:
    """What an annotator says of an item."""

    item: str
    annotator: str
    group: str
    """Of annotators: crowd, author, a model's name."""
    label: Label


@dataclass(frozen=True)
class GroupAgreement:
    groups: tuple[str, str]
    tie_discounted: Agreement
    percent: Agreement
    kappa: Agreement
    """Cohen's between two groups. Within a group each pair stands in both orders, so chance is the
    whole group's, as in Scott's pi."""
    n_items: int
    """That annotators of both groups judged."""
    n_pairs: int


def agreement_table(annotations: Sequence[Annotation], tie: Label) -> list[GroupAgreement]:
    """Return the agreement of each two groups, and within each group that has two annotators.

    An item counts once however many judge it: its pairs of annotators share its weight. An
    annotator is never paired with themself. Groups that share no item are left out.
    """
    by_item: dict[str, dict[str, list[Annotation]]] = defaultdict(lambda: defaultdict(list))
    for one in annotations:
        by_item[one.item][one.group].append(one)
    groups = list(dict.fromkeys(one.group for one in annotations))
    labels = sorted({one.label for one in annotations}, key=str)
    found = []
    for first, second in combinations_with_replacement(groups, 2):
        pairs = [_pairs(rows.get(first, []), rows.get(second, [])) for rows in by_item.values()]
        if any(pairs):
            found.append(_agreement((first, second), [p for p in pairs if p], labels, tie))
    return found


def reliability(annotations: Sequence[Annotation], level: Level = "nominal") -> Agreement:
    """Return Krippendorff's alpha over all annotators and items.

    An annotator is never paired with themself: who labels an item several times, such as a judge in
    both orders of a pair, has each of these labels in an item of its own with the others' labels of
    the same number.
    """
    by_item: dict[tuple[str, int], list[Label]] = defaultdict(list)
    given = Counter[tuple[str, str]]()
    for one in annotations:
        by_item[one.item, given[one.item, one.annotator]].append(one.label)
        given[one.item, one.annotator] += 1
    return krippendorff_alpha(list(by_item.values()), level)


def _pairs(first: list[Annotation], second: list[Annotation]) -> list[tuple[Label, Label]]:
    """Return the labels of each pair of annotators; within a group each pair once."""
    found = combinations(first, 2) if first and first == second else product(first, second)
    return [(a.label, b.label) for a, b in found if a.annotator != b.annotator]


def _agreement(
    groups: tuple[str, str],
    pairs_of_items: list[list[tuple[Label, Label]]],
    labels: list[Label],
    tie: Label,
) -> GroupAgreement:
    confusion_IKK = np.zeros((len(pairs_of_items), len(labels), len(labels)))
    points_I2 = np.ones((len(pairs_of_items), 2))
    for item, pairs in enumerate(pairs_of_items):
        for a, b in pairs:
            confusion_IKK[item, labels.index(a), labels.index(b)] += 1 / len(pairs)
        points = [tie_discounted_points(a, b, tie) for a, b in pairs]
        points_I2[item, 0] = sum(points) / len(pairs)
    if groups[0] == groups[1]:
        confusion_IKK = (confusion_IKK + confusion_IKK.transpose(0, 2, 1)) / 2

    def equal(sums: np.ndarray) -> np.ndarray:
        return np.trace(sums, axis1=-2, axis2=-1) / sums.sum((-2, -1))

    return GroupAgreement(
        groups=groups,
        tie_discounted=over_items(points_I2, lambda sums: sums[..., 0] / sums[..., 1]),
        percent=over_items(confusion_IKK, equal),
        kappa=over_items(confusion_IKK, kappa_of_confusion, chance_of_confusion),
        n_items=len(pairs_of_items),
        n_pairs=sum(map(len, pairs_of_items)),
    )
