"""Strengths of systems: against statsmodels, choix, Arena-Rank and a general optimiser."""

import math

import numpy as np
import pytest
from scipy import optimize

from lima_ray.config.errors import UserError
from lima_ray.results.statistics import ordered_logit
from lima_ray.results.statistics.bradley_terry import (
    Comparisons,
    bootstrap_strengths,
    bradley_terry,
    per_judge,
)

NAMES = ["a", "b", "c", "d"]


class Games:
    """Random comparisons of four systems, several a prompt."""

    def __init__(self, seed: int, n: int = 300, ties: bool = False) -> None:
        self.generator = np.random.default_rng(seed)
        self.first_N = self.generator.integers(0, 4, n)
        self.second_N = (self.first_N + self.generator.integers(1, 4, n)) % 4
        self.shown_N = self.generator.choice([-1.0, 1.0], n)
        self.length_N = self.generator.normal(size=n)
        self.prompt_N = np.arange(n) % 60
        self.judge_N = self.generator.choice(["x", "y"], n)
        strengths = np.array([0.9, 0.2, -0.3, -0.8])
        # A prompt suits some systems better, so that its verdicts are alike.
        suits_CS = self.generator.normal(0, 0.5, (60, 4))
        suited = strengths + suits_CS
        gap = suited[self.prompt_N, self.first_N] - suited[self.prompt_N, self.second_N]
        gap = gap + 0.4 * self.shown_N + 0.3 * self.length_N
        utilities = np.stack([gap / 2, np.full(n, -0.3 if ties else -np.inf), -gap / 2], 1)
        noisy = utilities + self.generator.gumbel(size=(n, 3))
        self.points_N = np.array([1, 0.5, 0])[noisy.argmax(1)]

    def arguments(self) -> tuple[list[str], list[str], list[float], list[int]]:
        return (
            [NAMES[s] for s in self.first_N],
            [NAMES[s] for s in self.second_N],
            self.points_N.tolist(),
            self.prompt_N.tolist(),
        )

    @property
    def covariates(self) -> dict[str, list[float]]:
        return {"shown first": self.shown_N.tolist(), "length": self.length_N.tolist()}

    def signs(self) -> np.ndarray:
        signs = np.zeros((len(self.points_N), 4))
        rows = np.arange(len(self.points_N))
        signs[rows, self.first_N], signs[rows, self.second_N] = 1, -1
        return signs


@pytest.mark.parametrize("seed", range(5))
def test_strengths_and_sandwich_errors_are_those_of_a_logistic_regression(seed: int) -> None:
    sm = pytest.importorskip("statsmodels.api")
    games = Games(seed)
    found = bradley_terry(Comparisons(*games.arguments(), games.covariates))
    columns = np.column_stack([games.signs()[:, 1:], games.shown_N, games.length_N])
    model = sm.GLM(games.points_N, columns, family=sm.families.Binomial())
    fitted = model.fit(
        tol=1e-14,
        maxiter=100,
        cov_type="cluster",
        cov_kwds={"groups": games.prompt_N, "use_correction": False},
    )
    errors = fitted.bse * math.sqrt(60 / 59)
    for place, name in enumerate(NAMES[1:]):
        gap = found.difference(name, "a")
        assert gap.value == pytest.approx(fitted.params[place], abs=1e-9)
        assert gap.standard_error == pytest.approx(errors[place], abs=1e-9)
    for place, name in enumerate(("shown first", "length"), start=3):
        assert found.covariates[name].value == pytest.approx(fitted.params[place], abs=1e-9)
        assert found.covariates[name].standard_error == pytest.approx(errors[place], abs=1e-9)
    assert sum(one.value for one in found.strengths.values()) == pytest.approx(0, abs=1e-9)
    assert found.systems == tuple(sorted(NAMES, key=lambda n: -found.strengths[n].value))


def test_strengths_are_choixs() -> None:
    choix = pytest.importorskip("choix")
    games = Games(6)
    found = bradley_terry(Comparisons(*games.arguments()))
    pairs = zip(games.first_N, games.second_N, games.points_N, strict=True)
    wins = [(a, b) if won else (b, a) for a, b, won in pairs]
    expected = choix.opt_pairwise(4, wins, tol=1e-12)
    got = [found.strengths[name].value for name in NAMES]
    assert got == pytest.approx(expected - expected.mean(), abs=1e-6)


def test_halved_ties_are_arena_ranks() -> None:
    models = pytest.importorskip("arena_rank.models.bradley_terry")
    data = pytest.importorskip("arena_rank.utils.data_utils")
    pandas = pytest.importorskip("pandas")
    games = Games(7, ties=True)
    first, second, points, _ = games.arguments()
    winners = ["tie" if p == 0.5 else "model_a" if p else "model_b" for p in points]
    frame = pandas.DataFrame({"model_a": first, "model_b": second, "winner": winners})
    dataset = data.PairDataset.from_pandas(frame)
    rated = models.BradleyTerry(4).compute_ratings_and_cis(dataset)
    # Its clusters are single verdicts, and it has no correction for their number.
    found = bradley_terry(Comparisons(first, second, points, range(300), ties="half"))
    for place, name in enumerate(rated["competitors"]):
        assert found.elo(name) == pytest.approx(float(rated["ratings"][place]), abs=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_davidsons_ties_are_at_the_maximum_of_the_likelihood(seed: int) -> None:
    games = Games(seed, ties=True)
    found = bradley_terry(Comparisons(*games.arguments(), games.covariates))
    columns = np.column_stack([games.signs()[:, 1:], games.shown_N, games.length_N])

    def deviance(values: np.ndarray) -> float:
        odds = np.exp(columns @ values[:-1])
        tied = np.exp(values[-1]) * np.sqrt(odds)  # Davidson 1970, equation 2.4
        chances = np.stack([odds, tied, np.ones_like(odds)], 1)
        chances /= chances.sum(1, keepdims=True)
        place = np.select([games.points_N == 1, games.points_N == 0.5], [0, 1], 2)
        return -float(np.log(chances[np.arange(len(place)), place]).sum())

    fitted = optimize.minimize(deviance, np.zeros(6), method="BFGS", options={"gtol": 1e-6})
    for place, name in enumerate(NAMES[1:]):
        assert found.difference(name, "a").value == pytest.approx(fitted.x[place], abs=1e-4)
    assert found.covariates["shown first"].value == pytest.approx(fitted.x[3], abs=1e-4)
    assert found.ties["all"].value == pytest.approx(fitted.x[5], abs=1e-4)


def test_scores_and_information_are_the_derivatives_of_the_objective() -> None:
    games = Games(13, ties=True)
    tied = games.generator.choice([0.0, 1.0], (300, 1))
    games.points_N[(tied[:, 0] == 0) & (games.points_N == 0.5)] = 1
    columns = np.column_stack([games.signs()[:, 1:], games.length_N])
    design = ordered_logit.Design(columns, tied, games.points_N)
    at_Q, weights_N = games.generator.normal(size=5), games.generator.random(300)
    nothing_Q = np.zeros(5)

    def gradient(values_Q: np.ndarray) -> np.ndarray:
        return -ordered_logit.scores(design, values_Q).T @ weights_N

    def objective(values_Q: np.ndarray) -> float:
        return ordered_logit.objective(design, values_Q, weights_N, nothing_Q)

    assert gradient(at_Q) == pytest.approx(optimize.approx_fprime(at_Q, objective), abs=1e-4)
    numeric_QQ = optimize.approx_fprime(at_Q, gradient)
    assert ordered_logit.information(design, at_Q, weights_N) == pytest.approx(numeric_QQ, abs=1e-4)


def test_the_order_of_systems_in_a_comparison_changes_nothing() -> None:
    games = Games(8, ties=True)
    first, second, points, prompts = games.arguments()
    one = bradley_terry(Comparisons(first, second, points, prompts, games.covariates))
    mirrored = {name: [-v for v in values] for name, values in games.covariates.items()}
    other = bradley_terry(Comparisons(second, first, [1 - p for p in points], prompts, mirrored))
    for name in NAMES:
        assert one.strengths[name].value == pytest.approx(other.strengths[name].value, abs=1e-9)
        assert one.strengths[name].low == pytest.approx(other.strengths[name].low, abs=1e-9)
    assert one.win_probability("a", "d") == pytest.approx(1 - one.win_probability("d", "a"))


def test_a_judge_of_its_own_bias_is_told_from_one_without() -> None:
    generator = np.random.default_rng(9)
    n = 4000
    judges = generator.choice(["fair", "first"], n).tolist()
    shown = generator.choice([-1.0, 1.0], n)
    gap = 0.5 + np.where(np.array(judges) == "first", 1.0, 0.0) * shown
    points = (generator.random(n) < 1 / (1 + np.exp(-gap))).astype(float).tolist()
    found = bradley_terry(
        Comparisons(
            ["a"] * n, ["b"] * n, points, range(n), per_judge("order", shown.tolist(), judges)
        )
    )
    biased, fair = found.covariates["order, first"], found.covariates["order, fair"]
    assert biased.low > 0.7 and abs(fair.value) < 0.2
    assert found.difference("a", "b").low < 0.5 < found.difference("a", "b").high


def test_each_judge_has_its_own_readiness_to_call_a_tie() -> None:
    games = Games(10, n=600, ties=True)
    strict = (games.judge_N == "x") & (games.points_N == 0.5)
    games.points_N[strict] = games.generator.choice([0.0, 1.0], strict.sum())
    found = bradley_terry(Comparisons(*games.arguments(), judges=games.judge_N.tolist()))
    assert set(found.ties) == {"y"}  # x never calls one
    assert math.isfinite(found.ties["y"].value)


def test_drawing_prompts_again_gives_the_sandwichs_interval() -> None:
    games = Games(11)
    found = bradley_terry(Comparisons(*games.arguments(), games.covariates))
    drawn = bootstrap_strengths(Comparisons(*games.arguments(), games.covariates), resamples=200)
    for name in NAMES:
        one = found.strengths[name]
        width = one.high - one.low
        assert drawn[name] == pytest.approx((one.low, one.high), abs=0.3 * width)


def test_both_orders_of_a_prompt_are_no_more_evidence_than_one() -> None:
    games = Games(12, n=60)
    first, second, points, prompts = games.arguments()
    once = bradley_terry(Comparisons(first, second, points, prompts))
    twice = bradley_terry(Comparisons(first * 2, second * 2, points * 2, prompts * 2))
    assert twice.strengths["a"].value == pytest.approx(once.strengths["a"].value, abs=1e-9)
    assert twice.strengths["a"].standard_error == pytest.approx(
        once.strengths["a"].standard_error, rel=1e-9
    )


def test_a_system_that_never_wins_is_refused_or_shrunk() -> None:
    first, second = ["a", "b", "a", "b"], ["b", "a", "c", "c"]
    points = [1, 1, 1, 1]
    with pytest.raises(UserError, match=r"no finite strengths: .*\{c\}"):
        bradley_terry(Comparisons(first, second, points, range(4)))
    found = bradley_terry(Comparisons(first, second, points, range(4)), ridge=0.5)
    assert found.systems[-1] == "c" and found.strengths["c"].value < -0.5
    drawn = bootstrap_strengths(Comparisons(first, second, points, range(4)), resamples=50)
    assert all(math.isfinite(end) for ends in drawn.values() for end in ends)
    with pytest.raises(UserError, match="no finite strengths"):
        bradley_terry(
            Comparisons(["a", "b", "c", "d"], ["b", "a", "d", "c"], [1, 1, 1, 1], range(4))
        )


def test_only_ties_are_equal_strengths() -> None:
    found = bradley_terry(
        Comparisons(["a", "b", "c"], ["b", "c", "a"], [0.5] * 3, range(3), ties="half")
    )
    assert all(one.value == pytest.approx(0, abs=1e-9) for one in found.strengths.values())
    with pytest.raises(UserError, match="every verdict is a tie, so"):
        bradley_terry(Comparisons(["a", "b", "c"], ["b", "c", "a"], [0.5] * 3, range(3)))


def test_one_prompt_has_strengths_without_an_interval() -> None:
    found = bradley_terry(Comparisons(["a", "a"], ["b", "b"], [1, 0], ["p", "p"]))
    assert found.strengths["a"].value == pytest.approx(0, abs=1e-9)
    assert math.isnan(found.strengths["a"].low)
    assert all(map(math.isnan, bootstrap_strengths(Comparisons(["a"], ["b"], [1], ["p"]))["a"]))


def test_bad_comparisons_are_refused() -> None:
    with pytest.raises(UserError, match="no verdict that was read"):
        bradley_terry(Comparisons([], [], [], []))
    with pytest.raises(ValueError, match="is nan"):
        bradley_terry(Comparisons(["a"], ["b"], [math.nan], ["p"]))
    with pytest.raises(ValueError, match="compared with itself"):
        bradley_terry(Comparisons(["a"], ["a"], [1], ["p"]))
    with pytest.raises(ValueError, match="1 for a win"):
        bradley_terry(Comparisons(["a"], ["b"], [0.7], ["p"]))


def test_an_order_that_cannot_be_told_from_strengths_or_alone_decides_is_refused() -> None:
    always_first = ["a"] * 4, ["b"] * 4, [1, 1, 1, 0], range(4), {"shown first": [1, 1, 1, 1]}
    with pytest.raises(UserError, match="shown first cannot be told from the strengths"):
        bradley_terry(Comparisons(*always_first))
    with pytest.raises(UserError, match="shown first cannot be told from the strengths"):
        bootstrap_strengths(Comparisons(*always_first))
    takes_a = ["a"] * 20, ["b"] * 20, [1, 0] * 10, [n // 2 for n in range(20)]
    with pytest.raises(UserError, match="of shown first are not finite"):
        bradley_terry(Comparisons(*takes_a, {"shown first": [1, -1] * 10}))
    found = bradley_terry(Comparisons(*takes_a, {"shown first": [1, -1] * 10}), ridge=0.5)
    assert found.covariates["shown first"].value > 2
    rarely = [1] * 2000 + [0], [1] * 2001
    one = bradley_terry(Comparisons(["a"] * 2001, ["b"] * 2001, rarely[0], range(2001)))
    assert one.difference("a", "b").value == pytest.approx(math.log(2000))
