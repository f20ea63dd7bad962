"""What whoever runs a study sees: how far annotators are, how they agree, what more brings."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from rich.console import Console
from rich.table import Table

from lima_ray.config.terminal import printable
from lima_ray.judging.study.store import Assignment
from lima_ray.records.verdict import Verdict
from lima_ray.results.statistics import absolute
from lima_ray.results.statistics.agreement import Agreement
from lima_ray.results.statistics.agreement_table import (
    Annotation,
    agreement_table,
    reliability,
)
from lima_ray.results.statistics.clustered import ClusteredMean, Rate
from lima_ray.results.statistics.power import interval_after, mean_after
from lima_ray.results.statistics.verdict_table import TIE, annotations, comparisons, preference

PEOPLE = "people"
MORE = 20
"""Answers more, of which is told what they would do."""


@dataclass(frozen=True)
class Figure:
    """A result as it stands, and half the width of its interval now and after more answers."""

    of: str
    name: str
    value: float
    low: float
    high: float
    after: float
    """Half the width of the interval after `MORE` more answers."""
    count: int
    percent: bool = True


def print_status(settings: Mapping[str, Any], given: Sequence[Assignment]) -> None:
    """Print how a study stands.

    Args:
        settings: what the study keeps of how it is run.
        given: all assignments, with their records.
    """
    console = Console(highlight=False)
    kind, shared = str(settings["kind"]), int(settings["shared"])
    console.print(f"{printable(' against '.join(settings['systems']))}: {kind}", markup=False)
    console.print(describe_rest(settings, given), markup=False)
    console.print(annotator_table(given, shared))
    verdicts = [
        Verdict.from_json(one.record, f"answer {one.number} of {one.annotator}")
        for one in given
        if one.record is not None
    ]
    if not verdicts:
        console.print("Nobody has answered yet.")
        return
    for name, found in agreements(verdicts):
        console.print(f"{name}: {describe_agreement(found)}", markup=False)
    console.print(figure_table(figures(verdicts, settings["systems"])))


def describe_rest(settings: Mapping[str, Any], given: Sequence[Assignment]) -> str:
    """Return how many of the questions that are shared out have their annotators."""
    counts: dict[str, int] = defaultdict(int)
    for one in given:
        if one.answered and not one.is_check and not one.drawn.shared:
            counts[one.drawn.question] += 1
    per_item = int(settings["per_item"])
    done = sum(count >= per_item for count in counts.values())
    return (
        f"{settings['shared']} questions are shared by all; of the other {settings['rest']}, "
        f"{done} have {per_item} annotator{'s' if per_item > 1 else ''}"
    )


def annotator_table(given: Sequence[Assignment], shared: int) -> Table:
    """Return how far each annotator is; checks are no answers."""
    table = Table(
        "annotator", "answers", "of the shared", "checks failed", "skipped", "seconds", "last",
        box=None,
    )  # fmt: skip
    by_name: dict[str, list[Assignment]] = defaultdict(list)
    for one in given:
        by_name[one.annotator].append(one)
    for name, own in by_name.items():
        answered = [one for one in own if one.answered and not one.is_check]
        checks = [one for one in own if one.answered and one.is_check]
        failed = sum(not one.passed for one in checks)
        records = [one.record for one in answered if one.record]
        seconds = [record["seconds"] for record in records if "seconds" in record]
        last = max((one.at for one in own if one.at), default=None)
        table.add_row(
            printable(name),
            str(len(answered)),
            f"{sum(one.drawn.shared for one in answered)}/{shared}",
            f"{failed}/{len(checks)}",
            str(sum(bool(one.skipped) and not one.answered for one in own)),
            f"{statistics.median(seconds):.0f}" if seconds else "",
            f"{last:%Y-%m-%d %H:%M} UTC" if last else "",
        )
    return table


def agreements(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, Agreement]]:
    """Yield how annotators agree, by what it is called; nothing where no two share a question."""
    kind = verdicts[0].kind
    if kind == "pairwise":
        found = comparisons(verdicts)
        labels = annotations(found, dict.fromkeys((one.annotator for one in found), PEOPLE))
    else:
        labels = [
            Annotation(
                repr((one.id, one.sample, one.turn, one.models)),
                one.annotator,
                PEOPLE,
                cast(str | float, one.verdict),
            )
            for one in verdicts
        ]
    for row in agreement_table(labels, TIE):
        if kind == "pairwise":
            yield "Agreement (a tie against none counts half)", row.tie_discounted
        yield "Equal answers", row.percent
        alpha = reliability(labels, "ordinal" if kind == "grade" else "nominal")
        yield "Krippendorff's alpha", alpha


def describe_agreement(found: Agreement) -> str:
    interval = f" ({found.low:.2f} to {found.high:.2f})" if found.low == found.low else ""
    return f"{found.value:.2f}{interval} on {found.n_items} questions that several answered"


def figures(verdicts: Sequence[Verdict], systems: Sequence[str]) -> Iterator[Figure]:
    """Yield the results as they stand: shares of each verdict, or mean grades."""
    kind = verdicts[0].kind
    if kind == "pairwise":
        found = comparisons(verdicts)
        pairs = dict.fromkeys(tuple(sorted(v.models, key=systems.index)) for v in verdicts)
        for first, second in pairs:
            rates = preference(found, first, second).rates
            yield from (of_rate(f"{first} / {second}", n, r) for n, r in rates.items())
    elif kind == "grade":
        for system, grades in absolute.grades(verdicts).items():
            yield of_mean(system, grades.mean)
    else:
        by_system = absolute.rates(verdicts, cast(Literal["audit", "safety"], kind))
        for system, rates in by_system.items():
            yield from (of_rate(system, name, r) for name, r in rates.items())


def of_rate(of: str, name: str, rate: Rate) -> Figure:
    forecast = interval_after(rate.value * rate.n_prompts, rate.n_prompts, MORE)
    # Several answers to a prompt widen the interval now, and will then.
    after = (rate.high - rate.low) / 2 * forecast.width_after / forecast.width
    return Figure(of, name, rate.value, rate.low, rate.high, after, rate.n_read)


def of_mean(of: str, found: ClusteredMean) -> Figure:
    after = float("nan")
    if found.n_prompts > 1:
        forecast = mean_after(found.mean, found.standard_error, found.n_prompts, MORE)
        after = forecast.width_after / 2
    return Figure(of, "grade", found.mean, found.low, found.high, after, found.n, percent=False)


def figure_table(found: Iterator[Figure]) -> Table:
    """Return results with their 95 % intervals, and what more answers would make of those."""
    table = Table(
        "", "", "now", "95 % interval", "+-", f"+- after {MORE} more", "answers", box=None
    )
    for one in found:
        scale, decimals, unit = (100, 0, " %") if one.percent else (1, 2, "")
        ends = [f"{scale * end:.{decimals}f}" for end in (one.low, one.high)]
        halves = [f"{scale * half:.{decimals + 1}f}" for half in (half_width(one), one.after)]
        known = one.low == one.low
        table.add_row(
            printable(one.of),
            one.name,
            f"{scale * one.value:.{decimals}f}{unit}",
            " to ".join(ends) if known else "",
            *(halves if known else ("", "")),
            str(one.count),
        )
    return table


def half_width(figure: Figure) -> float:
    return (figure.high - figure.low) / 2
