"""The fault drill: its table and what it calls worse; its quickest faults, for real (slow)."""

import json
from pathlib import Path

import pytest

from benchmarks.drill.__main__ import FAULTS, TABLE, run_all
from benchmarks.drill.outcome import Fault, NotHeldError, Outcome
from benchmarks.drill.table import BEGIN, END, Row, is_worse, read_table, write_table
from benchmarks.drill.trainings import Resumption, Training

ROWS = [Row("a worker", "2 steps", 30, "equal"), Row("lost replies", "nothing", None, "equal")]


def test_a_table_is_written_between_its_marks_and_read_again(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\n{END}\n\nafter\n")
    assert read_table(page) == {}
    write_table(page, ROWS)
    assert list(read_table(page).values()) == ROWS
    write_table(page, ROWS[:1])
    assert list(read_table(page).values()) == ROWS[:1]
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n")
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="lacks <!-- drill -->"):
        read_table(page)


@pytest.mark.parametrize(
    ("last", "now", "worse"),
    [(30, 60, False), (30, 61, True), (1, 5, False), (1, 7, True), (None, 9, False)],
)
def test_twice_as_long_is_worse(last: int | None, now: int, worse: bool) -> None:
    assert is_worse(Row("a", "", now, ""), Row("a", "", last, "")) is worse


def test_a_drill_goes_on_where_it_was_stopped_and_then_begins_anew(tmp_path: Path) -> None:
    calls: list[str] = []

    def broken(_: Path) -> Outcome:
        calls.append("broken")
        raise NotHeldError("step 4 was saved, and it went on from 2")

    def held(folder: Path) -> Outcome:
        assert folder.is_dir()
        calls.append("held")
        return Outcome("nothing", 1.4, "equal")

    one, other = Fault("one", "One", held), Fault("other", "Other", broken)
    rows, failures = run_all([one, other], tmp_path)
    assert rows == [Row("One", "nothing", 1, "equal")]
    assert failures == {"Other": "step 4 was saved, and it went on from 2"}
    other = Fault("other", "Other", held)
    assert len(run_all([one, other], tmp_path)[0]) == 2
    assert calls == ["held", "broken", "held"]
    run_all([one, other], tmp_path)
    assert calls[3:] == ["held", "held"]


def test_the_guides_table_has_the_drills_rows() -> None:
    titles = [fault.title for fault in FAULTS]
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert [title for title in titles if title in read_table(TABLE)] == list(read_table(TABLE))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["worker", "judge", "replica"])
def test_a_quick_fault_is_survived(name: str, tmp_path: Path) -> None:
    (fault,) = (fault for fault in FAULTS if fault.name == name)
    rows, broken = run_all([fault], tmp_path)
    assert not broken and rows[0].seconds is not None


def test_lost_steps_are_those_before_the_new_start_also_once_it_is_over(tmp_path: Path) -> None:
    training = Training(tmp_path, "run", {})
    training.run.path.mkdir()
    times = {1: 11.0, 2: 12.0, 3: 13.0, 4: 21.0, 5: 22.0}
    lines = [{"kind": "step", "step": step, "time": at} for step, at in times.items()]
    lines.insert(3, {"kind": "start", "step": 3, "time": 20.0})
    training.run.metrics_file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert training.wait_until_it_goes_on(10.0, 1) == Resumption(11.0, 3, 0)
    lines[3]["step"] = 2
    training.run.metrics_file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert training.wait_until_it_goes_on(10.0, 1).lost == 1
