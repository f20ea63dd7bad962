"""The plan of an epoch: which examples each worker packs together, for every optimizer step.

A pure function of the rows' lengths, the seed, the epoch and the number of workers. Every step has
exactly `batch_examples` examples whatever the number of workers; a micro-batch holds at most
`tokens_per_micro_batch` tokens without padding; all workers have equally many of them (collectives
of ZeRO 3 would hang otherwise) and nearly equally long ones.
"""

from dataclasses import dataclass

import numpy as np

MicroBatch = tuple[int, ...]
"""Row numbers packed into one forward pass; empty where a worker has none while others do."""


@dataclass(frozen=True)
class Step:
    """One optimizer step: `ranks[r][m]` is the m-th micro-batch of worker r."""

    ranks: tuple[tuple[MicroBatch, ...], ...]

    @property
    def rows(self) -> list[int]:
        """Every row of the step, sorted, with repeats."""
        return sorted(row for rank in self.ranks for batch in rank for row in batch)


def steps_per_epoch(rows: int, batch_examples: int) -> int:
    """Return the optimizer steps of an epoch: 32 for 1,000 rows and batch 32 (LIMA section 3)."""
    return -(-rows // batch_examples)


def plan_epoch(
    lengths_R: np.ndarray,
    *,
    seed: int,
    epoch: int,
    workers: int,
    batch_examples: int,
    tokens_per_micro_batch: int,
) -> list[Step]:
    """Plan every step of one epoch.

    Args:
        lengths_R: tokens of each row; none may exceed `tokens_per_micro_batch`.
        epoch: epoch, counted from 0.
    """
    order = epoch_order(len(lengths_R), seed, epoch, batch_examples)
    batches = order.reshape(-1, batch_examples)
    return [pack(rows, lengths_R[rows], workers, tokens_per_micro_batch) for rows in batches]


def epoch_order(rows: int, seed: int, epoch: int, batch_examples: int) -> np.ndarray:
    """Return a random order of all rows, filled up to whole batches from further random orders.

    The rows that fill the last batch are seen twice in this epoch; they differ from epoch to epoch.
    """
    generator = np.random.default_rng([seed, epoch])
    needed = steps_per_epoch(rows, batch_examples) * batch_examples
    orders = [generator.permutation(rows)]
    tail = orders[0][rows // batch_examples * batch_examples :]
    missing = needed - rows
    if missing and rows >= batch_examples:
        fresh = generator.permutation(np.setdiff1d(np.arange(rows), tail))
        orders.append(fresh[:missing])
    while sum(map(len, orders)) < needed:
        orders.append(generator.permutation(rows))
    return np.concatenate(orders)[:needed]


def pack(rows: np.ndarray, lengths: np.ndarray, workers: int, budget: int) -> Step:
    """Pack one step's rows into the fewest micro-batches that hold them, balanced over workers.

    Longest row first, each into the lightest micro-batch so far; one more micro-batch a worker
    while any is over the budget.
    """
    if lengths.max() > budget:
        raise ValueError(f"a row of {lengths.max()} tokens fits no micro-batch of {budget}")
    longest_first = np.argsort(-lengths, kind="stable")
    per_worker = max(1, -(-int(lengths.sum()) // (workers * budget)))
    while True:
        bins: list[list[int]] = [[] for _ in range(per_worker * workers)]
        loads = np.zeros(len(bins), dtype=np.int64)
        for i in longest_first:
            lightest = int(loads.argmin())
            bins[lightest].append(int(rows[i]))
            loads[lightest] += int(lengths[i])
        if loads.max() <= budget:
            break
        per_worker += 1
    by_load = np.argsort(-loads, kind="stable")
    ranks: list[list[MicroBatch]] = [[] for _ in range(workers)]
    for m in range(per_worker):
        together = by_load[m * workers : (m + 1) * workers]
        for rank, b in enumerate(together if m % 2 == 0 else together[::-1]):
            ranks[rank].append(tuple(bins[b]))
    return Step(tuple(tuple(rank) for rank in ranks))
