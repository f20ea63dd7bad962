"""What verdicts say, as lines for a terminal: rates with intervals, bounds, and what is no verdict.

print("\\n".join(summarise(verdicts)))
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from lima_ray.judging.questions.verdicts import latest
from lima_ray.records.verdict import Verdict
from lima_ray.results.statistics.absolute import grades, rates
from lima_ray.results.statistics.clustered import Rate
from lima_ray.results.statistics.verdict_table import comparisons, orders, preference, slots
from lima_ray.results.units import counted


def summarise(verdicts: Iterable[Verdict]) -> list[str]:
    """Return lines about the verdicts of each judge; an answer that was changed counts once."""
    by_judge: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in number_votes(latest(verdicts)):
        by_judge[verdict.annotator, protocol_of(verdict)].append(verdict)
    names = Counter((name, found[0].kind) for (name, _), found in by_judge.items())
    lines = []
    for (name, how), found in by_judge.items():
        # Asked in other words or under another sampling, it is another judge.
        told = f" (protocol {how})" if names[name, found[0].kind] > 1 else ""
        lines += [f"{name}{told}: {counted(len(found), 'verdict')}", *map(_indent, _summary(found))]
    return lines


def protocol_of(verdict: Verdict) -> str:
    """Return what tells verdicts of one judge apart that do not belong together."""
    return str(verdict.extra.get("protocol") or verdict.extra.get("wording") or "")


def number_votes(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    """Yield verdicts, those without a sample numbered: who asks the same again votes again."""
    seen: Counter[object] = Counter()
    for verdict in verdicts:
        if verdict.sample is None:
            about = verdict.kind, verdict.annotator, verdict.id, verdict.models, verdict.order
            yield replace(verdict, sample=seen[about])
            seen[about] += 1
        else:
            yield verdict


def _summary(verdicts: Sequence[Verdict]) -> list[str]:
    """Return lines about one judge's verdicts."""
    lines = _pairwise(verdicts)
    for model, found in grades(verdicts).items():
        low, high = found.mean.low, found.mean.high
        bounds = f", {found.all_lowest:.2f} to {found.all_highest:.2f} with all that were not read"
        unread = found.n_unreadable + found.n_unanswered
        lines.append(
            f"{model}: grade {_interval(found.mean.mean, low, high, '.2f')}"
            + (bounds if unread else "")
        )
    for kind in ("audit", "safety", "thumbs"):
        for model, shares in rates(verdicts, kind).items():
            told = ", ".join(f"{label} {_percent(rate)}" for label, rate in shares.items())
            lines.append(f"{model}: {told}")
    return [*lines, *_unread(verdicts), *_warnings(verdicts)]


def _pairwise(verdicts: Sequence[Verdict]) -> list[str]:
    found, lines = comparisons(verdicts), []
    pairs = dict.fromkeys(v.models for v in verdicts if v.kind == "pairwise")
    for first, second in {frozenset(pair): pair for pair in pairs}.values():
        rates_ = preference(found, first, second).rates
        told = ", ".join(f"{label} {_percent(rate)}" for label, rate in rates_.items())
        lines.append(f"{first} against {second}: {told}")
    if not math.isnan((both := orders(found).consistency).value):
        lines.append(f"both orders give the same verdict {_percent(both)}")
        lines.append(f"the reply shown first is preferred {_percent(slots(found).win)}")
    return lines


def _unread(verdicts: Sequence[Verdict]) -> list[str]:
    """Return how many verdicts were not read, of each model that they are about."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for verdict in verdicts:
        for model in verdict.models:
            counts[model][verdict.status] += 1
    return [
        f"{model}: {many['unreadable']} unreadable and {many['unanswered']} unanswered of "
        f"{counted(many.total(), 'verdict')}, neither a tie nor a grade"
        for model, many in counts.items()
        if many["unreadable"] or many["unanswered"]
    ]


def _warnings(verdicts: Sequence[Verdict]) -> list[str]:
    lines = []
    contradicting = sum("contradicts" in verdict.extra for verdict in verdicts)
    if contradicting:
        lines.append(
            f"{counted(contradicting, 'verdict')} of {len(verdicts)} contradict the last sentence "
            "of their reasoning"
        )
    snapshots = Counter(v.extra["snapshot"] for v in verdicts if v.extra.get("snapshot"))
    if len(snapshots) > 1:
        told = ", ".join(f"{count} by {name}" for name, count in snapshots.most_common())
        lines.append(f"warning: the judge changed within this study: {told}")
    return lines


def _percent(rate: Rate) -> str:
    """Write a share with its interval, and the bounds that unread verdicts leave."""
    said = _interval(100 * rate.value, 100 * rate.low, 100 * rate.high, ".1f") + " %"
    if not rate.n_unreadable + rate.n_unanswered:
        return said
    return f"{said} ({100 * rate.all_lost:.1f} to {100 * rate.all_won:.1f} with all not read)"


def _interval(value: float, low: float, high: float, form: str) -> str:
    if math.isnan(value):
        return "-"
    if math.isnan(low):
        return format(value, form)
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _indent(line: str) -> str:
    return f"  {line}"
