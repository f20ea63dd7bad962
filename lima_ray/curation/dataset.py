"""A dataset from candidates: repeats and leaks go, rows are drawn, and all of it is written down.

data/NAME/
  train.jsonl        the rows, in LIMA's form (or dev.jsonl, test.jsonl)
  dropped.parquet    every other row of the dumps, with its reason
  data_card.json     numbers, funnel, recipe; card.md and card.html to read
  ATTRIBUTION.md     author, address and licence of each row
  work/              what the passes over the dumps found; a rerun goes on with it
  review/            what people decided
"""

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from lima_ray.config.errors import UserError
from lima_ray.curation.candidate import Candidate, Part, Table
from lima_ray.curation.funnel import Funnel, count_funnel
from lima_ray.curation.recipe import Curation, Reddit, SourceSection
from lima_ray.curation.selection.decontamination import PromptIndex
from lima_ray.curation.selection.dedup import Deduplicator
from lima_ray.curation.selection.embedding import Embedder, embed
from lima_ray.curation.selection.sampling import share_rows
from lima_ray.curation.selection.selectors import Row, select_rows
from lima_ray.data.examples import read_examples

LATER = ("duplicate", "near_duplicate", "contaminated", "review", "not_chosen")
"""Reasons after the sources' own filters, in order."""
DROPPED = pa.schema(
    {"source": pa.string(), "id": pa.string(), "reason": pa.string(), "detail": pa.string()}
)


@dataclass
class SourcePool:
    """One source's candidates that are neither repeats nor leaks."""

    name: str
    section: SourceSection
    parts: Sequence[Part]
    rows: list[Row] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Part and row of each candidate."""
    later: list[tuple[str, str, str]] = field(default_factory=list)
    """Id, reason and detail of each candidate that is a repeat or a leak; ids may repeat."""
    unchosen: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Reason and detail of each row that is not chosen, by id."""
    embedder: Embedder = embed
    """Of texts, for the selector `spread`."""

    def read(self, ids: Sequence[str]) -> list[Candidate]:
        """Return candidates by id, in the order that is asked for."""
        by_part: dict[int, list[str]] = {}
        for id in ids:
            by_part.setdefault(self.places[id][0], []).append(id)
        found = {}
        for number, those in by_part.items():
            table = self.parts[number].take([self.places[id][1] for id in those])
            found |= {row["id"]: Candidate.from_row(row) for row in table.to_pylist()}
        return [found[id] for id in ids]

    def texts(self, ids: Sequence[str]) -> list[str]:
        """Return the texts of candidates."""
        return [candidate.text for candidate in self.read(ids)]


def gather(
    curation: Curation,
    parts: Mapping[str, Sequence[Part]],
    prompts: PromptIndex,
    embedder: Embedder = embed,
) -> list[SourcePool]:
    """Return every source's candidates without repeats and leaks, with the reasons of the others.

    Of rows alike the first stays, in the order of the sources and of their dumps.
    """
    seen = Deduplicator(curation.near_duplicates)
    pools = []
    for name, section in curation.sources.items():
        pool = SourcePool(name, section, parts[name], embedder=embedder)
        for number, part in enumerate(pool.parts):
            for row, candidate in enumerate(part.candidates()):
                # A leak first: a row that repeats a prompt must not hide a later one.
                leak = prompts.find(candidate.text)
                earlier = None if leak else seen.earlier(candidate.id, candidate.text)
                if leak:
                    detail = f"repeats {leak[0]}: {leak[1]}"
                    pool.later.append((candidate.id, "contaminated", detail))
                elif earlier:
                    pool.later.append((candidate.id, earlier[0], f"of {earlier[1]}"))
                else:
                    pool.places[candidate.id] = number, row
                    known = candidate.id, candidate.group, candidate.score, candidate.reply_chars
                    pool.rows.append(Row(*known, place=len(pool.rows)))
        pools.append(pool)
    return pools


def index_prompts(curation: Curation) -> PromptIndex:
    """Return the prompts that no row may repeat.

    Raises:
        UserError: a file of them that cannot be read.
    """
    return PromptIndex(read_prompts(curation), curation.overlap)


def read_prompts(curation: Curation) -> Iterator[tuple[str, str]]:
    """Yield id and text of every prompt that no row may repeat, those of later turns too."""
    paths = [Path(curation.inputs) / reference for reference in curation.decontaminate]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise UserError(
            f"{' and '.join(missing)}: no such file, and no row may repeat its prompts; put it "
            "there, or name other files by `decontaminate` ([] for none)"
        )
    for path in paths:
        for example in read_examples(str(path), "test", dialogues=False):
            later = example.extra.get("follow_ups", [])
            for text in (example.prompt, *(later if isinstance(later, list) else [])):
                yield f"{path.name}/{example.id}", str(text)


def choose(
    curation: Curation,
    pool: SourcePool,
    refused: frozenset[str] = frozenset(),
    grades: Mapping[str, float] | None = None,
) -> list[str]:
    """Return the ids of the rows that a source gives, group by group in order of choice.

    Args:
        curation: the recipe.
        pool: the source's candidates.
        refused: ids that people dropped; the next of the same group takes their place.
        grades: of candidates by a model, for the selector `graded`.
    """
    section = pool.section
    seed = [curation.seed, zlib.crc32(pool.name.encode())]
    generator = np.random.default_rng(seed)
    groups: dict[str, list[Row]] = {}
    for row in pool.rows:
        groups.setdefault(row.group, []).append(row)
    wanted = len(pool.rows) if section.rows is None else section.rows
    shares = share_rows(
        {name: len(rows) for name, rows in groups.items()},
        wanted,
        section.temperature,
        generator,
    )
    dropped = {name: sum(row.id in refused for row in rows) for name, rows in groups.items()}
    left = {name: len(groups[name]) - dropped[name] for name in groups}
    given = {name: min(count, left[name]) for name, count in shares.items()}
    # What a group has too few for once people have dropped some, the others give; drawn apart, so
    # that the draws of all others stay.
    more = share_rows(
        {name: left[name] - given[name] for name in groups},
        sum(shares.values()) - sum(given.values()),
        section.temperature,
        np.random.default_rng([*seed, 1]),
    )
    chosen: list[str] = []
    for name, count in given.items():
        count += more[name]
        asked = count + dropped[name]
        ranked = select_rows(
            groups[name], asked, section.choose, generator, pool.texts, grades, pool.embedder
        )
        chosen += [id for id in ranked if id not in refused][:count]
    return chosen


def check_enough(
    curation: Curation, funnels: Sequence[Funnel], chosen: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return a line for each source that has fewer rows than are asked for, or none at all."""
    lines = []
    for funnel in funnels:
        section, count = curation.sources[funnel.source], len(chosen[funnel.source])
        if count >= (section.rows or 1):
            continue
        asked = ""
        if section.rows:
            asked = f", {section.rows - count:,} fewer than the {section.rows:,} asked for"
        what = f" of r/{section.subreddit}" if isinstance(section, Reddit) else ""
        took = f"; the dump holds none{what}"
        if funnel.seen:
            takers = [f"{name} took {n:,}" for name, n in funnel.dropped.items() if n]
            took = f"; of {funnel.seen:,}, {', '.join(takers)}" if takers else "; there are no more"
        lines.append(f"{funnel.source}: {count:,} rows{asked}{took}")
    return lines


def funnels_of(
    pools: Sequence[SourcePool],
    filters: Mapping[str, Sequence[str]],
    chosen: Mapping[str, Sequence[str]],
    refused: Mapping[str, str],
) -> list[Funnel]:
    """Return every source's funnel, and note the reason of each candidate that is not chosen.

    Args:
        pools: of the sources.
        filters: names of each source's own, in order.
        chosen: ids of each source's rows.
        refused: ids that people dropped, with who did.
    """
    funnels = []
    for pool in pools:
        taken = set(chosen[pool.name])
        pool.unchosen = {
            row.id: ("review", refused[row.id]) if row.id in refused else ("not_chosen", "")
            for row in pool.rows
            if row.id not in taken
        }
        counts = Counter(reason for _, reason, _ in pool.later)
        counts.update(reason for reason, _ in pool.unchosen.values())
        later = {reason: counts[reason] for reason in LATER}
        funnels.append(count_funnel(pool.name, filters[pool.name], pool.parts, later, len(taken)))
    return funnels


def write_dropped(pools: Sequence[SourcePool], path: Path) -> None:
    """Write the reason of every row that is not in the dataset, streaming."""
    partial = path.with_name(f".{path.name}.partial")
    table = Table(partial, DROPPED)
    try:
        for pool in pools:
            for part in pool.parts:
                for batch in part.batches("dropped"):
                    names = pa.repeat(pool.name, batch.num_rows)
                    rows = pa.Table.from_batches([batch])
                    table.extend(rows.add_column(0, DROPPED.field("source"), names))
            unchosen = ((id, *said) for id, said in pool.unchosen.items())
            for id, reason, detail in chain(pool.later, unchosen):
                table.add({"source": pool.name, "id": id, "reason": reason, "detail": detail})
        table.close()
        partial.replace(path)
    finally:
        table.abandon()
        partial.unlink(missing_ok=True)


def edited(candidates: Sequence[Candidate], turns: Mapping[str, Sequence[str]]) -> list[Candidate]:
    """Return candidates with the turns that people gave them.

    Raises:
        UserError: a dialogue that would end with the user, or a prompt that would get a reply.
    """
    for row in candidates:
        if (given := turns.get(row.id)) and len(given) % 2 != len(row.turns) % 2:
            raise UserError(
                f"{row.id} was edited to {len(given)} turns, and has {len(row.turns)}; a dialogue "
                "ends with the assistant, a prompt alone with the user: edit it again, or undo it"
            )
    return [replace(c, turns=tuple(turns[c.id])) if c.id in turns else c for c in candidates]


def check_unique_ids(pools: Sequence[SourcePool]) -> None:
    """Refuse two rows of one id, which a reason or a decision could not tell apart.

    Raises:
        UserError: the id.
    """
    seen: dict[str, str] = {}
    for pool in pools:
        for row in pool.rows:
            if row.id in seen:
                if seen[row.id] == pool.name:
                    raise UserError(
                        f"{pool.name} has two different rows with the id {row.id}; ids must differ"
                    )
                raise UserError(
                    f"{row.id} is a row of {seen[row.id]} and of {pool.name}: two sources read the "
                    "same rows; give each its own sites, files or `only`, and rows of one's own in "
                    "files of the same name an `id`"
                )
            seen[row.id] = pool.name
