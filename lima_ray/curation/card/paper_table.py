"""The paper's table of its training data beside the same table of a dataset (LIMA table 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lima_ray.curation.candidate import Candidate
from lima_ray.curation.card.lengths import CountTokens, measure
from lima_ray.curation.recipe import Curation, Reddit, SourceSection, StackExchange
from lima_ray.curation.sources.sites import site_sets


@dataclass(frozen=True)
class PaperRow:
    """One source of the paper's training data."""

    rows: int
    prompt_tokens: int | None = None
    """Mean."""
    reply_tokens: int | None = None


STEM, OTHER = "Stack Exchange (STEM)", "Stack Exchange (other)"
NO_SET = "Stack Exchange (site in neither set)"
WIKIHOW, STORIES = "wikiHow", "Pushshift r/WritingPrompts"
INSTRUCTIONS, AUTHORED = "Super-NaturalInstructions", "authored, group A"
PAPER = {
    STEM: PaperRow(200, 117, 523),
    OTHER: PaperRow(200, 119, 530),
    WIKIHOW: PaperRow(200, 12, 1811),
    STORIES: PaperRow(150, 34, 274),
    INSTRUCTIONS: PaperRow(50, 236, 92),
    AUTHORED: PaperRow(200, 40, 334),
}
PAPER_TOTAL = PaperRow(1000)
PAPER_TOKENS = 750_000
"""Of the paper's training data in all, about."""
RELEASED = {
    "stackexchange": NO_SET,
    "wikihow": WIKIHOW,
    "writingprompts": STORIES,
    "nlp": INSTRUCTIONS,
    "authors": AUTHORED,
}
"""By the `source` of rows in the released file, which does not say a row's site."""


def row_of_table(section: SourceSection, candidate: Candidate) -> str:
    """Return the row of the table that a candidate counts in."""
    if isinstance(section, StackExchange):
        sets = site_sets()
        if candidate.group in sets["stem"] or section.sites == "stem":
            return STEM
        return OTHER if candidate.group in sets["other"] or section.sites == "other" else NO_SET
    if isinstance(section, Reddit):
        is_paper = section.take == "stories" and section.subreddit.lower() == "writingprompts"
        return STORIES if is_paper else f"Pushshift r/{section.subreddit}"
    by_kind = {"wikihow": WIKIHOW, "natural_instructions": INSTRUCTIONS}
    kind = getattr(section, "kind", "")
    return by_kind.get(kind) or RELEASED.get(candidate.source, candidate.source or "no source")


def compare_with_paper(
    curation: Curation,
    chosen: Mapping[str, Sequence[Candidate]],
    count_tokens: CountTokens | None = None,
) -> list[dict[str, Any]]:
    """Return the table: the paper's rows first, then what it does not have, then the total.

    Returns:
        rows of `source`, `rows`, `prompt` and `reply` (means, in tokens where these are counted,
        else in words; null where there is none) and `paper`, of which all may be null.
    """
    table: dict[str, list[Candidate]] = {name: [] for name in PAPER}
    for name, candidates in chosen.items():
        for candidate in candidates:
            place = row_of_table(curation.sources[name], candidate)
            table.setdefault(place, []).append(candidate)
    everything = [candidate for rows in table.values() for candidate in rows]
    described = [describe_row(n, rows, PAPER.get(n), count_tokens) for n, rows in table.items()]
    return [*described, describe_row("all", everything, PAPER_TOTAL, count_tokens)]


def describe_row(
    source: str,
    candidates: Sequence[Candidate],
    paper: PaperRow | None,
    count_tokens: CountTokens | None,
) -> dict[str, Any]:
    """Return one row of the table."""
    unit = "tokens" if count_tokens else "words"
    lengths = measure(candidates, count_tokens)
    return {
        "source": source,
        "rows": len(candidates),
        "prompt": lengths["prompts"][unit]["mean"],
        "reply": lengths["replies"][unit]["mean"],
        "paper": {
            "rows": paper.rows if paper else None,
            "prompt_tokens": paper.prompt_tokens if paper else None,
            "reply_tokens": paper.reply_tokens if paper else None,
        },
    }
