"""Sampling of groups: how many rows each exchange or category gives (LIMA section 2.1).

share_rows({"cooking": 900, "beer": 30}, rows=100, temperature=3, generator=generator)
"""

from collections.abc import Mapping

import numpy as np


def share_rows(
    counts: Mapping[str, int], rows: int, temperature: float, generator: np.random.Generator
) -> dict[str, int]:
    """Share rows over groups by draws, one by one, with p proportional to n ** (1 / temperature).

    A group that has given all it has leaves the draw. LIMA takes a temperature of 3 for exchanges.

    Args:
        counts: n, the candidates of each group.
        rows: to share; where the groups have fewer, all are taken.
        temperature: 1 draws by size, `inf` all groups alike.
        generator: of the draws; the order of `counts` does not matter.

    Returns:
        rows of every group, in the order of names; their sum is the lesser of `rows` and all.
    """
    groups = sorted(counts)
    available = np.array([counts[group] for group in groups], dtype=np.int64)
    if rows >= available.sum():
        return {group: counts[group] for group in groups}
    todo = rows
    taken = np.zeros_like(available)
    weights = available ** (1 / temperature)
    while todo:
        open_weights = np.where(taken < available, weights, 0)
        p = open_weights / open_weights.sum()
        # A draw of a group that is exhausted meanwhile does not count, which is as if it had left.
        for group in generator.choice(len(groups), size=todo, p=p):
            if taken[group] < available[group]:
                taken[group] += 1
                todo -= 1
    return {group: int(count) for group, count in zip(groups, taken, strict=True)}
