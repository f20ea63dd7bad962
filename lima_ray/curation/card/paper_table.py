"""The paper's table of its training data beside the same table of a dataset (LIMA table 1)."""

from collections.abc import Mapping, Sequence
from typing import Any

from lima_ray.curation.candidate import Candidate
from lima_ray.curation.card.lengths import CountTokens, measure
from lima_ray.curation.recipe import Curation, Reddit, SourceSection, StackExchange
from lima_ray.curation.sources.sites import site_sets
from lima_ray.results.published.lima import TABLE_1, TRAINING_ROWS

STEM, OTHER, WIKIHOW, STORIES, INSTRUCTIONS, AUTHORED = TABLE_1
NO_SET = "Stack Exchange (site in neither set)"
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
    table: dict[str, list[Candidate]] = {name: [] for name in TABLE_1}
    for name, candidates in chosen.items():
        for candidate in candidates:
            place = row_of_table(curation.sources[name], candidate)
            table.setdefault(place, []).append(candidate)
    everything = [candidate for rows in table.values() for candidate in rows]
    described = [describe_row(name, rows, count_tokens) for name, rows in table.items()]
    total = describe_row("all", everything, count_tokens)
    return [*described, total | {"paper": paper_figures(TRAINING_ROWS)}]


def describe_row(
    source: str, candidates: Sequence[Candidate], count_tokens: CountTokens | None
) -> dict[str, Any]:
    """Return one row of the table."""
    unit = "tokens" if count_tokens else "words"
    lengths = measure(candidates, count_tokens)
    paper = TABLE_1.get(source)
    return {
        "source": source,
        "rows": len(candidates),
        "prompt": lengths["prompts"][unit]["mean"],
        "reply": lengths["replies"][unit]["mean"],
        "paper": paper_figures(paper.rows, paper.prompt_tokens, paper.reply_tokens)
        if paper
        else paper_figures(None),
    }


def paper_figures(
    rows: int | None, prompt: int | None = None, reply: int | None = None
) -> dict[str, int | None]:
    return {"rows": rows, "prompt_tokens": prompt, "reply_tokens": reply}
