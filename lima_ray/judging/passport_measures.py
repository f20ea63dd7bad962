"""The measures of a passport, from a judge's verdicts on pairs in both orders, beside people's."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lima_ray.config.errors import UserError, join_names
from lima_ray.judging.asking.judges import EndpointJudge
from lima_ray.judging.asking.verdict_journal import other_replies
from lima_ray.judging.passport import Passport
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.verdicts import latest
from lima_ray.records.verdict import Verdict, read_verdicts
from lima_ray.results.statistics.agreement_table import agreement_table
from lima_ray.results.statistics.bradley_terry import Coefficient
from lima_ray.results.statistics.clustered import ClusteredMean, Rate, clustered_mean, rate
from lima_ray.results.statistics.length import length_slope
from lima_ray.results.statistics.preference import POINTS
from lima_ray.results.statistics.verdict_table import (
    TIE,
    Comparison,
    annotations,
    comparisons,
    orders,
    slots,
)

PEOPLE = "people"
"""The group of all people in the agreement table."""


def read_people(files: Sequence[Path]) -> list[Verdict]:
    """Read people's verdicts; refuse a file that is not there."""
    for file in files:
        if not file.is_file():
            raise UserError(f"no verdicts of people at {file}")
    return [verdict for file in files for verdict in read_verdicts(file)]


def check_comparable(
    people: Sequence[Verdict],
    items: Sequence[Item],
    judges: Sequence[EndpointJudge],
    families: Sequence[str],
) -> None:
    """Refuse, before a judge is asked, what could not be compared with it."""
    pairs = {(item.id, frozenset(item.models), item.sample, item.turn) for item in items}
    theirs = [v for v in people if v.kind == "pairwise"]
    if people and not any((v.id, frozenset(v.models), v.sample, v.turn) in pairs for v in theirs):
        told = f"; the first is on prompt {people[0].id}, of {join_names([*people[0].models])}"
        raise UserError(f"people's verdicts are about none of these pairs{told}")
    if told := other_replies(theirs, items):
        raise UserError(f"people judged other replies of {told}; give those that they saw")
    read_families(families, {name for item in items for name in item.models})
    if families and not any(judge.family for judge in judges):
        raise UserError("--families needs judges of a family: MODEL@URL,family=FAMILY")


def measure(
    verdicts: Iterable[Verdict],
    people: Sequence[Verdict],
    judges: Sequence[EndpointJudge],
    families: Sequence[str] = (),
) -> list[Passport]:
    """Return a passport of each judge that gave pairwise verdicts.

    Args:
        verdicts: of judges, pairs in both orders.
        people: people's verdicts on the same pairs.
        judges: who says of what family it is.
        families: `NAME=FAMILY` of judged models.

    Raises:
        UserError: a family of no model.
    """
    by_judge: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in latest(verdicts):
        if verdict.kind == "pairwise" and verdict.extra.get("annotator_kind") != "person":
            by_judge[verdict.annotator].append(verdict)
    theirs = comparisons(latest(v for v in people if v.kind == "pairwise"))
    models = {name for found in by_judge.values() for v in found for name in v.models}
    family_of = read_families(families, models)
    own = {judge.annotator.name: judge.family for judge in judges if judge.family}
    return [
        _passport(name, found, theirs, _relatives(own.get(name, ""), family_of))
        for name, found in by_judge.items()
    ]


def read_families(families: Sequence[str], models: Collection[str]) -> dict[str, str]:
    """Return the family of each model named by `NAME=FAMILY`; refuse unknown models."""
    found = {}
    for text in families:
        name, equals, family = text.partition("=")
        if not (equals and name in models and family):
            raise UserError(
                f"--families {text!r} is not NAME=FAMILY of one of {', '.join(sorted(models))}"
            )
        found[name] = family
    return found


def _relatives(family: str, family_of: Mapping[str, str]) -> set[str]:
    return {name for name, own in family_of.items() if family and own == family}


def _passport(
    name: str, verdicts: Sequence[Verdict], people: Sequence[Comparison], relatives: set[str]
) -> Passport:
    found = comparisons(verdicts)
    statuses, picks = Counter(one.status for one in verdicts), slots(found)
    lengths = _lengths(verdicts)
    slope, longer = _length_preference(found, lengths)
    judged = {one.pair for one in found}
    shared = [one for one in people if one.pair in judged]
    prompts = [one.id for one in verdicts]
    rows = agreement_table(
        annotations([*found, *shared], {one.annotator: PEOPLE for one in shared}), TIE
    )
    by_groups = {tuple(sorted(row.groups)): row for row in rows}
    return Passport(
        judge=name,
        snapshots=sorted({v.extra["snapshot"] for v in verdicts if v.extra.get("snapshot")}),
        wordings=sorted({v.extra["wording"] for v in verdicts if v.extra.get("wording")}),
        n_verdicts=statuses.total(),
        n_prompts=len(set(prompts)),
        read=rate([float(one.was_read) for one in verdicts], prompts),
        consistency=orders(found).consistency,
        first_slot=picks.win,
        first_slot_margin=picks.margin,
        length_slope=slope,
        longer_preferred=longer,
        people_longer_preferred=_length_preference(shared, lengths)[1] if shared else None,
        contradictions=sum("contradicts" in one.extra for one in verdicts),
        agreement=by_groups.get(tuple(sorted((name, PEOPLE)))),
        people_agreement=by_groups.get((PEOPLE, PEOPLE)),
        family_gap=_family_gap(found, shared, relatives),
    )


def _lengths(verdicts: Iterable[Verdict]) -> dict[tuple[str, object, object, object], float]:
    """Return the characters of each judged reply, by model, prompt, sample and turn."""
    return {
        (model, one.id, one.sample, one.turn): length
        for one in verdicts
        for model, length in zip(one.models, one.extra.get("lengths", []), strict=False)
    }


def _length_preference(
    found: Sequence[Comparison], lengths: Mapping[Any, float]
) -> tuple[Coefficient, Rate]:
    """Return how preference follows length, and how often the longer reply wins.

    The slope is of all verdicts that were read, the share of those that decide between replies of
    unequal length.
    """
    points, first, second, prompts = [], [], [], []
    for one in found:
        places = [(name, one.prompt, one.sample, one.turn) for name in (one.first, one.second)]
        if one.outcome in POINTS and all(place in lengths for place in places):
            points.append(POINTS[one.outcome])
            first.append(lengths[places[0]])
            second.append(lengths[places[1]])
            prompts.append(one.prompt)
    rows = zip(points, first, second, prompts, strict=True)
    decided = [(p > 0.5, a > b, prompt) for p, a, b, prompt in rows if p != 0.5 and a != b]
    longer = rate([float(won == more) for won, more, _ in decided], [row[2] for row in decided])
    return length_slope(points, first, second, prompts), longer


def _family_gap(
    found: Sequence[Comparison], people: Sequence[Comparison], relatives: set[str]
) -> ClusteredMean | None:
    """Return how much more a judge gives its relatives against others than people do."""
    theirs: dict[object, list[float]] = defaultdict(list)
    for one in people:
        if one.outcome in POINTS:
            theirs[one.pair].append(POINTS[one.outcome])
    gaps, prompts = [], []
    for one in found:
        related = one.first in relatives, one.second in relatives
        if related[0] == related[1] or one.outcome not in POINTS or one.pair not in theirs:
            continue
        gap = POINTS[one.outcome] - sum(theirs[one.pair]) / len(theirs[one.pair])
        gaps.append(gap if related[0] else -gap)
        prompts.append(one.prompt)
    return clustered_mean(gaps, prompts) if gaps else None
