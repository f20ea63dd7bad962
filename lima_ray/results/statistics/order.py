"""Whether a judge's verdict depends on which reply it is shown first.

    both_orders(["lima", "tie"], ["lima", "bard"], prompts).consistency
    first_slot(["win", "tie"], prompts).win     # a win is one of the reply shown first

Three figures are kept apart (Auto-J, Li et al. 2023, arXiv:2310.05470): how often both orders give
one verdict, how often that one verdict is right, and how often a single order is right.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from lima_ray.results.statistics.clustered import Rate, rate
from lima_ray.results.statistics.preference import Preference, win_tie_lose


@dataclass(frozen=True)
class BothOrders:
    consistency: Rate
    """Both orders give the same verdict, right or wrong."""
    consistent_and_right: Rate | None
    """Both orders give the right verdict; none where what is right is not known."""
    single_order: Rate | None
    """The verdict in the given order is right."""
    exchanged_order: Rate | None
    """The verdict in the exchanged order is right."""


def both_orders(
    given: Sequence[str | None],
    exchanged: Sequence[str | None],
    prompts: Sequence[Hashable],
    right: Sequence[str] | None = None,
) -> BothOrders:
    """Return how verdicts in the two orders of the same pairs compare.

    A pair of which one order was not read is left out of the rates over both, and counts in their
    bounds; in a single order's rate it counts where that order was read.

    Args:
        given: the verdict on each pair in one order, by the preferred system's name or the tie's;
            None was not read, whether unreadable or unanswered.
        exchanged: the verdict on the same pairs with places exchanged, named in the same way.
        prompts: the prompt of each pair.
        right: people's verdict on each pair, named in the same way.
    """
    same = [a == b if a and b else None for a, b in zip(given, exchanged, strict=True)]
    consistency = _share(same, prompts)
    if right is None:
        return BothOrders(consistency, None, None, None)
    truth = list(zip(given, exchanged, right, same, strict=True))
    return BothOrders(
        consistency=consistency,
        consistent_and_right=_share(
            [s and a == r if s is not None else None for a, _, r, s in truth], prompts
        ),
        single_order=_share([a == r if a else None for a, _, r, _ in truth], prompts),
        exchanged_order=_share([b == r if b else None for _, b, r, _ in truth], prompts),
    )


def first_slot(picks: Sequence[str], prompts: Sequence[Hashable]) -> Preference:
    """Return how often the reply shown first is picked: the cheapest test of an order bias.

    Where every pair was shown in both orders, an unbiased judge's `margin` is 0 however unlike the
    systems are; `margin.p` tests that.

    Args:
        picks: `win` where the reply shown first is preferred, `lose` where the second is.
        prompts: the prompt of each.
    """
    return win_tie_lose(picks, prompts)


def _share(true: Sequence[bool | None], prompts: Sequence[Hashable]) -> Rate:
    """Return the share of true among what was read; None was not read."""
    read = [(float(t), p) for t, p in zip(true, prompts, strict=True) if t is not None]
    return rate([t for t, _ in read], [p for _, p in read], len(true) - len(read))
