"""Clustered means, shares with bounds, win/tie/lose, paired tests: against other libraries."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lima_ray.results.intervals import wilson_interval
from lima_ray.results.statistics.clustered import clustered_mean, rate, wilson_ends
from lima_ray.results.statistics.preference import (
    Outcome,
    compare_paired,
    flip,
    prompt_means,
    win_tie_lose,
)


def test_a_clustered_error_is_that_of_least_squares() -> None:
    regression = pytest.importorskip("statsmodels.regression.linear_model")
    generator = np.random.default_rng(0)
    for n_prompts in (2, 7, 40):
        prompts = generator.integers(0, n_prompts, 120)
        prompts[:n_prompts] = range(n_prompts)
        values = generator.normal(size=n_prompts)[prompts] + generator.normal(size=120)
        found = clustered_mean(values.tolist(), prompts.tolist())
        fitted = regression.OLS(values, np.ones(120)).fit(
            cov_type="cluster", cov_kwds={"groups": prompts, "use_correction": False}
        )
        expected = fitted.bse[0] * math.sqrt(n_prompts / (n_prompts - 1))
        assert found.standard_error == pytest.approx(expected, rel=1e-9)
        assert (found.mean, found.n, found.n_prompts) == (
            pytest.approx(values.mean()),
            120,
            n_prompts,
        )


def test_a_clustered_error_is_inspects() -> None:
    scorer = pytest.importorskip("inspect_ai.scorer")
    generator = np.random.default_rng(1)
    values, prompts = generator.normal(size=50), generator.integers(0, 12, 50)
    samples = [
        scorer.SampleScore(score=scorer.Score(value=float(v)), sample_metadata={"prompt": int(p)})
        for v, p in zip(values, prompts, strict=True)
    ]
    expected = scorer.stderr(cluster="prompt")(samples)
    found = clustered_mean(values.tolist(), prompts.tolist())
    assert found.standard_error == pytest.approx(expected, rel=1e-9)


def test_one_value_a_prompt_has_the_interval_of_the_t_test() -> None:
    values = np.random.default_rng(2).normal(0.3, 1, 25)
    found = clustered_mean(values.tolist(), range(25))
    test: Any = stats.ttest_1samp(values, 0)
    ends = test.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((ends.low, ends.high, test.pvalue))


def test_one_prompt_has_no_interval() -> None:
    found = clustered_mean([1, 0, 1], ["p", "p", "p"])
    assert found.mean == pytest.approx(2 / 3)
    assert all(map(math.isnan, (found.standard_error, found.low, found.high, found.p)))
    share = rate([1, 0, 1], ["p", "p", "p"])
    assert math.isnan(share.low) and math.isnan(share.high)
    nothing = rate([], [], unreadable=3)
    assert math.isnan(nothing.value) and (nothing.all_lost, nothing.all_won) == (0, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_is_refused(bad: float) -> None:
    for function in (clustered_mean, rate):
        with pytest.raises(ValueError, match=f"value 1 is {bad}"):
            function([0.5, bad], ["p", "q"])
    with pytest.raises(ValueError, match="NaN"):
        compare_paired({"p": bad}, {"p": 1.0})


def test_values_and_prompts_of_unlike_number_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values of 1 prompts"):
        clustered_mean([1, 2], ["p"])
    with pytest.raises(ValueError, match="from 0 to 1; one is 3"):
        rate([1, 3], ["p", "q"])


def test_a_share_of_independent_prompts_is_wilsons() -> None:
    found = rate([1] * 31 + [0] * 19, range(50))
    assert (found.low, found.high) == wilson_interval(31, 50)
    assert wilson_ends(0.62, 50, float(stats.norm.ppf(0.975))) == pytest.approx(
        (found.low, found.high)
    )


def test_more_verdicts_on_the_same_prompts_tell_less_than_more_prompts() -> None:
    outcomes = np.random.default_rng(3).integers(0, 2, 40).astype(float)
    once = rate(outcomes.tolist(), range(40))
    thrice = rate(np.repeat(outcomes, 3).tolist(), np.repeat(range(40), 3).tolist())
    as_if_independent = rate(np.repeat(outcomes, 3).tolist(), range(120))
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.1)
    assert as_if_independent.high - as_if_independent.low < 0.7 * (thrice.high - thrice.low)


def test_a_share_of_none_or_all_still_has_a_width() -> None:
    for value in (0.0, 1.0):
        found = rate([value] * 20, np.repeat(range(10), 2).tolist())
        assert found.value == value
        assert 0.2 < found.high - found.low < 0.5


def test_bounds_hold_what_unread_verdicts_could_have_been() -> None:
    outcomes = ["win"] * 6 + ["tie"] + ["lose"] + ["unreadable"] + ["unanswered"]
    found = win_tie_lose(outcomes, range(10))
    assert (found.win.value, found.win.all_lost, found.win.all_won) == (0.75, 0.6, 0.8)
    assert (found.tie.value, found.tie.all_lost, found.tie.all_won) == (0.125, 0.1, 0.3)
    assert (found.win.n_read, found.win.n_unreadable, found.win.n_unanswered) == (8, 1, 1)
    assert found.score.value == pytest.approx(6.5 / 8)
    assert (found.score.all_lost, found.score.all_won) == pytest.approx((0.65, 0.85))
    assert found.margin.mean == pytest.approx(5 / 8)
    assert sum(one.value for one in found.rates.values()) == pytest.approx(1)


def test_unread_verdicts_are_no_ties() -> None:
    outcomes = ["win", "lose", "unreadable", "unanswered"]
    assert win_tie_lose(outcomes, range(4)).tie.value == 0


def test_the_other_system_sees_the_same_from_its_side() -> None:
    generator = np.random.default_rng(4)
    names: list[Outcome] = ["win", "tie", "lose", "unreadable"]
    outcomes = [names[n] for n in generator.integers(0, 4, 60)]
    prompts = generator.integers(0, 20, 60).tolist()
    one, other = (win_tie_lose(side, prompts) for side in (outcomes, [flip(o) for o in outcomes]))
    assert one.win == other.lose and one.tie == other.tie
    assert one.margin.mean == pytest.approx(-other.margin.mean)
    assert one.margin.p == pytest.approx(other.margin.p)


def test_all_ties_and_no_wins_are_told() -> None:
    ties = win_tie_lose(["tie"] * 30, range(30))
    assert (ties.tie.value, ties.win.value, ties.score.value) == (1, 0, 0.5)
    assert ties.win.high > 0.05 and math.isnan(ties.margin.p)
    never = win_tie_lose(["lose"] * 30, range(30))
    assert never.win.value == 0 and never.win.high > 0.05


def test_an_outcome_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no outcomes: \\['A'\\]"):
        win_tie_lose(["win", "A"], range(2))


def test_paired_systems_have_the_paired_t_test_and_a_bootstrap_like_it() -> None:
    generator = np.random.default_rng(5)
    hardness = generator.normal(0, 2, 80)
    a, b = hardness + generator.normal(0.3, 1, 80), hardness + generator.normal(0, 1, 80)
    first = {f"p{i}": float(v) for i, v in enumerate(a)} | {"only a": 3.0}
    second = {f"p{i}": float(v) for i, v in enumerate(b)} | {"only b": 3.0}
    found = compare_paired(first, second)
    test: Any = stats.ttest_rel(a, b)
    ends = test.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((test.pvalue, ends.low, ends.high))
    assert (found.bootstrap_low, found.bootstrap_high) == pytest.approx(
        (found.low, found.high), abs=0.15 * (found.high - found.low)
    )
    assert (found.n_prompts, found.only_first, found.only_second) == (80, ("only a",), ("only b",))
    assert found.high - found.low < 0.5 * 2 * 1.96 * math.hypot(a.std(), b.std()) / math.sqrt(80)


def test_samples_of_a_prompt_are_averaged_before_they_are_paired() -> None:
    assert prompt_means([1, 0, 1], ["p", "p", "q"]) == {"p": 0.5, "q": 1.0}
    nothing = compare_paired({"p": 1.0}, {"q": 1.0})
    assert math.isnan(nothing.mean) and nothing.n_prompts == 0


def test_a_score_of_nothing_but_ties_has_an_interval_and_rounding_is_no_spread() -> None:
    ties = rate([0.5] * 10, range(10))
    assert ties.low < 0.35 and ties.high > 0.65
    thirds = rate([1, 0, 0] * 10, [n // 3 for n in range(30)])
    halves = rate([1, 0] * 10, [n // 2 for n in range(20)])
    assert thirds.high - thirds.low > 0.5 and halves.high - halves.low > 0.5
