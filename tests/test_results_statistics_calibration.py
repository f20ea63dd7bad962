"""Judges' errors and biases, and the size of studies."""

import math

import numpy as np
import pytest

from lima_ray.results.statistics import power
from lima_ray.results.statistics.calibration import (
    confusion_matrix,
    corrected_rate,
    corrected_shares,
)
from lima_ray.results.statistics.order import both_orders, first_slot

LABELS = ["win", "tie", "lose"]
JUDGE_KT = np.array([[0.8, 0.25, 0.1], [0.1, 0.5, 0.1], [0.1, 0.25, 0.8]])
"""How often a judge says each label of what people call win, tie or lose."""


def labels_of(shares: list[float], n: int) -> list[str]:
    return [
        label for label, share in zip(LABELS, shares, strict=True) for _ in range(round(share * n))
    ]


def judged(people: list[str], generator: np.random.Generator) -> list[str]:
    return [LABELS[generator.choice(3, p=JUDGE_KT[:, LABELS.index(label)])] for label in people]


def test_a_rate_is_corrected_back_to_the_truth() -> None:
    truth, q0, q1 = 0.3, 0.7, 0.9
    said = round(1000 * (truth * q1 + (1 - truth) * (1 - q0)))
    found = corrected_rate(said, 1000, (140, 200), (180, 200))
    assert found.value == pytest.approx(truth, abs=0.002)
    assert found.low < truth < found.high
    perfect = corrected_rate(300, 1000, (200, 200), (200, 200))
    assert perfect.value == pytest.approx(perfect.raw) == 0.3


def test_more_calibration_narrows_the_interval() -> None:
    few = corrected_rate(400, 1000, (14, 20), (18, 20))
    many = corrected_rate(400, 1000, (1400, 2000), (1800, 2000))
    assert few.high - few.low > 2 * (many.high - many.low)


@pytest.mark.parametrize(
    ("negative", "positive", "problem"),
    [
        ((50, 100), (50, 100), "no better than guessing"),
        ((10, 100), (20, 100), "no better than guessing"),
        ((0, 0), (20, 100), "people call no item negative"),
        ((20, 100), (0, 0), "people call no item positive"),
    ],
)
def test_a_judge_that_guesses_corrects_nothing_and_says_so(
    negative: tuple[int, int], positive: tuple[int, int], problem: str
) -> None:
    found = corrected_rate(400, 1000, negative, positive)
    assert problem in found.problem and math.isnan(found.value) and found.raw == 0.4
    assert corrected_rate(0, 0, (1, 1), (1, 1)).problem == "no replies are judged"


def test_shares_are_corrected_by_the_inverted_confusion_matrix() -> None:
    generator = np.random.default_rng(0)
    truth = [0.2, 0.2, 0.6]
    people = labels_of(truth, 1500)
    calibration = labels_of(truth, 1000)
    said, said_there = judged(people, generator), judged(calibration, generator)
    found = corrected_shares(said, range(1500), calibration, said_there, range(1000))
    counts = confusion_matrix(said_there, calibration, LABELS)
    raw = np.array([said.count(label) for label in LABELS]) / 1500
    expected = np.linalg.solve(counts / counts.sum(0), raw)
    for label, value, true in zip(LABELS, expected, truth, strict=True):
        assert found[label].value == pytest.approx(value, abs=1e-9)
        assert found[label].low < true < found[label].high
    assert found["win"].raw > found["win"].high
    assert sum(one.value for one in found.values()) == pytest.approx(1)


def test_corrected_shares_stay_shares() -> None:
    people = ["win"] * 20 + ["tie"] * 10 + ["lose"] * 20
    judge = ["win"] * 14 + ["lose"] * 6 + ["tie"] * 8 + ["win"] * 2 + ["lose"] * 16 + ["tie"] * 4
    found = corrected_shares(["win"] * 100, range(100), people, judge, range(50))
    assert [found[label].value for label in LABELS] == pytest.approx([1, 0, 0], abs=1e-9)
    assert all(0 <= one.low <= one.high <= 1 for one in found.values())


def test_errors_that_few_items_did_not_show_are_not_ruled_out() -> None:
    said = labels_of([0.5, 0.1, 0.4], 500)
    widths = []
    for count in (20, 2000):
        people = labels_of([0.4, 0.2, 0.4], count)  # the judge agrees with all of them
        found = corrected_shares(said, range(500), people, people, range(count))["win"]
        assert found.value == pytest.approx(0.5)
        widths.append(found.high - found.low)
    assert widths[0] > 1.3 * widths[1]


def test_a_confusion_matrix_without_an_inverse_is_told() -> None:
    people = labels_of([0.4, 0.2, 0.4], 50)
    always = corrected_shares(["win"] * 9, range(9), people, ["win"] * 50, range(50))
    assert "cannot be inverted" in always["tie"].problem and math.isnan(always["tie"].value)
    assert always["win"].raw == 1
    unseen = corrected_shares(["win"], ["p"], ["win", "lose"], ["win", "lose"], ["p", "q"])
    assert unseen["win"].problem == "people call no calibration item tie"
    assert corrected_shares([], [], people, people, range(50))["win"].problem
    with pytest.raises(ValueError, match="not among"):
        corrected_shares(["A"], ["p"], ["win"], ["win"], ["q"])


def test_samples_of_a_prompt_widen_the_corrected_interval() -> None:
    generator = np.random.default_rng(1)
    truth = labels_of([0.4, 0.2, 0.4], 300)
    calibration = labels_of([0.4, 0.2, 0.4], 200)
    said, there = judged(truth, generator), judged(calibration, generator)
    widths = []
    for copies, prompts in ((1, range(300)), (3, [n % 300 for n in range(900)]), (3, range(900))):
        found = corrected_shares(said * copies, prompts, calibration, there, range(200))["win"]
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.1) and widths[2] < widths[0]


def test_orders_keep_three_figures_apart() -> None:
    given = ["a", "b", "tie", "a", None, "a"]
    exchanged = ["a", "a", "tie", "b", "a", None]
    right = ["a", "b", "a", "b", "a", "b"]
    found = both_orders(given, exchanged, range(6), right)
    assert found.consistency.value == 0.5
    assert (found.consistency.all_lost, found.consistency.all_won) == pytest.approx((2 / 6, 4 / 6))
    assert found.consistent_and_right and found.consistent_and_right.value == 0.25
    assert found.single_order and found.single_order.value == pytest.approx(2 / 5)
    assert found.exchanged_order and found.exchanged_order.value == pytest.approx(3 / 5)
    unknown = both_orders(given, exchanged, range(6))
    assert unknown.consistency == found.consistency and unknown.single_order is None


def test_a_judge_of_the_first_slot_is_told_from_an_honest_one() -> None:
    generator = np.random.default_rng(2)
    prompts = [n // 2 for n in range(400)]
    honest: list[str] = []
    for better in generator.choice([0, 1], 200):  # in both orders
        honest += ["win", "lose"] if better else ["lose", "win"]
    found = first_slot(honest, prompts)
    assert found.margin.mean == 0 and found.win.value == 0.5
    always = first_slot(["win"] * 399 + ["lose"], prompts)
    assert always.win.low > 0.95 and always.margin.p < 1e-9


def test_power_is_that_of_statsmodels() -> None:
    module = pytest.importorskip("statsmodels.stats.power")
    theirs = module.TTestPower()
    for prompts in (3, 10, 50, 300):
        for difference in (0.05, 0.2):
            expected = theirs.power(difference / 0.5, prompts, 0.05)
            found = power.power_of(difference, prompts, 0.5)
            assert found == pytest.approx(expected, abs=1e-9)
        expected = theirs.solve_power(None, prompts, 0.05, 0.8) * 0.37
        assert power.resolvable_difference(prompts, 0.37) == pytest.approx(expected, rel=1e-5)


def test_three_hundred_prompts_resolve_six_points() -> None:
    # Wins and half the ties, 45 % of them.
    deviation = power.preference_deviation(ties=0.45) / 2
    assert power.resolvable_difference(300, deviation) == pytest.approx(0.06, abs=0.0005)
    assert power.prompts_needed(0.0601, deviation) == pytest.approx(300, abs=2)
    least = power.prompts_needed(0.2, 0.5)
    assert power.power_of(0.2, least, 0.5) >= 0.8 > power.power_of(0.2, least - 1, 0.5)


def test_a_difference_of_the_resolvable_size_is_found_four_times_in_five() -> None:
    generator = np.random.default_rng(3)
    difference = power.resolvable_difference(40, 1.0)
    studies = generator.normal(difference, 1.0, (4000, 40))
    t = studies.mean(1) / studies.std(1, ddof=1) * math.sqrt(40)
    assert np.mean(np.abs(t) > 2.0227) == pytest.approx(0.8, abs=0.02)


def test_samples_help_until_the_prompts_own_spread_is_left() -> None:
    deviations = [power.samples_deviation(0.3, 0.4, samples) for samples in (1, 5, 10**6)]
    assert deviations == pytest.approx([0.5, math.hypot(0.3, 0.4 / math.sqrt(5)), 0.3])


def test_more_answers_narrow_an_interval_as_much_as_said() -> None:
    found = power.interval_after(31, 50, more=20)
    assert found.width == pytest.approx(0.26, abs=0.005)
    assert 0.75 < found.width_after / found.width < 0.95
    mean = power.mean_after(4.2, 0.1, n_prompts=50, more=150)
    assert mean.width_after == pytest.approx(mean.width / 2, rel=0.03)


def test_impossible_studies_are_refused() -> None:
    for arguments in ((1, 0.5), (10, 0.0), (10, math.nan)):
        with pytest.raises(ValueError, match="needs two or more prompts"):
            power.resolvable_difference(*arguments)
    with pytest.raises(ValueError, match="never found"):
        power.prompts_needed(0, 0.5)
    with pytest.raises(ValueError, match="no answers yet"):
        power.interval_after(0, 0, 20)
