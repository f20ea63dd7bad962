"""How long a sweep takes, by its first steps or by earlier trainings."""

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lima_ray.records.files import write_json
from lima_ray.records.quality import Quality
from lima_ray.records.run import Run
from tune.cost import Cost
from tune.pace import FEWEST_STEPS, Pace, earlier_runs, measure_pace
from tune.workers.progress import SweepProgress

COST = Cost(4, flops=4e12, dev_replies=40, replies=120, kept_bytes=0, most_bytes=0)


def training(folder: Path, steps: int, judged_s: float | None = None, begun: float = 100) -> Run:
    """Make a run of 2e9 operations and half a second a step, its first step slower."""
    run = Run(folder)
    run.dev_dir(1).mkdir(parents=True)
    lines: list[dict[str, Any]] = [{"kind": "start", "step": 0}]
    for n in range(1, steps + 1):
        step = {"kind": "step", "step": n, "flops": 2e9, "time": begun + n}
        lines.append(step | {"seconds": 9.0 if n == 1 else 0.5})
    run.metrics_file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    write_json(run.data_card_file, {"base": {"hash": "ba5e"}})
    if judged_s is not None:
        quality = Quality(1, 4.0, 3, 5, 1.0, 10, 0, None, "exact", judged_s)
        write_json(run.dev_dir(1) / "quality.json", asdict(quality))
    return run


def test_steps_without_the_first_and_judged_replies_give_the_pace(tmp_path: Path) -> None:
    runs = [training(tmp_path / "a", 6, 20.0), training(tmp_path / "b", 9)]
    found = measure_pace(runs)
    assert found and found == Pace(0.5 / 2e9, 2.0, 2, 101.0)
    # 250 s of training each beside 40 replies of 2 s, two rounds of two, then 30 that measure
    assert found.seconds(COST, at_once=2) == pytest.approx(2 * 250 + 30 * 2)
    slow = Pace(0.5 / 2e9, 10.0, 2, 101.0)
    assert slow.seconds(COST, at_once=4) == pytest.approx(400 + 300)  # the judge is what takes long


def test_a_judgement_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    run = training(tmp_path / "a", 6, 20.0)
    (run.dev_dir(1) / "quality.json").write_text('{"seconds": 2')
    found = measure_pace([run])
    assert found and found.per_reply_s is None


def test_nothing_more_is_reported_where_nothing_is_judged(tmp_path: Path) -> None:
    pool: Any = None  # the forecast asks no actor
    run = training(tmp_path / "a", 6, begun=1030)
    needs = replace(COST, dev_replies=0, replies=0)
    progress = SweepProgress(pool, {}, 4, [run], needs, 2)
    progress.display.console, progress.started_s = Console(file=io.StringIO(), width=200), 1000.0
    progress.forecast()
    written: Any = progress.display.console.file
    assert written.getvalue() == "by the first steps it takes about 9 min\n"
    assert progress.judging_known


def test_too_few_steps_tell_nothing_yet(tmp_path: Path) -> None:
    assert measure_pace([training(tmp_path / "a", FEWEST_STEPS - 1, 20.0)]) is None
    found = measure_pace([training(tmp_path / "b", FEWEST_STEPS)])
    assert found and found.per_reply_s is None
    assert found.seconds(COST, at_once=4) == pytest.approx(250)


def test_earlier_trainings_of_the_same_base_count(tmp_path: Path) -> None:
    same, other = training(tmp_path / "a", 6), training(tmp_path / "b", 6)
    write_json(other.data_card_file, {"base": {"hash": "another"}})
    training(tmp_path / "c", 6).metrics_file.unlink()
    training(tmp_path / "d", 6).data_card_file.write_text('{"base": {"ha')
    assert earlier_runs(tmp_path, "ba5e") == [same]
    assert earlier_runs(tmp_path / "nothing", "ba5e") == []


def test_a_sweep_says_how_long_it_takes_after_its_first_steps(tmp_path: Path) -> None:
    pool: Any = None  # the forecast asks no actor
    runs = [Run(tmp_path / name) for name in ("a", "b", "old")]
    progress = SweepProgress(pool, {}, 4, runs, COST, 2)
    progress.display.console = Console(file=io.StringIO(), width=200)
    progress.started_s = 1000.0
    training(tmp_path / "old", 50, 1.0, begun=100)  # of an earlier start, by other company

    def printed() -> list[str]:
        progress.forecast()
        written: Any = progress.display.console.file
        return written.getvalue().splitlines()

    assert printed() == []
    training(tmp_path / "a", 6, begun=1030)
    first = "by the first steps it takes about 9 min, of training, judging not known yet"
    assert printed() == printed() == [first]  # 31 s of starting, then two rounds of 250 s
    training(tmp_path / "b", 6, 20.0, begun=1030)
    assert printed() == [first, "by the first steps it takes about 10 min, with judging"]
    assert progress.judging_known and progress.forecast_s == pytest.approx(31 + 2 * 250 + 30 * 2)
