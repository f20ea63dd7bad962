"""Intervals and tests: against published figures, scipy, other estimators and brute force."""

import csv
import dataclasses
import gzip
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as scipy_stats

from lima_ray.results import intervals

EVALUATION = next(
    (
        found
        for above in Path(__file__).parents
        if (found := above / "shared/data/evaluation").is_dir()
    ),
    None,
)
needs_evaluation = pytest.mark.skipif(
    EVALUATION is None, reason="no shared/data/evaluation in or above the checkout"
)


@pytest.mark.parametrize(
    ("successes", "count", "published"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_gives_newcombes_figures(
    successes: int, count: int, published: tuple[float, float]
) -> None:
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I."""
    assert intervals.wilson_interval(successes, count) == pytest.approx(published, abs=5e-5)


def test_a_bootstrap_interval_is_that_of_drawing_prompts_one_by_one() -> None:
    generator = np.random.default_rng(3)
    replies = [(f"prompt {i % 17}", float(v)) for i, v in enumerate(generator.normal(size=60))]
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for prompt, value in replies:
        by_prompt[prompt].append(value)
    prompts = sorted(by_prompt)
    draws = np.random.default_rng(0).integers(0, len(prompts), (intervals.RESAMPLES, len(prompts)))
    means = []
    for draw in draws:
        drawn = [value for number in draw for value in by_prompt[prompts[number]]]
        means.append(sum(drawn) / len(drawn))
    slow = np.quantile(means, [0.025, 0.975])
    found = intervals.mean_interval([v for _, v in replies], [p for p, _ in replies])
    assert found == pytest.approx(slow, rel=1e-9)
    shuffled = [replies[i] for i in generator.permutation(len(replies))]
    again = intervals.mean_interval([v for _, v in shuffled], [p for p, _ in shuffled])
    assert again == pytest.approx(found, rel=1e-9)


def test_an_interval_is_wider_where_replies_share_prompts() -> None:
    values = [1.0, 5.0] * 50
    alone = intervals.mean_interval(values, [str(i) for i in range(100)])
    shared = intervals.mean_interval(values, [str(i % 10) for i in range(100)])
    assert alone[0] < 3 < alone[1]
    assert shared[1] - shared[0] > 2 * (alone[1] - alone[0])
    assert all(math.isnan(v) for v in intervals.mean_interval([1.0, 2.0], ["a", "a"]))


def layout(
    generator: np.random.Generator, seeds: int, prompts: int, spreads: tuple[float, float, float]
) -> np.ndarray:
    """Values of mean 0 with normal effects of the seed, the prompt and the residual."""
    of_seed, of_prompt, residual = spreads
    return (
        generator.normal(0, of_seed, (seeds, 1))
        + generator.normal(0, of_prompt, (1, prompts))
        + generator.normal(0, residual, (seeds, prompts))
    )


@pytest.mark.parametrize(
    ("seeds", "spreads"),
    [
        (3, (0.2, 1.0, 1.0)),
        (3, (0.0, 1.0, 1.0)),
        (3, (0.2, 0.0, 1.0)),
        (3, (0.0, 0.0, 1.0)),
        (3, (1.0, 1.0, 1.0)),
        (5, (0.2, 1.0, 1.0)),
        (1, (0.0, 1.0, 1.0)),
    ],
    ids=["all", "no seed", "no prompt", "neither", "much of the seed", "five seeds", "one seed"],
)
def test_an_interval_over_seeds_and_prompts_covers_the_truth(
    seeds: int, spreads: tuple[float, float, float]
) -> None:
    """In 95 % of studies; the band is what `crossed` promises, with room for 1,000 studies."""
    generator = np.random.default_rng(0)
    studies = [intervals.crossed_mean(layout(generator, seeds, 60, spreads)) for _ in range(1000)]
    covered = [e.low <= 0 <= e.high for e in studies]
    assert 0.91 <= np.mean(covered) <= 0.99
    assert [e.p > 0.05 for e in studies] == covered


def test_one_seed_gives_the_t_interval_over_prompts_and_one_prompt_that_over_seeds() -> None:
    values_P = np.random.default_rng(1).normal(0.3, 1, 40)
    test: Any = scipy_stats.ttest_1samp(values_P, 0)
    interval = test.confidence_interval(0.95)
    expected = (values_P.mean(), scipy_stats.sem(values_P), *interval, test.pvalue)
    by_prompt, by_seed = (
        intervals.crossed_mean(values_P[None]),
        intervals.crossed_mean(values_P[:, None]),
    )
    assert dataclasses.astuple(by_prompt) == pytest.approx((*expected, 1, 40))
    assert dataclasses.astuple(by_seed) == pytest.approx((*expected, 40, 1))


def test_seeds_that_disagree_give_the_interval_of_their_means() -> None:
    values_SP = layout(np.random.default_rng(2), 3, 300, (3.0, 0.5, 0.5))
    found = intervals.crossed_mean(values_SP)
    ends = scipy_stats.ttest_1samp(values_SP.mean(axis=1), 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), rel=0.01)


def test_seeds_or_prompts_that_agree_by_chance_make_nothing_narrower() -> None:
    """A component that comes out negative counts as zero."""
    values_SP = 0.2 + layout(np.random.default_rng(10), 3, 40, (0.0, 1.0, 1.0))
    values_SP += values_SP.mean() - values_SP.mean(axis=1, keepdims=True)
    test: Any = scipy_stats.ttest_1samp(values_SP.mean(axis=0), 0)
    ends = test.confidence_interval(0.95)
    for found in (intervals.crossed_mean(values_SP), intervals.crossed_mean(values_SP.T)):
        assert (found.low, found.high, found.p) == pytest.approx((*ends, test.pvalue))
    chequered_SP = np.where(np.indices((4, 6)).sum(axis=0) % 2, 1.0, -1.0)
    mean_square = 4 * 6 / (3 * 5)
    found = intervals.crossed_mean(chequered_SP)
    assert found.standard_error == pytest.approx(math.sqrt(mean_square / (4 * 6)))


def test_the_standard_error_is_that_of_restricted_likelihood() -> None:
    """REML, as mixed-model software fits it: equal to the balanced analysis of variance."""
    seeds, prompts = 4, 9
    values_SP = layout(np.random.default_rng(4), seeds, prompts, (1.0, 1.0, 0.7))
    same_seed = np.kron(np.eye(seeds), np.ones((prompts, prompts)))
    same_prompt = np.kron(np.ones((seeds, seeds)), np.eye(prompts))
    ones = np.ones(seeds * prompts)

    def precision(logs: np.ndarray) -> np.ndarray:
        of_seed, of_prompt, residual = np.exp(logs)
        return np.linalg.inv(
            of_seed * same_seed + of_prompt * same_prompt + residual * np.eye(len(ones))
        )

    def deviance(logs: np.ndarray) -> float:
        inverse = precision(logs)
        information = ones @ inverse @ ones
        left = values_SP.ravel() - ones @ inverse @ values_SP.ravel() / information
        return left @ inverse @ left + np.log(information) - np.linalg.slogdet(inverse)[1]

    fitted = optimize.minimize(deviance, np.zeros(3), method="Nelder-Mead", tol=1e-8)
    expected = 1 / math.sqrt(ones @ precision(fitted.x) @ ones)
    assert intervals.crossed_mean(values_SP).standard_error == pytest.approx(expected, rel=1e-4)


def test_the_order_of_seeds_and_prompts_changes_nothing() -> None:
    generator = np.random.default_rng(5)
    values_SP = layout(generator, 3, 50, (0.3, 1.0, 1.0))
    expected = pytest.approx(dataclasses.astuple(intervals.crossed_mean(values_SP)))
    for _ in range(5):
        mixed_SP = values_SP[generator.permutation(3)][:, generator.permutation(50)]
        assert dataclasses.astuple(intervals.crossed_mean(mixed_SP)) == expected


def test_a_prompt_without_a_verdict_is_left_out_at_every_seed() -> None:
    values_SP = layout(np.random.default_rng(6), 3, 20, (0.3, 1.0, 1.0))
    holed_SP = values_SP.copy()
    holed_SP[0, 4] = holed_SP[2, 4] = holed_SP[1, 11] = np.nan
    whole_SP = np.delete(values_SP, [4, 11], axis=1)
    found = intervals.crossed_mean(holed_SP)
    assert found == intervals.crossed_mean(whole_SP)
    assert (found.n_seeds, found.n_prompts) == (3, 18)
    other_SP = layout(np.random.default_rng(7), 3, 20, (0.3, 1.0, 1.0))
    other_SP[1, 0] = np.nan
    assert intervals.paired_difference(holed_SP, other_SP).n_prompts == 17


@pytest.mark.parametrize(
    ("values_SP", "mean", "n_prompts"),
    [
        (np.full((3, 5), np.nan), math.nan, 0),
        (np.empty((0, 5)), math.nan, 5),
        (np.array([[4.0, np.nan]]), 4.0, 1),
    ],
)
def test_fewer_than_two_values_have_no_interval(
    values_SP: np.ndarray, mean: float, n_prompts: int
) -> None:
    found = intervals.crossed_mean(values_SP)
    assert found.mean == pytest.approx(mean, nan_ok=True)
    assert all(math.isnan(v) for v in (found.standard_error, found.low, found.high, found.p))
    assert found.n_prompts == n_prompts


def test_values_that_are_all_equal_have_no_test() -> None:
    found = intervals.crossed_mean(np.full((3, 5), 0.1))
    assert found.low == found.mean == found.high == pytest.approx(0.1)
    assert math.isnan(found.p)


def test_a_difference_of_one_seed_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(8)
    a_P, b_P = generator.normal(size=(2, 30))
    test = scipy_stats.ttest_rel(a_P, b_P)
    ends = test.confidence_interval(0.95)
    found = intervals.paired_difference(a_P[None], b_P[None])
    assert (found.p, found.low, found.high) == pytest.approx((test.pvalue, ends.low, ends.high))


def test_pairing_is_tighter_where_both_find_the_same_prompts_hard() -> None:
    generator = np.random.default_rng(9)
    hardness_1P = generator.normal(0, 2, (1, 100))
    a_SP = hardness_1P + layout(generator, 3, 100, (0.0, 0.5, 0.5))
    b_SP = hardness_1P + layout(generator, 3, 100, (0.0, 0.5, 0.5))
    apart = math.hypot(
        intervals.crossed_mean(a_SP).standard_error, intervals.crossed_mean(b_SP).standard_error
    )
    assert intervals.paired_difference(a_SP, b_SP).standard_error < apart / 2


def test_values_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 4\) and \(1, 4\) do not pair"):
        intervals.paired_difference(np.zeros((3, 4)), np.zeros((1, 4)))


def test_holms_adjustment_is_that_of_r() -> None:
    """`p.adjust(c(0.01, NA, 0.04, 0.03, 0.005), "holm")`."""
    found = intervals.holm_adjustment([0.01, math.nan, 0.04, 0.03, 0.005])
    assert found == pytest.approx([0.03, math.nan, 0.06, 0.06, 0.02], nan_ok=True)
    assert intervals.holm_adjustment([0.7, 0.6]) == [1, 1]
    assert intervals.holm_adjustment([]) == []


def rows(name: str) -> list[dict[str, str]]:
    """Rows of one of the published tables."""
    assert EVALUATION
    content = (EVALUATION / name).read_bytes()
    text = gzip.decompress(content) if name.endswith(".gz") else content
    return list(csv.DictReader(text.decode().splitlines()))


@needs_evaluation
@pytest.mark.parametrize(
    ("name", "count"), [("alpaca_eval_gpt4", 52), ("weighted_alpaca_eval_gpt4_turbo", 57)]
)
def test_alpaca_evals_leaderboards_follow_from_their_preferences(name: str, count: int) -> None:
    """Win rate and standard error of every model; the bootstrap's, of every third."""
    wins: dict[str, list[float]] = defaultdict(list)
    for row in rows(f"alpaca_eval/{name}_preferences.csv.gz"):
        if row["preference"]:  # 1 the baseline, 2 the model, 0 and 1.5 neither
            wins[row["model"]].append(100 * ((float(row["preference"]) or 1.5) - 1))
    leaderboard = {row[""]: row for row in rows(f"alpaca_eval/{name}_leaderboard.csv")}
    models = sorted(wins.keys() & leaderboard.keys())
    assert len(models) == count
    for number, model in enumerate(models):
        found = intervals.crossed_mean(np.array([wins[model]]))
        published = [float(leaderboard[model][key]) for key in ("win_rate", "standard_error")]
        assert [found.mean, found.standard_error] == pytest.approx(published, abs=1e-9)
        if number % 3 == 0 and found.standard_error:  # the baseline against itself has none
            resampled = intervals.bootstrap(wins[model], list(map(str, range(len(wins[model])))))
            assert 0.93 < resampled.standard_error / found.standard_error < 1.04


@needs_evaluation
def test_tulus_human_study_follows_from_its_annotations() -> None:
    """Figures 3 and 4 of Wang et al. 2023, arXiv:2306.04751, counted as the authors count.

    An annotator's latest word on an instance holds; of several annotators the first counts.
    """
    annotations = sorted(
        rows("open_instruct/tulu_annotations_min.csv"), key=lambda row: row["timestamp"]
    )
    latest = {(row["instance_index"], row["evaluator"]): row for row in annotations}
    first: dict[tuple[str, str], dict[str, str]] = {}
    for row in sorted(latest.values(), key=lambda row: row["timestamp"]):
        (rival,) = {row["model_a"], row["model_b"]} - {"tulu_65B"}
        first.setdefault((rival, row["instance_id"]), row)
    accepted: dict[str, list[bool]] = defaultdict(list)
    preferred = []
    for (rival, _), row in first.items():
        for side in "ab":
            accepted[row[f"model_{side}"]].append(row[f"completion_{side}_is_acceptable"] == "yes")
        if rival == "chatgpt":
            letter = row["preference"][0]
            preferred.append("tie" if letter == "t" else row[f"model_{letter}"])

    def check(outcomes: list[bool], percent: float) -> None:
        assert 100 * np.mean(outcomes) == pytest.approx(percent, abs=0.05)
        low, high = intervals.wilson_interval(sum(outcomes), len(outcomes))
        assert 100 * low < percent < 100 * high

    assert len(annotations) == 1150
    assert len(preferred) == 332
    check([winner == "tulu_65B" for winner in preferred], 27.7)
    check([winner == "tie" for winner in preferred], 33.1)
    check([winner == "chatgpt" for winner in preferred], 39.2)
    check(accepted["chatgpt"], 90.1)
    check(accepted["tulu_65B"], 79.8)
    check(accepted["tulu_human_only_65B"], 72.3)
    check(accepted["tulu_7B"], 68.7)
