"""How much every training row has to do with a reply, by text and by gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lima_ray.attribution.cache import load_or_compute, pack_rows
from lima_ray.attribution.gradients import RowGradients
from lima_ray.curation.selection.embedding import embed
from lima_ray.data.rows import Rows
from lima_ray.records.example import Example
from lima_ray.records.reply import Reply


def score_by_text(replies: list[Reply], examples: list[Example]) -> np.ndarray:
    """Return cosines of static embeddings of what is replied, (Q, R); prompts do not count.

    On the miniature that finds more planted rows than words do, and than with the prompts.
    """
    rows_RD = embed(["\n".join(example.turns[1::2]) for example in examples])
    return embed([reply.reply for reply in replies]) @ rows_RD.T


def score_by_gradient(
    model: Any,
    replies: Rows,
    numbers: np.ndarray,
    rows: Rows,
    file: Path,
    values: int,
    budget: int,
    advance: Callable[[int, int], None],
) -> np.ndarray:
    """Return the mean over layers of the cosine of some replies' gradients with each row's, (Q, R).

    First order, as TracIn (Pruthi et al. 2020) and LESS (Xia et al. 2024): a step on a row whose
    gradient has the reply's direction makes the reply likelier.

    Args:
        model: as `load_packed` returns it.
        numbers: of the Q replies to score.
        file: where the rows' gradients stand, or will.
        values: of a projected gradient.
        budget: tokens of one forward and backward pass.
        advance: called with the number of rows done, and of replies done since the last call.
    """
    place = {int(number): place for place, number in enumerate(numbers)}
    scores_QR = np.empty((len(numbers), len(rows)), dtype=np.float32)
    with RowGradients(model, values) as gradients:
        rows_RV = load_or_compute(gradients, rows, file, budget, lambda done: advance(done, 0))
        for batch in pack_rows(replies, numbers, budget):
            found_BV = gradients.compute(batch, replies)
            scores_QR[[place[number] for number in batch]] = found_BV @ rows_RV.T
            advance(len(rows), len(batch))
    return scores_QR
