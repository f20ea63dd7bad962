"""A dataset from candidates: repeats, leaks, draws, reasons, and what people dropped."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from pyarrow import parquet

from lima_ray.config.errors import UserError
from lima_ray.curation import dataset
from lima_ray.curation.candidate import Candidate, Part, PartWriter
from lima_ray.curation.pipeline import run_stages
from lima_ray.curation.recipe import Curation
from lima_ray.curation.sources.registry import make_reader

WORDS = [
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "frost",
    "grove",
    "haven",
    "inlet",
    "jetty",
    "kelp",
    "lagoon",
]


def text(seed: int, words: int = 40) -> str:
    """Return a text that shares no five words with that of another seed."""
    return " ".join(f"{WORDS[(seed + i) % 12]}{seed}x{i}" for i in range(words))


def write_rows(path: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    lines = [
        json.dumps({"conversations": [prompt, reply], "id": id, "source": "authors"})
        for id, prompt, reply in rows
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def recipe(folder: Path, **changes: object) -> Curation:
    tree = {
        "name": "small",
        "inputs": str(folder),
        "decontaminate": ["test.jsonl"],
        "sources": {
            "first": {"kind": "examples", "path": "first.jsonl", "rows": 3},
            "second": {"kind": "examples", "path": "second.jsonl"},
        },
    }
    return Curation.model_validate(tree | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    leak = "What is the tallest tree that grows in the northern rain forest?"
    write_rows(tmp_path / "test.jsonl", [("t0", leak, "")][:0])
    (tmp_path / "test.jsonl").write_text(json.dumps({"conversations": [leak], "id": "t0"}))
    rows = [(f"a{n}", f"Question {n}?", text(n)) for n in range(6)]
    write_rows(tmp_path / "first.jsonl", rows)
    again = " ".join(text(2).split()[:-1])
    second = [("b0", "Question 1?", text(1)), ("b1", "Question 2?", again)]
    second += [("b2", f"Please: {leak.upper()}", text(20)), ("b3", "Question 9?", text(21))]
    write_rows(tmp_path / "second.jsonl", second)
    return tmp_path


def pools_of(curation: Curation, work: Path) -> list[dataset.SourcePool]:
    prompts = dataset.index_prompts(curation)
    return dataset.gather(curation, run_stages(curation, work, workers=0), prompts)


def test_repeats_and_leaks_go_with_the_row_that_they_repeat(folder: Path) -> None:
    first, second = pools_of(recipe(folder), folder / "work")
    assert len(first.rows) == 6
    assert not first.later
    assert [row.id for row in second.rows] == ["b3"]
    assert second.later[:2] == [("b0", "duplicate", "of a1"), ("b1", "near_duplicate", "of a2")]
    ((id, reason, detail),) = second.later[2:]
    assert (id, reason) == ("b2", "contaminated")
    assert "t0" in detail


def test_the_funnel_adds_up_and_every_row_has_one_reason(folder: Path) -> None:
    curation = recipe(folder)
    pools = pools_of(curation, folder / "work")
    chosen = {pool.name: dataset.choose(curation, pool) for pool in pools}
    filters = {n: make_reader(s, curation).filters for n, s in curation.sources.items()}
    funnels = dataset.funnels_of(pools, filters, chosen, {})
    assert [len(ids) for ids in chosen.values()] == [3, 1]
    for funnel in funnels:
        assert funnel.seen - sum(funnel.dropped.values()) == funnel.chosen
        assert funnel.steps()[-1][2] == funnel.chosen
    dataset.write_dropped(pools, folder / "dropped.parquet")
    reasons = parquet.read_table(folder / "dropped.parquet").to_pylist()
    kept = {id for ids in chosen.values() for id in ids}
    everything = {f"a{n}" for n in range(6)} | {f"b{n}" for n in range(4)}
    assert {row["id"] for row in reasons} == everything - kept
    assert len(reasons) == len(everything - kept)


def test_the_next_row_takes_the_place_of_one_that_people_dropped(folder: Path) -> None:
    curation = recipe(folder)
    pool = pools_of(curation, folder / "work")[0]
    before = dataset.choose(curation, pool)
    after = dataset.choose(curation, pool, refused=frozenset({before[0]}))
    assert len(after) == 3
    assert before[0] not in after
    assert set(before[1:]) < set(after)


@pytest.mark.parametrize("choose", ["random", "longest"])
def test_other_groups_give_what_one_has_too_few_for_once_people_dropped_some(
    tmp_path: Path, choose: str
) -> None:
    rows = [
        {"conversations": [f"Question {n}?", text(n)], "id": f"r{n}", "source": "ab"[n % 2]}
        for n in range(40)
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = {"kind": "examples", "path": "own.jsonl", "rows": 20, "choose": choose}
    curation = recipe(tmp_path, sources={"own": own}, decontaminate=[])
    (pool,) = pools_of(curation, tmp_path / "work")
    before = dataset.choose(curation, pool)
    refused = frozenset(row.id for row in pool.rows if row.group == "a")
    after = dataset.choose(curation, pool, refused)
    assert len(set(after)) == 20
    assert set(before) - refused < set(after) <= {row.id for row in pool.rows} - refused
    most = refused | set(after[:15])
    assert len(dataset.choose(curation, pool, frozenset(most))) == 5


def test_a_row_that_is_there_again_counts_and_another_of_its_id_is_refused(tmp_path: Path) -> None:
    again = ("r1", "Question 1?", text(1))
    curation = recipe(
        tmp_path, sources={"own": {"kind": "examples", "path": "own.jsonl"}}, decontaminate=[]
    )
    write_rows(tmp_path / "own.jsonl", [again] * 3)
    pools = pools_of(curation, tmp_path / "work")
    (funnel,) = dataset.funnels_of(pools, {"own": ()}, {"own": ["r1"]}, {})
    assert (funnel.seen, funnel.dropped["duplicate"], funnel.chosen) == (3, 2, 1)
    write_rows(tmp_path / "own.jsonl", [again, ("r1", "Question 2?", text(2))])
    with pytest.raises(UserError, match="own has two different rows with the id r1"):
        dataset.check_unique_ids(pools_of(curation, tmp_path / "work"))


def test_the_draw_depends_on_seed_and_rows_alone(folder: Path) -> None:
    curation = recipe(folder)
    first = dataset.choose(curation, pools_of(curation, folder / "one")[0])
    assert first == dataset.choose(curation, pools_of(curation, folder / "two")[0])
    seeds = [recipe(folder, seed=seed) for seed in range(8)]
    assert len({tuple(dataset.choose(c, pools_of(c, folder / "one")[0])) for c in seeds}) > 1


def test_rows_read_by_id_come_in_the_order_asked_for(folder: Path) -> None:
    pool = pools_of(recipe(folder), folder / "work")[0]
    assert [c.id for c in pool.read(["a4", "a0", "a3"])] == ["a4", "a0", "a3"]


def test_too_few_rows_are_said_with_what_took_most(folder: Path) -> None:
    sources = {"second": {"kind": "examples", "path": "second.jsonl", "rows": 9}}
    curation = recipe(folder, sources=sources)
    pools = pools_of(curation, folder / "work")
    chosen = {pool.name: dataset.choose(curation, pool) for pool in pools}
    filters = {n: make_reader(s, curation).filters for n, s in curation.sources.items()}
    funnels = dataset.funnels_of(pools, filters, chosen, {})
    (line,) = dataset.check_enough(curation, funnels, chosen)
    assert line == "second: 3 rows, 6 fewer than the 9 asked for; of 4, contaminated took 1"


def test_one_row_of_two_sources_is_refused(folder: Path) -> None:
    same = {"kind": "examples", "path": "first.jsonl"}
    write_rows(folder / "third.jsonl", [("a1", "Another?", text(40))])
    curation = recipe(folder, sources={"x": same, "y": same | {"path": "third.jsonl"}})
    with pytest.raises(UserError, match="a1 is a row of x and of y"):
        dataset.check_unique_ids(pools_of(curation, folder / "work"))


def test_a_part_that_stands_is_not_made_again(folder: Path) -> None:
    curation = recipe(folder)
    parts = run_stages(curation, folder / "work", workers=0)
    times = {p: p.folder.stat().st_mtime_ns for those in parts.values() for p in those}
    again = run_stages(curation, folder / "work", workers=0)
    assert {p: p.folder.stat().st_mtime_ns for those in again.values() for p in those} == times
    write_rows(folder / "second.jsonl", [("b9", "Question?", text(50))])
    changed = run_stages(curation, folder / "work", workers=0)
    assert changed["first"] == again["first"]
    assert [c.id for part in changed["second"] for c in part.candidates()] == ["b9"]
    assert all(isinstance(part, Part) for part in changed["second"])


def test_rows_of_a_part_are_read_by_number_out_of_their_groups_alone(tmp_path: Path) -> None:
    with PartWriter(tmp_path / "part") as out:
        for n in range(3500):
            out.keep(Candidate(f"a/{n}", ("q", str(n)), "s"))
    part = Part(tmp_path / "part")
    for numbers in ([3499, 0, 1000, 999, 0], [5], []):
        assert part.take(numbers)["id"].to_pylist() == [f"a/{n}" for n in numbers]
    assert part.take([2001]).equals(part.read().take([2001]))
