"""Verdicts of `records` as what the statistics take; what is no verdict stays apart everywhere.

    found = comparisons(read_verdicts(file))
    preference(found, "lima", "alpaca").win.value
    strengths(found).systems, orders(found).consistency.value

A comparison is a pairwise verdict from the side of one of its two systems.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lima_ray.config.errors import UserError, join_names
from lima_ray.records.verdict import Verdict
from lima_ray.results.statistics.agreement_table import Annotation
from lima_ray.results.statistics.bradley_terry import (
    Comparisons,
    Strengths,
    bradley_terry,
    per_judge,
)
from lima_ray.results.statistics.order import BothOrders, both_orders, first_slot
from lima_ray.results.statistics.preference import (
    POINTS,
    Outcome,
    Preference,
    flip,
    prompt_means,
    win_tie_lose,
)

TIE = "neither"
SLOTS: dict[str, Outcome] = {"A": "win", "B": "lose", TIE: "tie"}
"""Pairwise verdicts, from the side of the reply shown as A."""


@dataclass(frozen=True)
class Comparison:
    prompt: str
    first: str
    """The system from whose side the outcome is; of a list all the same way, by name."""
    second: str
    outcome: Outcome
    first_shown: bool
    """Whether `first` was shown as A."""
    annotator: str
    sample: int | None
    turn: int | None

    @property
    def pair(self) -> tuple[object, ...]:
        """What was compared, in whichever order, by whichever judge."""
        return self.prompt, self.first, self.second, self.sample, self.turn

    @property
    def preferred(self) -> str | None:
        """The preferred system, or the tie; None where no verdict was read."""
        return {"win": self.first, "lose": self.second, "tie": TIE}.get(self.outcome)

    @property
    def slot(self) -> Outcome:
        """The outcome from the side of the reply shown as A."""
        return self.outcome if self.first_shown else flip(self.outcome)

    def seen_from(self, system: str) -> "Comparison":
        """Return the same from the side of one of its systems."""
        if system == self.first:
            return self
        return replace(
            self,
            first=self.second,
            second=self.first,
            outcome=flip(self.outcome),
            first_shown=not self.first_shown,
        )


def comparisons(verdicts: Iterable[Verdict]) -> list[Comparison]:
    """Return the pairwise verdicts, each from the side of its alphabetically first system.

    Raises:
        UserError: a verdict names no two systems, no order or no known outcome, or is given twice.
    """
    found, seen = [], set()
    for verdict in verdicts:
        if verdict.kind == "pairwise":
            one = _comparison(verdict)
            key = (one.pair, one.annotator, one.first_shown, verdict.key)
            if key in seen:
                raise UserError(
                    f"{one.annotator} judges prompt {one.prompt}, {one.first} against {one.second}"
                    " in the same order twice; keep one of the two verdicts"
                )
            seen.add(key)
            found.append(one)
    return found


def preference(found: Sequence[Comparison], system: str, other: str) -> Preference:
    """Return how often a system is preferred to another, over all judges and orders of `found`."""
    both = {system, other}
    rows = [one.seen_from(system) for one in found if {one.first, one.second} == both]
    if not rows:
        raise UserError(f"{system} and {other} are never compared")
    return win_tie_lose([one.outcome for one in rows], [one.prompt for one in rows])


def points_by_prompt(found: Sequence[Comparison], system: str, other: str) -> dict[str, float]:
    """Return a system's mean score against another on each prompt, for `compare_paired`.

    Two systems that both met a third on the same prompts are then compared prompt by prompt.
    """
    both = {system, other}
    rows = [one.seen_from(system) for one in found if {one.first, one.second} == both]
    read = [one for one in rows if one.outcome in POINTS]
    return prompt_means([POINTS[one.outcome] for one in read], [one.prompt for one in read])


def points_in_both_orders(verdicts: Iterable[Verdict]) -> dict[tuple[object, ...], float]:
    """Return what the first model of each pair gets, of one judge's verdicts in both orders.

    1 where both orders prefer it, 0 where both prefer the other, and 0.5 for ties and for orders
    that disagree; a pair of which an order was not read is left out.
    """
    points: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for verdict in verdicts:
        one = _comparison(verdict).seen_from(verdict.models[0])
        if one.outcome in POINTS:
            points[one.pair].append(POINTS[one.outcome])
    both = {pair: own for pair, own in points.items() if len(own) == 2}
    return {pair: first if first == second else 0.5 for pair, (first, second) in both.items()}


def strengths(
    found: Sequence[Comparison],
    order: bool = True,
    by_judge: bool = False,
    lengths: Mapping[tuple[object, ...], float] | None = None,
    ridge: float = 0.0,
) -> Strengths:
    """Return the Bradley-Terry strengths of all systems; arguments are those of `compared`."""
    return bradley_terry(compared(found, order, by_judge, lengths), ridge)


def compared(
    found: Sequence[Comparison],
    order: bool = True,
    by_judge: bool = False,
    lengths: Mapping[tuple[object, ...], float] | None = None,
) -> Comparisons:
    """Return the verdicts that were read as what Bradley-Terry strengths are made of.

    Args:
        order: estimate the advantage of being shown first beside them.
        by_judge: give each judge an advantage, a length slope and a readiness to tie of its own.
        lengths: of each `Comparison.pair` the first reply's length less the second's, standardised.
    """
    rows = [one for one in found if one.outcome in POINTS]
    judges = [one.annotator for one in rows]
    columns: dict[str, list[float]] = {}
    if order:
        columns["shown first"] = [1.0 if one.first_shown else -1.0 for one in rows]
    if lengths is not None:
        if lacking := [one for one in rows if one.pair not in lengths]:
            raise UserError(f"prompt {lacking[0].prompt} of a comparison has no lengths")
        columns["length"] = [lengths[one.pair] for one in rows]
    if by_judge:
        columns = {
            name: values
            for shared, column in columns.items()
            for name, values in per_judge(shared, column, judges).items()
        }
    return Comparisons(
        [one.first for one in rows],
        [one.second for one in rows],
        [POINTS[one.outcome] for one in rows],
        [one.prompt for one in rows],
        columns,
        judges=judges if by_judge else None,
    )


def orders(
    found: Sequence[Comparison], people: Mapping[tuple[object, ...], str] | None = None
) -> BothOrders:
    """Return how one judge's verdicts in the two orders compare; pairs shown once are left out.

    Args:
        found: of one judge.
        people: the preferred system, or `neither`, of each `Comparison.pair`; others are left out.
    """
    if len(names := {one.annotator for one in found}) > 1:
        raise UserError(f"orders are compared judge by judge, not of {join_names(sorted(names))}")
    shown: dict[tuple[object, ...], dict[bool, Comparison]] = defaultdict(dict)
    for one in found:
        shown[one.pair][one.first_shown] = one
    pairs = {
        pair: both
        for pair, both in shown.items()
        if len(both) == 2 and (people is None or pair in people)
    }
    return both_orders(
        [both[True].preferred for both in pairs.values()],
        [both[False].preferred for both in pairs.values()],
        [pair[0] for pair in pairs],
        None if people is None else [people[pair] for pair in pairs],
    )


def slots(found: Sequence[Comparison]) -> Preference:
    """Return how often the reply shown as A is picked; of pairs shown in both orders alone.

    Where a pair was shown once, its better reply may have stood first by chance or by design.
    """
    shown: dict[tuple[object, ...], set[bool]] = defaultdict(set)
    for one in found:
        shown[one.annotator, *one.pair].add(one.first_shown)
    rows = [one for one in found if len(shown[one.annotator, *one.pair]) == 2]
    return first_slot([one.slot for one in rows], [one.prompt for one in rows])


def annotations(found: Sequence[Comparison], groups: Mapping[str, str]) -> list[Annotation]:
    """Return what each annotator prefers in each pair, for `agreement_table`.

    Args:
        groups: of annotators by name; others are a group of their own.
    """
    return [
        Annotation(repr(one.pair), one.annotator, groups.get(one.annotator, one.annotator), label)
        for one in found
        if (label := one.preferred) is not None
    ]


def lacking_prompts(found: Sequence[Comparison]) -> dict[str, list[str]]:
    """Return, of each system, the prompts that others are compared on and it is not."""
    prompts: dict[str, set[str]] = defaultdict(set)
    for one in found:
        prompts[one.first].add(one.prompt)
        prompts[one.second].add(one.prompt)
    everything = set().union(*prompts.values())
    return {
        system: sorted(everything - seen) for system, seen in prompts.items() if everything - seen
    }


def _comparison(verdict: Verdict) -> Comparison:
    where = f"verdict of {verdict.annotator} on prompt {verdict.id}"
    if len(set(verdict.models)) != 2 or sorted(verdict.order) != [0, 1]:
        raise UserError(
            f"{where} compares models {list(verdict.models)} in order {list(verdict.order)}; a "
            "pairwise verdict names two models, and the order [0, 1] or [1, 0]"
        )
    a, b = (verdict.models[place] for place in verdict.order)
    outcome: Outcome
    if verdict.status != "read":
        outcome = verdict.status
    elif verdict.verdict in SLOTS:
        outcome = SLOTS[str(verdict.verdict)]
    else:
        raise UserError(f"{where} is {verdict.verdict!r}; it is one of {', '.join(SLOTS)}")
    one = Comparison(
        verdict.id, a, b, outcome, True, verdict.annotator, verdict.sample, verdict.turn
    )
    return one.seen_from(min(a, b))
