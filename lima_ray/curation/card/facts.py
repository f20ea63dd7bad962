"""What is counted of a dataset, as data_card.json holds it; the dataset can be made again from it.

name, seed, recipe_digest, recipe    the recipe is whole; as a file it makes the dataset again
rows_file   name, bytes, sha256 of the rows
rows        count, dialogues, prompts_alone, and words, characters, tokens of all turns
table_1     the paper's table beside this dataset's
lengths     statistics of prompts and replies of all rows
sources     for each: kind, wanted and chosen rows, groups, lengths, dates, licences, funnel
dates, licences    of all rows
made        how it was made, as the caller says
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lima_ray.curation.candidate import Candidate
from lima_ray.curation.card.lengths import CountTokens, measure, units
from lima_ray.curation.card.licences import whole_licence
from lima_ray.curation.card.paper_table import compare_with_paper
from lima_ray.curation.funnel import Funnel
from lima_ray.curation.recipe import BEFORE_CHATGPT, Curation
from lima_ray.results.published.lima import TRAINING_TOKENS

COUNTING = (
    "Words are what white space separates. Each turn of the user is a prompt, each turn of the "
    "assistant a reply."
)


def collect_facts(
    curation: Curation,
    funnels: Sequence[Funnel],
    chosen: Mapping[str, Sequence[Candidate]],
    rows_file: Path,
    made: Mapping[str, Any],
    count_tokens: CountTokens | None = None,
) -> dict[str, Any]:
    """Return the facts of a dataset, as JSON.

    Args:
        curation: the recipe.
        funnels: one for each source, in the recipe's order.
        chosen: rows by the name of their source in the recipe, in order.
        rows_file: the dataset as JSONL.
        made: how it was made.
        count_tokens: of a text; without it words are counted.

    Raises:
        ValueError: recipe, funnels, rows and file do not belong together.
    """
    check_consistent(curation, funnels, chosen, rows_file)
    # The same texts are counted as rows, by source and in the table.
    count_tokens = cache(count_tokens) if count_tokens else None
    rows = [candidate for candidates in chosen.values() for candidate in candidates]
    return {
        "name": curation.name,
        "rows": count_rows(rows, count_tokens),
        "rows_file": describe_file(rows_file),
        "table_1": compare_with_paper(curation, chosen, count_tokens),
        "table_1_unit": "tokens" if count_tokens else "words",
        "paper_tokens": TRAINING_TOKENS,
        "counting": COUNTING,
        "lengths": measure(rows, count_tokens),
        "dates": describe_dates(rows),
        "licences": describe_licences(rows),
        "sources": {
            funnel.source: describe_source(
                curation, funnel, chosen.get(funnel.source, ()), count_tokens
            )
            for funnel in funnels
        },
        "seed": curation.seed,
        "recipe_digest": curation.digest(),
        # By way of JSON text, where an infinite temperature is the string that a recipe takes.
        "recipe": json.loads(curation.model_dump_json()),
        "made": dict(made),
    }


def check_consistent(
    curation: Curation,
    funnels: Sequence[Funnel],
    chosen: Mapping[str, Sequence[Candidate]],
    rows_file: Path,
) -> None:
    """Refuse facts that contradict each other.

    Raises:
        ValueError: with what differs.
    """
    if [f.source for f in funnels] != list(curation.sources):
        raise ValueError(
            f"funnels of {[f.source for f in funnels]}; the recipe has {list(curation.sources)}"
        )
    if unknown := chosen.keys() - curation.sources.keys():
        raise ValueError(f"rows of {sorted(unknown)}, which the recipe does not have")
    for funnel in funnels:
        count = len(chosen.get(funnel.source, ()))
        if funnel.chosen != count:
            raise ValueError(f"{funnel.source}: {count} rows; its funnel ends with {funnel.chosen}")
    with rows_file.open("rb") as file:
        lines = sum(1 for line in file if line.strip())
    if lines != (total := sum(map(len, chosen.values()))):
        raise ValueError(f"{rows_file} has {lines} rows; {total} are chosen")


def count_rows(rows: Sequence[Candidate], count_tokens: CountTokens | None) -> dict[str, int]:
    """Return how many rows, dialogues of several exchanges, prompts alone, and what they hold."""
    totals = {
        unit: sum(count(turn) for row in rows for turn in row.turns)
        for unit, count in units(count_tokens).items()
    }
    return {
        "count": len(rows),
        "dialogues": sum(len(row.turns) > 2 for row in rows),
        "prompts_alone": sum(len(row.turns) == 1 for row in rows),
    } | totals


def describe_file(file: Path) -> dict[str, Any]:
    """Return a file's name, size and SHA-256."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"name": file.name, "bytes": file.stat().st_size, "sha256": digest}


def describe_source(
    curation: Curation,
    funnel: Funnel,
    rows: Sequence[Candidate],
    count_tokens: CountTokens | None,
) -> dict[str, Any]:
    """Return the facts of one source."""
    section = curation.sources[funnel.source]
    return {
        "kind": section.kind,
        "wanted": section.rows,
        "chosen": len(rows),
        "groups": counted(row.group for row in rows),
        "lengths": measure(rows, count_tokens),
        "dates": describe_dates(rows),
        "licences": counted(row.licence for row in rows),
        "funnel": {
            "seen": funnel.seen,
            "steps": [
                {"filter": name, "dropped": dropped, "left": left}
                for name, dropped, left in funnel.steps()
            ],
            "chosen": funnel.chosen,
        },
        "notes": dict(funnel.notes),
        "damage": list(funnel.damage),
    }


def counted(values: Iterable[str]) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first."""
    return dict(Counter(values).most_common())


def describe_dates(rows: Sequence[Candidate]) -> dict[str, Any]:
    """Return the first and last day, and the rows since ChatGPT and without a date."""
    days = sorted(row.created[:10] for row in rows if row.created)
    later = sum(day >= BEFORE_CHATGPT.isoformat() for day in days)
    missing = len(rows) - len(days)
    return {
        "first": days[0] if days else None,
        "last": days[-1] if days else None,
        "later_from": BEFORE_CHATGPT.isoformat(),
        "later": later,
        "later_share": share(later, len(rows)),
        "without_date": missing,
        "without_date_share": share(missing, len(rows)),
    }


def describe_licences(rows: Sequence[Candidate]) -> dict[str, Any]:
    """Return what rows say of their licence, and what holds for the dataset as a whole."""
    whole = whole_licence(row.licence for row in rows)
    return {
        "rows": counted(row.licence for row in rows),
        "whole": whole.name or None,
        "conflicts": list(whole.conflicts),
    }


def share(part: int, of: int) -> float | None:
    """Return a part of a number of rows; null where there are none."""
    return round(part / of, 4) if of else None
