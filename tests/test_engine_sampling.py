"""Sampling follows the distribution of transformers, for every sequence by itself."""

from typing import Any

import pytest
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from lima_ray.config.sections import Sampling
from lima_ray.engine.sampling import HEAD, sample


@pytest.mark.parametrize("vocab", [50, 2 * HEAD])
@pytest.mark.parametrize(
    ("temperature", "top_p", "penalty"),
    [(0.7, 0.9, 1.2), (2.0, 1.0, 1.0), (2.0, 0.5, 3.0), (0.3, 0.01, 1.2)],
)
def test_draws_follow_the_processed_distribution_of_transformers(
    vocab: int, temperature: float, top_p: float, penalty: float
) -> None:
    torch.manual_seed(0)
    draws = 4000
    logits_1V = torch.randn(1, vocab) * 3
    seen_1S = torch.randperm(vocab)[None, : vocab // 2]
    expected_1V: Any = logits_1V
    for processor in (
        RepetitionPenaltyLogitsProcessor(penalty),
        TemperatureLogitsWarper(temperature),
        TopPLogitsWarper(top_p),
    ):
        expected_1V = processor(torch.LongTensor(seen_1S), expected_1V)
    sampling = Sampling(temperature=temperature, top_p=top_p, repetition_penalty=penalty)
    drawn = sample(
        logits_1V.repeat(draws, 1),
        seen_1S.tolist() * draws,
        [sampling] * draws,
        [(number + 0.5) / draws for number in range(draws)],
    )
    expected_V = expected_1V.softmax(-1)[0]
    frequencies_V = torch.bincount(torch.tensor(drawn), minlength=vocab) / draws
    assert not frequencies_V[expected_V == 0].any()
    torch.testing.assert_close(frequencies_V, expected_V, atol=1.5 / draws, rtol=0)


def test_choose_decodes_every_row_its_own_way() -> None:
    torch.manual_seed(0)
    logits_BV = torch.randn(40, 1000) * torch.linspace(0.01, 8, 40)[:, None]
    struck = [torch.randperm(1000)[: row * 10].tolist() for row in range(40)]
    uniforms = torch.rand(40).tolist()
    samplings = [
        Sampling(
            temperature=row % 3 * 0.6, top_p=1 - row % 5 * 0.2, repetition_penalty=1 + row % 4 * 0.3
        )
        for row in range(40)
    ]
    alone = [
        sample(logits_BV[row, None].clone(), [struck[row]], [samplings[row]], [uniforms[row]])[0]
        for row in range(40)
    ]
    assert sample(logits_BV, struck, samplings, uniforms) == alone
    assert len(set(alone)) > 20
