"""Logits to tokens: repetition penalty, temperature and top-p, different for every sequence.

The order is that of the logits processors of `transformers`: penalty, temperature, top-p. A
sequence's token follows from its own logits and its own random number alone, whatever the others
in the batch are.
"""

from collections.abc import Sequence

import torch

from lima_ray.config.sections import Sampling
from lima_ray.engine.requests import Logprob

HEAD = 256
"""Likeliest tokens looked at first: sorting the whole vocabulary is slow and rarely needed."""


def sample(
    logits_BV: torch.Tensor,
    penalised: Sequence[list[int]],
    samplings: Sequence[Sampling],
    uniforms: Sequence[float],
) -> list[int]:
    """Return the next token of each sequence.

    Args:
        logits_BV: the model's logits; in fp32, penalties are written into them.
        penalised: the tokens that each sequence's repetition penalty applies to, each once.
        uniforms: a number in [0, 1) for each sequence; not used at temperature 0.
    """

    def column(values: Sequence[float], dtype: torch.dtype = torch.float) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=logits_BV.device)[:, None]

    logits_BV = logits_BV.float()
    apply_repetition_penalty(logits_BV, penalised, [s.repetition_penalty for s in samplings])
    likeliest_B = logits_BV.argmax(dim=-1)
    if all(s.temperature == 0 for s in samplings):
        return likeliest_B.tolist()
    temperature_B1 = column([s.temperature for s in samplings])
    greedy_B1 = temperature_B1 == 0
    probs_BV = (logits_BV / temperature_B1.masked_fill(greedy_B1, 1)).softmax(dim=-1)
    top_p_B1 = column([s.top_p for s in samplings], torch.double)
    drawn_B = sample_top_p(probs_BV, top_p_B1, column(uniforms, torch.double))
    return torch.where(greedy_B1[:, 0], likeliest_B, drawn_B).tolist()


def apply_repetition_penalty(
    logits_BV: torch.Tensor, penalised: Sequence[list[int]], penalties: Sequence[float]
) -> None:
    """Make tokens less likely, in place: divide positive logits, multiply negative ones."""
    rows = [row for row, ids in enumerate(penalised) if ids and penalties[row] != 1]
    if not rows:
        return
    # Only these logits are touched, since the vocabulary is large and they are few.
    longest = max(len(penalised[row]) for row in rows)
    padded = [
        penalised[row] + penalised[row][-1:] * (longest - len(penalised[row])) for row in rows
    ]
    device = logits_BV.device
    index = torch.tensor(rows, device=device)[:, None], torch.tensor(padded, device=device)
    values_RL = logits_BV[index]
    penalty_R1 = logits_BV.new_tensor([penalties[row] for row in rows])[:, None]
    logits_BV[index] = torch.where(values_RL > 0, values_RL / penalty_R1, values_RL * penalty_R1)


def sample_top_p(
    probs_BV: torch.Tensor,
    top_p_B1: torch.Tensor,
    uniform_B1: torch.Tensor,
    head: int = HEAD,
) -> torch.Tensor:
    """Draw each sequence's token (B) from its nucleus: the likeliest tokens that first reach top_p.

    The tokens lie side by side from the likeliest down, each as wide as its probability, and the
    uniform number, as a share of the nucleus, falls on one of them.
    """
    probs_BK, ids_BK = probs_BV.topk(min(head, probs_BV.shape[1]))
    ends_BK = probs_BK.double().cumsum(dim=-1)
    inside_BK = ends_BK - probs_BK < top_p_B1
    last_B1 = inside_BK.sum(dim=-1, keepdim=True) - 1
    point_B1 = uniform_B1 * ends_BK.gather(1, last_B1)
    place_B1 = torch.minimum((ends_BK <= point_B1).sum(dim=-1, keepdim=True), last_B1)
    drawn_B = ids_BK.gather(1, place_B1)[:, 0]
    wider_B = ends_BK[:, -1] < top_p_B1[:, 0]
    if head < probs_BV.shape[1] and wider_B.any():
        drawn_B[wider_B] = sample_top_p(
            probs_BV[wider_B], top_p_B1[wider_B], uniform_B1[wider_B], probs_BV.shape[1]
        )
    return drawn_B


def token_logprob(logits_V: torch.Tensor, token: int, top: int) -> Logprob:
    """Return the log probabilities of a token and of the `top` likeliest ones."""
    logprobs_V = logits_V.float().log_softmax(-1)
    best = logprobs_V.topk(top)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Logprob(token, float(logprobs_V[token]), tuple(pairs))
