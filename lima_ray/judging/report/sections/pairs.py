"""What each judge says of each two systems, and what that is once corrected by people."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lima_ray.judging.report.loading import PEOPLE, StudyVerdicts
from lima_ray.records.verdict import Verdict
from lima_ray.results.statistics.calibration import Corrected, corrected_shares
from lima_ray.results.statistics.preference import POINTS, Preference
from lima_ray.results.statistics.verdict_table import Comparison, comparisons, preference
from lima_ray.results.units import counted

Pair = tuple[str, str]


@dataclass(frozen=True)
class PairByJudge:
    """What one judge says of one pair, from the side of the first."""

    pair: Pair
    judge: str
    found: Preference
    corrected: dict[str, Corrected] | None
    """Of a model, where people judged some of the same; by outcome."""
    calibration: str
    """Which items it is corrected by."""


def compare_pairs(study: StudyVerdicts) -> list[PairByJudge]:
    """Return every pair by every judge that judged it, pair by pair."""
    by_judge = {name: oriented(study, found) for name, found in study.by_judge.items()}
    every = [one for found in by_judge.values() for one in found]
    place = {name: number for number, name in enumerate(study.systems)}
    pairs = {(one.first, one.second) for one in every}
    rows = []
    for pair in sorted(pairs, key=lambda pair: [place[name] for name in pair]):
        for judge, found in by_judge.items():
            if not any((one.first, one.second) == pair for one in found):
                continue
            corrected, basis = None, ""
            if judge in study.models:
                corrected, basis = correct(found, by_judge.get(PEOPLE, []), pair)
            seen = preference(found, *pair)
            rows.append(PairByJudge(pair, judge, seen, corrected, basis))
    return rows


def oriented(study: StudyVerdicts, verdicts: Sequence[Verdict]) -> list[Comparison]:
    """Return pairwise verdicts from the side of the system that is reported first."""
    place = {name: number for number, name in enumerate(study.systems)}
    return [
        one.seen_from(min(one.first, one.second, key=place.__getitem__))
        for one in comparisons(verdicts)
    ]


def correct(
    judge: Sequence[Comparison], people: Sequence[Comparison], pair: Pair
) -> tuple[dict[str, Corrected] | None, str]:
    """Return a judge's shares of a pair corrected by people's verdicts on the same replies.

    The pair's own items count where they hold all outcomes; else those of all pairs do, as LIMA's
    50 shared items are spread over five. None where people judged nothing that the judge did.
    """
    of_pair = [one for one in judge if (one.first, one.second) == pair and one.outcome in POINTS]
    theirs: dict[object, list[str]] = defaultdict(list)
    for one in people:
        if one.outcome in POINTS:
            theirs[one.pair].append(one.outcome)
    both = [one for one in judge if one.outcome in POINTS and one.pair in theirs]
    own = [one for one in both if (one.first, one.second) == pair]
    found = None, ""
    for items, basis in ((own, "of this pair"), (both, "of all pairs")):
        if not items:
            continue
        labels = [(one.outcome, true, one.prompt) for one in items for true in theirs[one.pair]]
        said, true, prompts = zip(*labels, strict=True)
        shares = corrected_shares(
            [one.outcome for one in of_pair], [one.prompt for one in of_pair], true, said, prompts
        )
        number = len({one.pair for one in items})
        found = shares, f"{counted(number, 'item')} {basis} that people judged too"
        if not shares["win"].problem:
            break
    return found
