"""Length: slope and adjusted rates, against statsmodels and data with a known effect."""

import math

import numpy as np
import pytest

from lima_ray.results.statistics.length import (
    length_adjusted,
    length_correlation,
    length_slope,
    longer_preferred,
    tanh_difference,
)


def biased_data(
    seed: int, n: int = 400, effect: float = 1.5, strength: float = 0.0
) -> tuple[list[float], list[float], list[float]]:
    """Points of a judge that likes length, of a system that writes at length."""
    generator = np.random.default_rng(seed)
    lengths, others = generator.gamma(4, 150, n) + 150, generator.gamma(4, 150, n)
    scaled = tanh_difference(lengths.tolist(), others.tolist(), range(n))
    chance = 1 / (1 + np.exp(-(strength + effect * scaled)))
    points = (generator.random(n) < chance).astype(float)
    return points.tolist(), lengths.tolist(), others.tolist()


def test_slope_and_error_are_those_of_a_logistic_regression() -> None:
    sm = pytest.importorskip("statsmodels.api")
    points, lengths, others = biased_data(0)
    prompts = [n % 80 for n in range(400)]
    found = length_slope(points, lengths, others, prompts)
    columns = sm.add_constant(tanh_difference(lengths, others, prompts))
    fitted = sm.GLM(points, columns, family=sm.families.Binomial()).fit(
        tol=1e-14, cov_type="cluster", cov_kwds={"groups": prompts, "use_correction": False}
    )
    assert found.value == pytest.approx(fitted.params[1], abs=1e-9)
    assert found.standard_error == pytest.approx(fitted.bse[1] * math.sqrt(80 / 79), abs=1e-9)


def test_a_win_rate_made_of_length_is_taken_back() -> None:
    points, lengths, others = biased_data(1, n=2000)
    found = length_adjusted(points, lengths, others, range(2000), ridge=0.0)
    assert found.raw > 0.58
    assert found.low < 0.5 < found.high and found.high - found.low < 0.08
    assert found.slope.low < 1.5 < found.slope.high


def test_a_ridge_lies_between_the_raw_rate_and_the_whole_adjustment() -> None:
    points, lengths, others = biased_data(2, n=1000)
    whole, some, none = (
        length_adjusted(points, lengths, others, range(1000), ridge).value
        for ridge in (0.0, 0.02, 1e6)
    )
    raw = float(np.mean(points))
    assert whole < some < none == pytest.approx(raw, abs=1e-4)


def test_length_that_says_nothing_changes_nothing() -> None:
    generator = np.random.default_rng(3)
    points = generator.choice([0.0, 0.5, 1.0], 500).tolist()
    lengths, others = generator.normal(500, 100, (2, 500)).tolist()
    found = length_adjusted(points, lengths, others, range(500))
    assert found.value == pytest.approx(found.raw, abs=0.01)
    assert found.slope.low < 0 < found.slope.high


def test_what_has_no_slope_has_none() -> None:
    same = [100.0] * 6
    points = [1.0, 0.0] * 3
    equal = length_adjusted(points, same, same, range(6))
    assert equal.value == pytest.approx(0.5) and math.isnan(equal.slope.value)
    always = length_adjusted([1.0] * 6, list(range(6)), same, range(6))
    assert always.value == always.raw == 1 and math.isnan(always.low)
    decided = length_slope(points, [200, 50] * 3, same, range(6))
    assert math.isnan(decided.value)  # length alone decides: the slope has no bound
    assert not math.isnan(length_adjusted(points, [200, 50] * 3, same, range(6)).value)
    one_prompt = length_adjusted([1, 0, 1, 0], [3, 1, 1, 2], [1, 2, 2, 1], ["p"] * 4)
    assert 0 < one_prompt.value < 1 and math.isnan(one_prompt.low)
    with pytest.raises(ValueError, match="is nan"):
        length_adjusted([1, 0], [math.nan, 1], [1, 1], range(2))


def test_longer_replies_that_win_are_counted_among_decided_pairs() -> None:
    points, lengths, others = [1, 0, 0.5, 1, 1], [9, 1, 9, 1, 5], [1, 9, 1, 9, 5]
    assert longer_preferred(points, lengths, others) == pytest.approx(2 / 3)
    assert math.isnan(longer_preferred([0.5], [1], [2]))
    assert length_correlation([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert math.isnan(length_correlation([3, 3, 3], [10, 20, 30]))
