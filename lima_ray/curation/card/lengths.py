"""Lengths of prompts and replies in words, characters and, with a tokenizer, tokens."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from lima_ray.curation.candidate import Candidate

CountTokens = Callable[[str], int]
BINS_PER_DECADE, DECADES = 8, 6
EDGES = (
    0,
    *sorted({math.ceil(10 ** (k / BINS_PER_DECADE)) for k in range(BINS_PER_DECADE * DECADES + 1)}),
)
"""Of histograms: whole numbers, equally wide on a logarithmic axis from 10 on."""


def count_words(text: str) -> int:
    """Return the number of words: what white space separates."""
    return len(text.split())


def units(count_tokens: CountTokens | None) -> dict[str, CountTokens]:
    """Return what lengths are counted in."""
    counted: dict[str, CountTokens] = {"words": count_words, "characters": len}
    return counted | ({"tokens": count_tokens} if count_tokens else {})


def measure(
    candidates: Iterable[Candidate], count_tokens: CountTokens | None = None
) -> dict[str, Any]:
    """Return statistics of prompts and replies: `prompts.words.mean`, `replies.characters.p95`.

    Every turn of the user is a prompt and every turn of the assistant a reply.

    Args:
        candidates: the rows.
        count_tokens: of a text; without it there are no tokens.
    """
    rows = list(candidates)
    sides = {
        "prompts": [turn for row in rows for turn in row.turns[0::2]],
        "replies": [turn for row in rows for turn in row.turns[1::2]],
    }
    return {
        side: {
            unit: describe([count(turn) for turn in turns])
            for unit, count in units(count_tokens).items()
        }
        for side, turns in sides.items()
    }


def describe(lengths: Sequence[int]) -> dict[str, Any]:
    """Return count, total, mean, median, percentiles and a histogram; null where there is none.

    Bin i of the histogram holds lengths from edge i on and below edge i + 1.
    """
    if not lengths:
        empty = dict.fromkeys(("mean", "median", "p5", "p95", "longest"))
        return {"count": 0, "total": 0, **empty, "histogram": {"edges": [], "counts": []}}
    lengths_T = np.asarray(lengths)
    p5, median, p95 = (round(float(p), 1) for p in np.percentile(lengths_T, (5, 50, 95)))
    counts, _ = np.histogram(np.minimum(lengths_T, EDGES[-1] - 1), EDGES)
    last = int(np.flatnonzero(counts)[-1]) + 1
    return {
        "count": len(lengths),
        "total": int(lengths_T.sum()),
        "mean": round(float(lengths_T.mean()), 1),
        "median": median,
        "p5": p5,
        "p95": p95,
        "longest": int(lengths_T.max()),
        "histogram": {"edges": list(EDGES[: last + 1]), "counts": counts[:last].tolist()},
    }
