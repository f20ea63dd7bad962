"""Logits to tokens: repetition penalty, temperature and nucleus, different for every row.

The order is that of `transformers`: penalty, temperature, top-p. A row's token follows from the row
and its number alone, whatever the other rows are.
"""

from collections.abc import Sequence

import torch

from lima_ray.config import Sampling

HEAD = 256
"""Likeliest tokens looked at first: sorting the whole vocabulary is slow and rarely needed."""


def choose(
    logits_BV: torch.Tensor,
    struck: Sequence[list[int]],
    samplings: Sequence[Sampling],
    uniforms: Sequence[float],
) -> list[int]:
    """Choose each row's next token.

    Args:
        logits_BV: what the model says; penalties are written into it.
        struck: the tokens of each row that its penalty strikes, each once.
        samplings: how each row is decoded.
        uniforms: a number in [0, 1) for each row; rows of temperature 0 do not use theirs.
    """

    def column(values: Sequence[float], dtype: torch.dtype = torch.float) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=logits_BV.device)[:, None]

    logits_BV = logits_BV.float()
    penalise(logits_BV, struck, [s.repetition_penalty for s in samplings])
    likeliest_B = logits_BV.argmax(dim=-1)
    if all(s.temperature == 0 for s in samplings):
        return likeliest_B.tolist()
    temperature_B1 = column([s.temperature for s in samplings])
    greedy_B1 = temperature_B1 == 0
    chances_BV = (logits_BV / temperature_B1.masked_fill(greedy_B1, 1)).softmax(dim=-1)
    top_p_B1 = column([s.top_p for s in samplings], torch.double)
    drawn_B = draw(chances_BV, top_p_B1, column(uniforms, torch.double))
    return torch.where(greedy_B1[:, 0], likeliest_B, drawn_B).tolist()


def penalise(
    logits_BV: torch.Tensor, struck: Sequence[list[int]], penalties: Sequence[float]
) -> None:
    """Make struck tokens less likely: positive logits are divided, negative ones multiplied.

    Only these are touched, since the vocabulary is large and they are few.
    """
    rows = [row for row, ids in enumerate(struck) if ids and penalties[row] != 1]
    if not rows:
        return
    longest = max(len(struck[row]) for row in rows)
    filled = [struck[row] + struck[row][-1:] * (longest - len(struck[row])) for row in rows]
    device = logits_BV.device
    places = torch.tensor(rows, device=device)[:, None], torch.tensor(filled, device=device)
    values_RL = logits_BV[places]
    penalty_R1 = logits_BV.new_tensor([penalties[row] for row in rows])[:, None]
    logits_BV[places] = torch.where(values_RL > 0, values_RL / penalty_R1, values_RL * penalty_R1)


def draw(
    chances_BV: torch.Tensor,
    top_p_B1: torch.Tensor,
    uniform_B1: torch.Tensor,
    head: int = HEAD,
) -> torch.Tensor:
    """Draw each row's token (B) from its nucleus: the likeliest whose chances first reach top_p.

    The tokens lie side by side from the likeliest down, each as wide as its chance, and the number,
    as a share of the nucleus, falls on one of them.
    """
    chances_BK, ids_BK = chances_BV.topk(min(head, chances_BV.shape[1]))
    ends_BK = chances_BK.double().cumsum(dim=-1)
    inside_BK = ends_BK - chances_BK < top_p_B1
    last_B1 = inside_BK.sum(dim=-1, keepdim=True) - 1
    point_B1 = uniform_B1 * ends_BK.gather(1, last_B1)
    place_B1 = torch.minimum((ends_BK <= point_B1).sum(dim=-1, keepdim=True), last_B1)
    drawn_B = ids_BK.gather(1, place_B1)[:, 0]
    wider_B = ends_BK[:, -1] < top_p_B1[:, 0]
    if head < chances_BV.shape[1] and wider_B.any():
        drawn_B[wider_B] = draw(
            chances_BV[wider_B], top_p_B1[wider_B], uniform_B1[wider_B], chances_BV.shape[1]
        )
    return drawn_B
