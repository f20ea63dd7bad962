"""A part of the report, and how its numbers are written."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lima_ray.judging.report.tables import Cell
from lima_ray.results.page.blocks import Block, Line, Small
from lima_ray.results.statistics.agreement import Agreement
from lima_ray.results.statistics.clustered import Rate

Rows = Sequence[Mapping[str, Cell]]
INTERVALS = (
    "Numbers in brackets are 95 % intervals, clustered by prompt. Numbers in braces are what the "
    "figure would be if all verdicts that were not read counted against it, and for it."
)


@dataclass
class Section:
    blocks: list[Block]
    tables: Mapping[str, Rows] = field(default_factory=dict)
    """Every figure of the section, for a CSV of this name."""
    summary: list[tuple[str, str]] = field(default_factory=list)
    """Name and figure, of what a reader wants first."""


def percent(rate: Rate) -> Line:
    """Write a share in percent with its interval, and its bounds where not all were read."""
    parts = percent_parts(rate)
    return (parts[0], " ", Small(" ".join(parts[1:]))) if len(parts) > 1 else parts[0]


def percent_text(rate: Rate) -> str:
    """Write the same as plain text."""
    return " ".join(percent_parts(rate))


def percent_parts(rate: Rate) -> list[str]:
    """Return a share, its interval and its bounds."""
    if math.isnan(rate.value):
        return ["-"]
    parts = [f"{100 * rate.value:.1f}"]
    if not math.isnan(rate.low):
        parts.append(f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]")
    if rate.n_unreadable + rate.n_unanswered:
        parts.append(f"{{{100 * rate.all_lost:.1f}, {100 * rate.all_won:.1f}}}")
    return parts


def rate_cells(name: str, rate: Rate) -> dict[str, Cell]:
    """Return the columns of a share in a CSV, from 0 to 1."""
    return {
        name: rate.value,
        f"{name}_low": rate.low,
        f"{name}_high": rate.high,
        f"{name}_all_lost": rate.all_lost,
        f"{name}_all_won": rate.all_won,
    }


def count_cells(rate: Rate) -> dict[str, Cell]:
    """Return how many verdicts a share is of."""
    return {
        "read": rate.n_read,
        "unreadable": rate.n_unreadable,
        "unanswered": rate.n_unanswered,
        "prompts": rate.n_prompts,
    }


def counts(rate: Rate) -> tuple[str, str, str]:
    """Write verdicts that were read, prompts, and verdicts that were not read."""
    return f"{rate.n_read:,}", f"{rate.n_prompts:,}", f"{rate.n_unreadable + rate.n_unanswered:,}"


def number(value: float, low: float, high: float, form: str = ".2f") -> Line:
    """Write a value with its interval."""
    if math.isnan(value):
        return "-"
    if math.isnan(low):
        return format(value, form)
    return format(value, form), " ", Small(f"[{low:{form}}, {high:{form}}]")


def agreement_text(found: Agreement, factor: float = 100, form: str = ".1f") -> Line:
    """Write an agreement with its interval."""
    return number(factor * found.value, factor * found.low, factor * found.high, form)


def ends(rate: Rate) -> tuple[float, float]:
    return rate.low, rate.high
