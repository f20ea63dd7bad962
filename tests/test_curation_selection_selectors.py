"""Selectors, and how far their choices agree."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest

from lima_ray.config.errors import UserError
from lima_ray.curation.recipe import Selector
from lima_ray.curation.selection import selectors
from lima_ray.curation.selection.embedding import Embedder
from lima_ray.curation.selection.selectors import (
    Overlap,
    Row,
    overlap_table,
    render_overlap,
    select_rows,
)

ROWS = [
    Row("beer/1", "beer", score=12, reply_chars=1500),
    Row("beer/2", "beer", score=40, reply_chars=1300),
    Row("math/1", "math", score=12, reply_chars=4000),
    Row("math/2", "math", score=7, reply_chars=1300),
]
TEXTS = {
    "beer/1": "How is beer brewed?",
    "beer/2": "How do I brew beer?",
    "math/1": "Prove that there are infinitely many primes",
    "math/2": "Is there a largest prime number?",
}


def read(ids: Sequence[str]) -> list[str]:
    """Return the texts of some rows."""
    return [TEXTS[id] for id in ids]


def select(
    selector: Selector,
    count: int = 4,
    rows: Sequence[Row] = ROWS,
    seed: int = 0,
    grades: dict[str, float] | None = None,
) -> list[str]:
    """Choose rows with a seed."""
    return select_rows(rows, count, selector, np.random.default_rng(seed), read, grades)


def on_a_plane(points: Mapping[str, float]) -> Embedder:
    """Return an embedder that turns a text, which is an id, to its angle in degrees."""

    def embedder(texts: list[str]) -> np.ndarray:
        angles = np.radians([points[text] for text in texts])
        lengths = np.array([[1 + 5 * (text > "b")] for text in texts])  # which do not count
        return lengths * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    return embedder


def spread(points: Mapping[str, float], count: int, first: str = "") -> list[str]:
    """Choose ids that are far from each other by angle; `first` has the highest score."""
    rows = [Row(id, "", float(id == first), 0) for id in points]
    random.Random(1).shuffle(rows)
    generator = np.random.default_rng(0)
    return select_rows(rows, count, "spread", generator, list, None, on_a_plane(points))


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("score", ["beer/2", "beer/1", "math/1", "math/2"]),
        ("longest", ["math/1", "beer/1", "beer/2", "math/2"]),
    ],
)
def test_the_highest_come_first_and_ties_by_id(selector: Selector, expected: list[str]) -> None:
    for rows in (ROWS, ROWS[::-1]):
        assert select(selector, rows=rows) == expected
        assert select(selector, count=2, rows=rows) == expected[:2]
        assert select(selector, count=9, rows=rows) == expected


def test_random_rows_follow_the_seed_and_not_the_order() -> None:
    rows = [Row(f"{number:03}", "", 0, 0) for number in range(200)]
    drawn = select("random", 50, rows)
    assert len(set(drawn)) == 50 and drawn == select("random", 50, rows[::-1])
    assert drawn != select("random", 50, rows, seed=1)
    # Of 50 in 200, 12.5 are expected in any quarter; 5 deviations of the hypergeometric law.
    deviation = math.sqrt(50 * 0.25 * 0.75 * 150 / 199)
    for quarter in range(4):
        inside = sum(int(id) // 50 == quarter for id in drawn)
        assert abs(inside - 12.5) <= 5 * deviation


def test_graded_rows_are_the_highest_and_none_without_a_grade() -> None:
    grades = {"beer/1": 5.0, "math/2": 5.0, "math/1": 6.0, "gone": 6.0}
    assert select("graded", grades=grades) == ["math/1", "beer/1", "math/2"]
    assert select("graded", count=2, grades=grades) == ["math/1", "beer/1"]
    assert select("graded", grades={}) == []
    with pytest.raises(UserError, match="graded needs grades"):
        select("graded")


def test_spread_takes_the_row_farthest_from_all_that_are_chosen() -> None:
    points = {"a": 0, "b": 10, "c": 92, "d": 100, "e": 200}
    assert spread(points, 3, first="b") == ["b", "e", "d"]
    assert spread(points, 5, first="b") == ["b", "e", "d", "a", "c"]
    assert spread({"a": 30, "b": 0, "c": 60}, 2, first="b") == ["b", "c"]
    assert spread({"b": 0, "a": 0, "c": 0}, 3) == ["a", "b", "c"]


def test_spread_covers_within_twice_the_least_radius() -> None:
    draw = random.Random(2)
    points = {
        f"{center}-{n}": center + draw.uniform(-5, 5)
        for center in range(0, 360, 60)
        for n in range(9)
    }
    chosen = spread(points, 6)
    assert {id.split("-")[0] for id in chosen} == {"0", "60", "120", "180", "240", "300"}


def test_spread_takes_each_subject_first() -> None:
    first, second = select("spread", 2)
    assert first == "beer/2" and second.startswith("math/")
    assert select("spread", 2, ROWS[::-1]) == select("spread", 2)
    assert select("spread", 0) == [] and select("spread", 3, []) == []


def test_spread_looks_at_so_many_rows_and_reads_them_in_pieces(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selectors, "EMBEDDED_AT_MOST", 50)
    monkeypatch.setattr(selectors, "TEXTS_AT_ONCE", 20)
    rows = [Row(f"{number:03}", "", 0, 0) for number in range(100)]
    asked: list[int] = []

    def texts(ids: Sequence[str]) -> list[str]:
        asked.append(len(ids))
        return [f"text {id}" for id in ids]

    chosen = select_rows(rows, 10, "spread", np.random.default_rng(0), texts, None)
    assert asked == [20, 20, 10] and len(set(chosen)) == 10
    assert "looks at 50 of the 100 candidates" in capsys.readouterr().out
    again = select_rows(rows[::-1], 10, "spread", np.random.default_rng(0), texts, None)
    assert again == chosen


@pytest.mark.parametrize(
    "vectors",
    [np.zeros(4), np.zeros((3, 2)), np.full((4, 2), np.nan)],
)
def test_an_embedder_that_gives_no_vectors_is_refused(vectors: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"finite numbers of shape \(4, D\)"):
        select_rows(ROWS, 2, "spread", generator, read, None, lambda _: vectors)


@pytest.mark.parametrize("given", [["x"] * 4, [[1.0], [1.0, 2.0], [1.0], [1.0]]])
def test_an_embedder_that_gives_no_numbers_is_refused(given: list[Any]) -> None:
    with pytest.raises(UserError, match="no array of numbers"):
        select_rows(
            ROWS, 2, "spread", np.random.default_rng(0), read, None, cast(Embedder, lambda _: given)
        )


def test_overlaps_are_counted_for_each_pair() -> None:
    choices = {"random": ["a", "b", "c"], "longest": ["c", "d"], "graded": []}
    assert overlap_table(choices) == [
        Overlap("random", "longest", 1, 0.25),
        Overlap("random", "graded", 0, 0.0),
        Overlap("longest", "graded", 0, 0.0),
    ]
    assert overlap_table({"graded": [], "spread": []}) == [Overlap("graded", "spread", 0, 0.0)]
    assert render_overlap(choices) == (
        "| | random | longest | graded |\n"
        "|---|---:|---:|---:|\n"
        "| random | 3 | 1 (0.25) | 0 (0.00) |\n"
        "| longest | 1 (0.25) | 2 | 0 (0.00) |\n"
        "| graded | 0 (0.00) | 0 (0.00) | 0 |\n"
    )


def test_similarities_have_no_rounding_so_that_every_processor_chooses_the_same() -> None:
    generator = np.random.default_rng(0)
    ids = [str(number) for number in range(300)]

    def embedder(texts: list[str]) -> np.ndarray:
        return generator.normal(size=(len(texts), 256)) ** 3

    vectors_ND = selectors.embed_rows(ids, lambda asked: list(asked), embedder)
    exact_NN = vectors_ND.astype(np.int64) @ vectors_ND.T.astype(np.int64)
    assert vectors_ND.dtype == np.float32
    assert (vectors_ND @ vectors_ND.T == exact_NN).all()
    assert exact_NN.max() < 2**24
