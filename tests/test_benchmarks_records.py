"""What benchmarks write of their measurements for the page."""

from pathlib import Path

import pytest

from benchmarks import curate, miniature, serve, train
from benchmarks.attribution.__main__ import Precision, mean_of
from benchmarks.attribution.measure import DEFAULT
from benchmarks.attribution.planted import MANNERISMS
from benchmarks.page.result import OURS, Recording, read_result
from lima_ray.miniature.demo import GROUPS
from lima_ray.records.verdict import Verdict


def test_training_tells_speed_memory_and_how_far_losses_are_apart() -> None:
    ours = {"seconds": [9.0, 1.0, 1.0], "losses": [3.0, 2.0], "peak_gib": 1.5}
    trl = {"seconds": [9.0, 2.0, 2.0], "losses": [3.0, 2.5], "peak_gib": 3.0}
    recording = Recording("train")
    results = {("ours", "fp32"): [ours, ours], ("single", "fp32"): [trl, trl]}
    train.record(recording, results, [50, 100, 100])
    speeds = {f.who: f.samples for f in recording.figures if f.what == "training speed"}
    assert speeds == {OURS: (100.0, 100.0), "TRL 1.16.0, one row at a time": (50.0, 50.0)}
    assert {f.median for f in recording.figures if f.unit == "GiB"} == {1.5, 3.0}
    assert recording.notes == ["losses in fp32, TRL one row at a time: at most 5.0e-01 from ours"]


def test_serving_tells_speed_waits_failures_and_busy_neighbours() -> None:
    def measured(contender: str, way: str, speed: float) -> serve.Figures:
        return {
            "contender": contender,
            "way": way,
            "tokens_per_s": speed,
            "size": "mid",
            "shape": "ragged",
            "concurrency": 8,
            "ttft_s": {"p50": 0.25},
            "errors": [],
            "others": 0.04,
        }

    failed = measured("serve", "stream", 90.0) | {"errors": ["timeout"]}
    results = [measured("engine", "bare", 120.0), measured("serve", "stream", 100.0), failed]
    recording = Recording("serve")
    serve.record(recording, results)
    speeds = {f.who: f.samples for f in recording.figures if f.what == "serving speed"}
    assert speeds == {"the bare engine, no HTTP": (120.0,), OURS: (100.0, 90.0)}
    [wait] = [f for f in recording.figures if f.unit == "ms"]
    assert (wait.who, wait.case, wait.samples) == (OURS, "134M, 8 at once", (250.0, 250.0))
    assert recording.notes == [
        "lima_ray, 134M, 8 at once: 1 requests failed",
        "other processes used at most 4% of the cores meanwhile",
    ]


def test_the_miniature_tells_shares_by_group_and_the_time_of_runs_it_made() -> None:
    def verdicts(good: int) -> list[Verdict]:
        said = ["pass"] * good + ["fail"] * (4 - good)
        return [
            Verdict(str(n), "audit", "exact", one, group=group)
            for group in GROUPS
            for n, one in enumerate(said)
        ]

    recording = Recording("miniature")
    miniature.record(recording, verdicts(1), verdicts(3), [])
    assert {f.who: f.samples for f in recording.figures} == {"the base": (25.0,), OURS: (75.0,)}
    miniature.record(recording, verdicts(1), verdicts(3), [60.0])
    assert [f.samples for f in recording.figures if f.unit == "s"] == [(60.0,)]


def test_attribution_tells_the_mean_over_mannerisms_of_a_seed() -> None:
    first, second, *_ = MANNERISMS
    found = [
        Precision(DEFAULT, first, True, "0-a", 1.0, 1.0),
        Precision(DEFAULT, first, True, "0-b", 0.0, 1.0),
        Precision(DEFAULT, second, True, "0-c", 1.0, 1.0),
        Precision(DEFAULT, second, True, "10-c", 0.0, 1.0),
        Precision(DEFAULT, second, False, "0-c", 0.2, 1.0),
    ]
    assert mean_of(found, DEFAULT, 0, "of_five", True) == pytest.approx(75)
    assert mean_of(found, DEFAULT, 0, "of_five", False) == pytest.approx(20)


def test_curation_tells_each_pass_beside_the_bare_library(tmp_path: Path) -> None:
    curate.main(tmp_path / "work", megabytes=1, json=tmp_path / "curate.json")
    found = read_result(tmp_path / "curate.json")
    assert {f.who for f in found.figures} == {OURS, "the bare library"}
    assert all(len(f.samples) == curate.ROUNDS and f.low > 0 for f in found.figures)
    assert found.notes[0] == "XML and archives of posts were not read: no --posts"
