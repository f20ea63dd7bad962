"""How often intervals hold the truth, in simulated studies; bounded loosely, seeds fixed."""

import numpy as np
import pytest

from lima_ray.results.statistics.agreement import percent_agreement
from lima_ray.results.statistics.bradley_terry import Comparisons, bradley_terry
from lima_ray.results.statistics.calibration import corrected_rate
from lima_ray.results.statistics.clustered import clustered_mean, rate

STUDIES = 300


@pytest.mark.parametrize("n_prompts", [10, 60])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_interval_of_a_share_of_clustered_verdicts(n_prompts: int, share: float) -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(STUDIES):
        chances = generator.beta(2 * share, 2 * (1 - share), n_prompts)
        counts = generator.integers(1, 4, n_prompts)
        prompts = np.repeat(np.arange(n_prompts), counts)
        found = rate(
            (generator.random(len(prompts)) < chances[prompts]).astype(float).tolist(),
            prompts.tolist(),
        )
        held += found.low <= share <= found.high
    assert 0.91 <= held / STUDIES <= 1


def test_the_interval_of_a_clustered_mean() -> None:
    generator = np.random.default_rng(1)
    prompts = np.repeat(np.arange(30), 3)
    held = 0
    for _ in range(STUDIES):
        values = generator.normal(4, 1, 30)[prompts] + generator.normal(0, 1, 90)
        found = clustered_mean(values.tolist(), prompts.tolist())
        held += found.low <= 4 <= found.high
    assert 0.91 <= held / STUDIES <= 0.99


def test_the_interval_of_a_corrected_rate() -> None:
    generator = np.random.default_rng(2)
    truth, q0, q1 = 0.3, 0.7, 0.9
    held = 0
    for _ in range(STUDIES):
        positives = generator.binomial(50, truth)
        negatives = 50 - positives
        said = generator.binomial(300, truth * q1 + (1 - truth) * (1 - q0))
        found = corrected_rate(
            said,
            300,
            (generator.binomial(negatives, q0), negatives),
            (generator.binomial(positives, q1), positives),
        )
        held += bool(found.problem) or found.low <= truth <= found.high
    assert held / STUDIES >= 0.91


@pytest.mark.parametrize("share", [0.9, 0.97])
def test_the_interval_of_an_agreement_that_is_nearly_perfect(share: float) -> None:
    generator = np.random.default_rng(4)
    held, perfect = 0, 0
    for _ in range(STUDIES):
        equal = generator.random(20) < share
        found = percent_agreement(["A"] * 20, np.where(equal, "A", "B").tolist())
        perfect += found.value == 1
        held += found.low <= share <= found.high
    assert perfect > 20 and held / STUDIES >= 0.85


def test_the_sandwich_interval_of_a_strength() -> None:
    generator = np.random.default_rng(3)
    first = np.tile([0, 1, 0, 1, 2, 2], 40)
    second = np.tile([1, 2, 2, 0, 1, 0], 40)
    prompts = np.repeat(np.arange(40), 6)
    truth, names = np.array([0.6, 0.0, -0.6]), np.array(["a", "b", "c"])
    held = 0
    for _ in range(STUDIES):
        noise = generator.logistic(size=240)
        points = (truth[first] - truth[second] + noise > 0).astype(float)
        found = bradley_terry(
            Comparisons(
                names[first].tolist(), names[second].tolist(), points.tolist(), prompts.tolist()
            )
        )
        gap = found.difference("a", "c")
        held += gap.low <= 1.2 <= gap.high
    assert 0.9 <= held / STUDIES <= 0.99
