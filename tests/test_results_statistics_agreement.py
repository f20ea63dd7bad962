"""Agreement: against krippendorff and statsmodels, and the paper's table of groups."""

import math

import numpy as np
import pytest

from lima_ray.results.statistics import agreement, clustered
from lima_ray.results.statistics.agreement_table import Annotation, agreement_table, reliability


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_krippendorffs(level: agreement.Level) -> None:
    krippendorff = pytest.importorskip("krippendorff")
    generator = np.random.default_rng(0)
    for _ in range(60):
        n_items, n_people, n_labels = generator.integers([3, 2, 2], [30, 6, 6])
        labels = generator.integers(1, n_labels + 1, (n_items, n_people)).astype(float)
        labels[generator.random(labels.shape) < 0.3] = np.nan
        if len(set(labels[~np.isnan(labels)])) < 2:
            continue
        given = [[None if np.isnan(v) else float(v) for v in row] for row in labels]
        found = agreement.krippendorff_alpha(given, level).value
        expected = krippendorff.alpha(labels.T, level_of_measurement=level)
        assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_kappas_are_those_of_statsmodels() -> None:
    raters = pytest.importorskip("statsmodels.stats.inter_rater")
    generator = np.random.default_rng(1)
    for _ in range(40):
        n_items, n_people, n_labels = generator.integers([5, 2, 2], [40, 6, 5])
        labels = generator.integers(0, n_labels, (n_items, n_people))
        expected = raters.fleiss_kappa(raters.aggregate_raters(labels)[0])
        found = agreement.fleiss_kappa(labels.tolist()).value
        assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)
        first, second = labels[:, 0], labels[:, 1]
        table = np.zeros((n_labels, n_labels))
        np.add.at(table, (first, second), 1)
        expected = raters.cohens_kappa(table).kappa
        found = agreement.cohen_kappa(first.tolist(), second.tolist()).value
        assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_ties_are_discounted_as_in_the_paper() -> None:
    first = ["A", "A", "A", "tie", "tie", "B"]
    second = ["A", "B", "tie", "A", "tie", "tie"]
    found = agreement.tie_discounted_accuracy(first, second, tie="tie")
    assert found.value == pytest.approx((1 + 0 + 0.5 + 0.5 + 1 + 0.5) / 6)
    assert agreement.percent_agreement(first, second).value == pytest.approx(2 / 6)


def test_an_interval_is_that_of_drawing_items_one_by_one() -> None:
    generator = np.random.default_rng(2)
    first = generator.integers(0, 3, 40)
    second = np.where(generator.random(40) < 0.6, first, generator.integers(0, 3, 40))
    found = agreement.cohen_kappa(first.tolist(), second.tolist())
    slow = []
    for _ in range(2000):
        drawn = generator.integers(0, 40, 40)
        slow.append(agreement.kappa_of_confusion(confusion(first[drawn], second[drawn])))
    low, high = np.quantile(slow, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.04)


def test_many_items_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    first, second = generator.integers(0, 2, (2, 50)).tolist()
    whole = agreement.percent_agreement(first, second)
    monkeypatch.setattr(clustered, "DRAWS_IN_MEMORY", 50 * 7)
    assert agreement.percent_agreement(first, second) == whole


def confusion(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    table = np.zeros((3, 3))
    np.add.at(table, (first, second), 1)
    return table


def test_several_labels_of_an_item_are_drawn_together() -> None:
    first, second = ["a", "b"] * 20, ["a", "a"] * 20
    items = [str(n // 2) for n in range(40)]
    apart = agreement.percent_agreement(first, second)
    together = agreement.percent_agreement(first, second, items)
    assert together.value == apart.value == 0.5
    assert together.n_items == 20
    assert apart.high - apart.low > 0.2


def test_agreement_on_every_item_leaves_open_what_was_not_seen() -> None:
    """Wilson's interval of 50 of 50 begins at 50 / (50 + 1.96^2), that of none ends as far off."""
    labels: list[agreement.Label] = ["A", "B"] * 25
    others = labels[::-1]
    unseen = 1 - 50 / (50 + 1.959964**2)
    for found in (
        agreement.percent_agreement(labels, labels),
        agreement.tie_discounted_accuracy(labels, labels, tie="tie"),
    ):
        assert (found.value, found.high) == (1, 1)
        assert found.low == pytest.approx(1 - unseen)
    never = agreement.percent_agreement(labels, others)
    assert (never.value, never.low) == (0, 0) and never.high == pytest.approx(unseen)
    # Half of the labels are equal by chance, so a kappa or alpha lies twice as far from 1.
    pairs = list(zip(labels, labels, strict=True))
    for found in (
        agreement.cohen_kappa(labels, labels),
        agreement.fleiss_kappa(pairs),
        agreement.krippendorff_alpha(pairs),
    ):
        assert found.value == pytest.approx(1) and found.high == pytest.approx(1)
        assert found.low == pytest.approx(1 - 2 * unseen, abs=0.003)
    halves = agreement.percent_agreement(
        ["a", "b"] * 20, ["a", "a"] * 20, ["x", "x", "y", "y"] * 10
    )
    assert halves.value == 0.5 and halves.low < 0.5 < halves.high
    few = agreement.percent_agreement(labels[:5], labels[:5])
    assert few.low < agreement.percent_agreement(labels, labels).low


def test_what_is_not_defined_is_nan() -> None:
    same = ["tie"] * 10
    assert math.isnan(agreement.cohen_kappa(same, same).value)
    assert math.isnan(agreement.fleiss_kappa([["tie", "tie"]] * 10).value)
    assert math.isnan(agreement.krippendorff_alpha([["tie", "tie"]] * 10).value)
    assert agreement.percent_agreement(same, same).value == 1
    one_annotator = agreement.krippendorff_alpha([[1, None], [2, None], [None, 3]])
    assert math.isnan(one_annotator.value) and one_annotator.n_items == 0
    nothing = agreement.percent_agreement([], [])
    assert math.isnan(nothing.value) and nothing.n_items == 0
    single = agreement.percent_agreement(["a"], ["a"])
    assert single.value == 1 and math.isnan(single.low)


def test_bad_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        agreement.krippendorff_alpha([[1.0, math.nan]])
    with pytest.raises(ValueError, match="needs numbers"):
        agreement.krippendorff_alpha([["a", "b"]], "interval")
    with pytest.raises(ValueError, match=r"items have \[1, 2\] labels"):
        agreement.fleiss_kappa([["a"], ["a", "b"]])


def test_groups_of_annotators_are_compared_pair_by_pair() -> None:
    said = {
        "ann": ("crowd", "AAB"),
        "bob": ("crowd", "ABt"),
        "lin": ("author", "AtB"),
        "gpt": ("gpt", "BBB"),
    }
    annotations = [
        Annotation(str(item), name, group, label)
        for name, (group, labels) in said.items()
        for item, label in enumerate(labels)
    ]
    table = {row.groups: row for row in agreement_table(annotations, tie="t")}
    assert set(table) == {
        ("crowd", "crowd"),
        ("crowd", "author"),
        ("crowd", "gpt"),
        ("author", "gpt"),
    }
    crowd = table["crowd", "crowd"]
    assert crowd.tie_discounted.value == pytest.approx((1 + 0 + 0.5) / 3)
    assert (crowd.n_items, crowd.n_pairs) == (3, 3)
    # Each item counts once: the mean over its two pairs of a crowd worker and the author.
    mixed = table["crowd", "author"]
    assert mixed.tie_discounted.value == pytest.approx((1 + 0.5 + 0.75) / 3)
    assert mixed.percent.value == pytest.approx((1 + 0 + 0.5) / 3)
    assert (mixed.n_items, mixed.n_pairs) == (3, 6)
    assert table["author", "gpt"].kappa.value == pytest.approx(0)
    assert -1 <= reliability(annotations).value <= 1


def test_an_annotator_is_not_compared_with_themself() -> None:
    twice = [Annotation("i", "ann", "crowd", label) for label in ("A", "B")]
    assert agreement_table(twice, tie="t") == []
    # A judge in both orders, always the same: its own labels say nothing of agreement.
    judge = [Annotation(f"i{n}", "gpt", "gpt", "AB"[n % 2]) for n in range(4) for _ in "12"]
    person = [Annotation(f"i{n}", "ann", "crowd", "AB"[n < 2]) for n in range(4)]
    assert math.isnan(reliability(judge).value)
    once = [one for place, one in enumerate(judge) if place % 2 == 0]
    assert reliability(judge + person).value == reliability(once + person).value < 0.2


def test_an_item_counts_once_however_many_judge_it() -> None:
    crowd = [Annotation("i", f"worker {n}", "crowd", "A") for n in range(9)]
    others = [Annotation("j", "worker 0", "crowd", "A"), Annotation("j", "gpt", "gpt", "B")]
    both = [*crowd, Annotation("i", "gpt", "gpt", "A"), *others]
    table = {row.groups: row for row in agreement_table(both, tie="t")}
    found = table["crowd", "gpt"]
    assert (found.percent.value, found.tie_discounted.value) == pytest.approx((0.5, 0.5))
    assert (found.n_items, found.n_pairs) == (2, 10)


def test_a_group_against_itself_does_not_depend_on_who_comes_first() -> None:
    generator = np.random.default_rng(3)
    rows = [(str(i), *generator.choice(["A", "B", "t"], 2)) for i in range(30)]
    ways = []
    for order in (1, -1):
        pairs = [(item, (a, b)[::order]) for item, a, b in rows]
        annotations = [
            Annotation(item, name, "crowd", str(label))
            for item, labels in pairs
            for name, label in zip(("x", "y"), labels, strict=True)
        ]
        ways.append(agreement_table(annotations, tie="t")[0].kappa.value)
    assert ways[0] == pytest.approx(ways[1])
