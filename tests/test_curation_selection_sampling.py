"""Rows shared over groups by temperature."""

import math
from collections import Counter

import numpy as np
import pytest

from lima_ray.curation.selection.sampling import share_rows

COUNTS = {"stackoverflow": 1_000_000, "math": 125_000, "cooking": 8_000, "beer": 1_000}


def share(
    counts: dict[str, int], rows: int, temperature: float = 3, seed: int = 0
) -> dict[str, int]:
    """Share rows with a seed."""
    return share_rows(counts, rows, temperature, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("temperature", "weights"),
    [
        (1, [1000, 125, 8, 1]),
        (3, [100, 50, 20, 10]),
        (math.inf, [1, 1, 1, 1]),
    ],
)
def test_groups_are_drawn_by_a_power_of_their_size(temperature: float, weights: list[int]) -> None:
    draws = [share(COUNTS, 200, temperature, seed) for seed in range(200)]
    assert {sum(drawn.values()) for drawn in draws} == {200}
    for group, weight in zip(COUNTS, weights, strict=True):
        p, n = weight / sum(weights), 200 * len(draws)
        drawn = sum(d[group] for d in draws)
        # A binomial is further off than 5 standard deviations once in a million.
        assert abs(drawn - n * p) <= 5 * math.sqrt(n * p * (1 - p)), group
        of_each = np.array([d[group] for d in draws])
        assert of_each.var() < 2 * 200 * p * (1 - p) + 1  # draws of one share are independent too


def test_a_group_gives_no_more_than_it_has_and_leaves_the_draw() -> None:
    assert share({"a": 2, "b": 1000, "empty": 0}, 900)["empty"] == 0
    exhausted = Counter[str]()
    for seed in range(300):
        drawn = share({"a": 1, "b": 1000, "c": 1000}, 21, math.inf, seed)
        assert drawn["a"] <= 1 and sum(drawn.values()) == 21
        exhausted.update(drawn)
    # Once `a` has gone, the others stay alike.
    n = exhausted["b"] + exhausted["c"]
    assert exhausted["a"] == 300
    assert abs(exhausted["b"] - n / 2) <= 5 * math.sqrt(n / 4)


def test_the_draws_are_those_of_drawing_one_by_one() -> None:
    counts, rows = {"a": 3, "b": 10, "c": 40}, 20
    generator, plain = np.random.default_rng(1), Counter[str]()
    for _ in range(400):
        left = dict(counts)
        for _ in range(rows):
            names = [name for name in counts if left[name]]
            weights = np.array([counts[name] ** (1 / 3) for name in names])
            left[names[generator.choice(len(names), p=weights / weights.sum())]] -= 1
        plain.update({name: counts[name] - left[name] for name in counts})
    ours = Counter[str]()
    for seed in range(400):
        ours.update(share(counts, rows, 3, seed))
    for name in counts:
        # Each mean is of 400 counts in a range of at most 20, whose deviation is below 3.
        assert abs(ours[name] - plain[name]) / 400 <= 5 * 3 * math.sqrt(2 / 400), name


def test_too_many_rows_take_all() -> None:
    assert share({"b": 3, "a": 2}, 50) == {"a": 2, "b": 3}
    assert share({}, 50) == {} and share({"a": 0}, 5) == {"a": 0} and share({"a": 5}, 0) == {"a": 0}


def test_the_order_of_the_groups_does_not_matter() -> None:
    backwards = dict(reversed(COUNTS.items()))
    assert share(COUNTS, 500) == share(backwards, 500)
    assert list(share(backwards, 5)) == sorted(COUNTS)
    assert share(COUNTS, 500) != share(COUNTS, 500, seed=1)
