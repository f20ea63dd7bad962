"""Selectors: which of the candidates are taken, and how far the choices agree.

ids = select_rows(rows, 200, "spread", generator, read_texts, grades=None)
print(render_overlap({"spread": ids, "random": others}))
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lima_ray.config.errors import UserError
from lima_ray.curation.recipe import Selector
from lima_ray.curation.selection.embedding import Embedder, embed, to_unit_length

EMBEDDED_AT_MOST = 50_000
"""Candidates that `spread` looks at; their vectors take 51 MB."""
TEXTS_AT_ONCE = 1000
STEPS = 4000
"""Of a unit vector's length, to which its numbers are rounded. Products of such vectors are whole
numbers under 2 ** 24, which float32 adds without error in any order: every processor chooses the
same rows."""

Texts = Callable[[Sequence[str]], list[str]]
"""Reads the texts of some ids."""


@dataclass(frozen=True)
class Row:
    """What is known of a candidate without its text."""

    id: str
    group: str
    score: float
    reply_chars: int
    place: int = 0
    """Where its text stands among the others'; texts are read in this order."""


def select_rows(
    rows: Sequence[Row],
    count: int,
    selector: Selector,
    generator: np.random.Generator,
    texts: Texts,
    grades: Mapping[str, float] | None,
    embedder: Embedder = embed,
) -> list[str]:
    """Choose rows; their order as given does not matter, and ties are broken by id.

    Args:
        rows: the candidates.
        count: rows to choose; all are taken where there are fewer.
        selector: `score` and `longest` take the highest, `random` any, `spread` those that are far
            from each other, `graded` those of the highest grade, and none without a grade.
        generator: of the draws.
        texts: of the candidates, asked for by `spread` alone, some at a time.
        grades: by id; `graded` needs them.
        embedder: vectors for `spread`, such as a sentence encoder's.

    Returns:
        ids in the order of choice.

    Raises:
        UserError: `graded` without grades, or an embedder that gives no vectors.
    """
    by_score = sorted(rows, key=lambda row: (-row.score, row.id))
    if selector == "score":
        chosen = by_score
    elif selector == "longest":
        chosen = sorted(rows, key=lambda row: (-row.reply_chars, row.id))
    elif selector == "random":
        by_id = sorted(rows, key=lambda row: row.id)
        chosen = [by_id[number] for number in generator.permutation(len(by_id))]
    elif selector == "spread":
        return choose_spread(by_score, count, generator, texts, embedder)
    else:
        if grades is None:
            raise UserError("choose graded needs grades of the candidates, and there are none")
        graded = [row for row in rows if row.id in grades]
        chosen = sorted(graded, key=lambda row: (-grades[row.id], row.id))
    return [row.id for row in chosen[:count]]


def choose_spread(
    rows: Sequence[Row],
    count: int,
    generator: np.random.Generator,
    texts: Texts,
    embedder: Embedder,
) -> list[str]:
    """Choose the first row, and then again and again the one least similar to all chosen ones.

    This greedy k-center choice covers the candidates within twice the least possible radius
    (Gonzalez, 1985), so it takes outliers early. Of more than 50,000 candidates, that many are
    drawn first and the others are not looked at.

    Args:
        rows: in the order in which ties are broken.
    """
    if len(rows) > (most := max(EMBEDDED_AT_MOST, count)):
        print(f"spread: looks at {most:,} of the {len(rows):,} candidates, drawn at random")
        drawn = generator.choice(len(rows), size=most, replace=False, shuffle=False)
        rows = [rows[number] for number in sorted(drawn)]
    order_N = sorted(range(len(rows)), key=lambda number: rows[number].place)
    embedded_ND = embed_rows([rows[number].id for number in order_N], texts, embedder)
    vectors_ND = np.empty_like(embedded_ND)
    vectors_ND[order_N] = embedded_ND
    similarity_N = np.full(len(rows), -np.inf, dtype=np.float32)  # to the nearest chosen row
    chosen: list[int] = []
    for _ in range(min(count, len(rows))):
        number = int(similarity_N.argmin())
        chosen.append(number)
        np.maximum(similarity_N, vectors_ND @ vectors_ND[number], out=similarity_N)
        similarity_N[number] = np.inf
    return [rows[number].id for number in chosen]


def embed_rows(ids: Sequence[str], texts: Texts, embedder: Embedder) -> np.ndarray:
    """Return unit vectors of candidates in whole steps, (N, D); texts are in memory some at a time.

    Raises:
        UserError: the embedder gives something else than a vector of numbers for each text.
    """
    parts = [np.zeros((0, 1), dtype=np.float32)] if not ids else []
    for start in range(0, len(ids), TEXTS_AT_ONCE):
        batch = texts(ids[start : start + TEXTS_AT_ONCE])
        given = embedder(batch)
        try:
            vectors = np.asarray(given, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise UserError(f"the embedder gave no array of numbers: {error}") from error
        if vectors.ndim != 2 or len(vectors) != len(batch) or not np.isfinite(vectors).all():
            raise UserError(
                f"the embedder gave an array of shape {vectors.shape} for {len(batch)} texts; it "
                f"must give finite numbers of shape ({len(batch)}, D)"
            )
        parts.append(np.rint(to_unit_length(vectors) * STEPS))
    return np.concatenate(parts)


@dataclass(frozen=True)
class Overlap:
    """How far two choices agree."""

    first: str
    second: str
    common: int
    """Ids in both."""
    jaccard: float
    """Their share of the ids in either."""


def overlap_table(choices: Mapping[str, Sequence[str]]) -> list[Overlap]:
    """Return the overlap of each pair of choices.

    Args:
        choices: ids by the selector that chose them.
    """
    table = []
    for first, second in combinations(choices, 2):
        one, other = set(choices[first]), set(choices[second])
        common, either = len(one & other), len(one | other)
        table.append(Overlap(first, second, common, common / either if either else 0.0))
    return table


def render_overlap(choices: Mapping[str, Sequence[str]]) -> str:
    """Return the overlaps as a Markdown table: common ids and, in brackets, their Jaccard share."""
    pairs = {frozenset((o.first, o.second)): o for o in overlap_table(choices)}
    lines = [f"| | {' | '.join(choices)} |", f"|---|{'---:|' * len(choices)}"]
    for name in choices:
        cells = []
        for other in choices:
            pair = pairs.get(frozenset((name, other)))
            cells.append(f"{pair.common} ({pair.jaccard:.2f})" if pair else f"{len(choices[name])}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
