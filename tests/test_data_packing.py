"""The plan of an epoch, over many random data sets, budgets and numbers of workers."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from lima_ray.data.packing import MicroBatch, Step, plan_epoch, steps_per_epoch


@dataclass(frozen=True)
class PlanCase:
    """Random lengths and settings."""

    lengths: np.ndarray
    seed: int
    epoch: int
    workers: int
    batch: int
    budget: int

    def plan(self, **changes: int) -> list[Step]:
        """This case's epoch, or a neighbour's."""
        of = {"seed": self.seed, "epoch": self.epoch, "workers": self.workers}
        of |= {"batch_examples": self.batch, "tokens_per_micro_batch": self.budget}
        return plan_epoch(self.lengths, **(of | changes))

    def tokens(self, batch: MicroBatch) -> int:
        return int(self.lengths[list(batch)].sum())


def case(seed: int) -> PlanCase:
    """The case of a seed: fewer or more rows than a batch, short or long, tight or wide budgets."""
    generator = np.random.default_rng(seed)
    rows, batch = (int(n) for n in generator.integers(1, [120, 33]))
    longest = int(generator.integers(2, 300))
    lengths = generator.integers(1, longest + 1, rows)
    if generator.random() < 0.2:
        lengths[:] = longest
    return PlanCase(
        lengths,
        seed=int(generator.integers(9)),
        epoch=int(generator.integers(20)),
        workers=int(generator.integers(1, 9)),
        batch=batch,
        budget=longest + int(generator.integers(0, 4)) * int(generator.integers(1, longest + 1)),
    )


CASES = [case(seed) for seed in range(300)]
ENOUGH_ROWS = [c for c in CASES if len(c.lengths) >= c.batch]


def test_cases_are_of_every_kind() -> None:
    assert len(ENOUGH_ROWS) > 100
    assert len(CASES) - len(ENOUGH_ROWS) > 20
    assert any(c.batch < c.workers for c in CASES)
    assert any(len(c.lengths) % c.batch == 0 for c in ENOUGH_ROWS)
    assert any(c.budget == c.lengths.max() for c in CASES)
    assert any(not batch for c in CASES for s in c.plan() for r in s.ranks for batch in r)


def test_every_step_has_exactly_batch_examples() -> None:
    for c in CASES:
        plan = c.plan()
        assert len(plan) == steps_per_epoch(len(c.lengths), c.batch)
        assert {len(step.rows) for step in plan} == {c.batch}


def test_every_row_is_seen_in_every_epoch() -> None:
    for c in CASES:
        seen = Counter(row for step in c.plan() for row in step.rows)
        assert set(seen) == set(range(len(c.lengths)))
        assert max(seen.values()) - min(seen.values()) <= 1


def test_no_row_is_twice_in_a_step() -> None:
    for c in ENOUGH_ROWS:
        assert all(len(set(step.rows)) == c.batch for step in c.plan())


def test_rows_of_a_step_depend_on_neither_workers_nor_budget() -> None:
    for c in CASES:
        rows = [step.rows for step in c.plan()]
        for changes in (
            {"workers": 1},
            {"workers": c.workers + 3},
            {"tokens_per_micro_batch": 999},
        ):
            assert [step.rows for step in c.plan(**changes)] == rows


def test_no_micro_batch_is_over_the_budget() -> None:
    for c in CASES:
        for step in c.plan():
            assert all(c.tokens(batch) <= c.budget for rank in step.ranks for batch in rank)


def test_every_worker_has_equally_many_micro_batches() -> None:
    for c in CASES:
        for step in c.plan():
            assert len(step.ranks) == c.workers
            assert len({len(rank) for rank in step.ranks}) == 1


def test_one_micro_batch_a_worker_where_the_budget_allows() -> None:
    for c in CASES:
        for step in c.plan(tokens_per_micro_batch=int(c.lengths.max()) * c.batch):
            assert {len(rank) for rank in step.ranks} == {1}


@pytest.mark.parametrize("workers", [2, 8, 16])
def test_workers_have_nearly_equally_many_tokens(workers: int) -> None:
    lengths = np.random.default_rng(0).lognormal(5.5, 0.8, 1000).clip(20, 2048).astype(int)
    c = PlanCase(lengths, seed=0, epoch=0, workers=workers, batch=64, budget=4096)
    spreads = []
    for step in c.plan():
        tokens = [sum(c.tokens(batch) for batch in rank) for rank in step.ranks]
        least = max(np.mean(tokens), lengths[step.rows].max())
        spreads.append(max(tokens) / least)
    assert np.mean(spreads) < 1.03
    assert max(spreads) < 1.1


def test_micro_batches_computed_together_are_the_nearest_in_length() -> None:
    for c in CASES:
        for step in c.plan():
            loads = [[c.tokens(batch) for batch in rank] for rank in step.ranks]
            longest_first = sorted(np.ravel(loads), reverse=True)
            waited_for = sum(max(together) for together in zip(*loads, strict=True))
            assert waited_for == sum(longest_first[:: c.workers])


def test_the_longest_micro_batches_are_dealt_in_turn() -> None:
    c = PlanCase(np.array([40, 30, 20, 10]), seed=0, epoch=0, workers=2, batch=4, budget=40)
    (step,) = c.plan()
    assert [sum(c.tokens(batch) for batch in rank) for rank in step.ranks] == [50, 50]


def test_micro_batches_are_well_filled() -> None:
    lengths = np.random.default_rng(2).integers(20, 500, 1000)
    c = PlanCase(lengths, seed=0, epoch=0, workers=2, batch=64, budget=2048)
    filled = [c.tokens(b) for step in c.plan() for rank in step.ranks for b in rank]
    assert np.mean(filled) > 0.7 * c.budget


def test_the_plan_is_a_function_of_its_arguments() -> None:
    for c in CASES[:50]:
        assert c.plan() == c.plan()


def test_other_epochs_and_seeds_have_other_orders() -> None:
    c = PlanCase(np.arange(1, 101), seed=0, epoch=0, workers=2, batch=10, budget=200)
    orders = [
        [step.rows for step in c.plan(seed=seed, epoch=epoch)]
        for seed in range(3)
        for epoch in range(3)
    ]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])


def test_the_last_batch_is_filled_with_rows_of_the_others() -> None:
    fills = []
    for epoch in range(20):
        c = PlanCase(np.full(20, 5), seed=0, epoch=epoch, workers=1, batch=8, budget=40)
        first, second, last = (set(step.rows) for step in c.plan())
        assert not first & second
        fill = last & (first | second)
        assert len(fill) == 4
        fills.append(frozenset(fill))
    assert len(set(fills)) > 15


def test_a_batch_of_more_examples_than_rows_repeats_them_evenly() -> None:
    (step,) = plan_epoch(
        np.array([3, 1, 2]),
        seed=0,
        epoch=0,
        workers=2,
        batch_examples=8,
        tokens_per_micro_batch=4,
    )
    assert sorted(Counter(step.rows).values()) == [2, 3, 3]


def test_an_empty_micro_batch_keeps_workers_in_step() -> None:
    c = PlanCase(np.full(5, 10), seed=0, epoch=0, workers=2, batch=5, budget=15)
    (step,) = c.plan()
    sizes = [[len(batch) for batch in rank] for rank in step.ranks]
    assert sorted(map(sorted, sizes)) == [[0, 1, 1], [1, 1, 1]]


def test_more_workers_than_examples_leave_some_idle() -> None:
    c = PlanCase(np.full(3, 10), seed=0, epoch=0, workers=5, batch=3, budget=10)
    (step,) = c.plan()
    assert sorted(len(batch) for rank in step.ranks for batch in rank) == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("rows", "batch", "steps"), [(1000, 32, 32), (1024, 32, 32), (1025, 32, 33), (1, 32, 1)]
)
def test_steps_of_an_epoch(rows: int, batch: int, steps: int) -> None:
    assert steps_per_epoch(rows, batch) == steps
    plan = plan_epoch(
        np.ones(rows, int),
        seed=0,
        epoch=0,
        workers=1,
        batch_examples=batch,
        tokens_per_micro_batch=64,
    )
    assert len(plan) == steps
