"""Results of benchmarks, the page made of them, and the suite that runs what fits half an hour."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.page import __main__ as page
from benchmarks.page import tables
from benchmarks.page.result import (
    OURS,
    Figure,
    Machine,
    Result,
    code_commit,
    read_result,
    this_machine,
    typed_command,
)
from benchmarks.suite import run
from benchmarks.suite.benchmark import Benchmark, benchmarks
from lima_ray.config.errors import UserError

HERE = Machine("a processor", 2, 8.0, {"Python": "3.11"})


def result(*figures: Figure) -> Result:
    return Result("some", "python -m some", "2026-01-01", "abc", HERE, 3.0, figures, ("a note",))


def speed(who: str, *samples: float, case: str = "fp32") -> Figure:
    return Figure("speed", case, who, "tokens/s", samples, "higher")


def test_the_page_is_made_of_the_results_that_stand_there(tmp_path: Path) -> None:
    made = page.render(page.read_results(), tmp_path)
    assert page.PAGE.read_text() == made, "run `python -m benchmarks.page`"
    shown = {file.name for file in (page.PAGE.parent / "images").glob("benchmark-*.svg")}
    assert shown == {file.name for file in tmp_path.iterdir()}


def test_pictures_are_the_same_whenever_figures_are(tmp_path: Path) -> None:
    figures = [speed(OURS, 1, 2), speed("other", 3)]
    for name in ("one.svg", "another.svg"):
        page.pictures.draw(figures, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "another.svg").read_bytes()


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = result(replace(speed(OURS, 3, 1, 2), x=4.0, axis="rows"))
    written.write(tmp_path / "some.json")
    assert read_result(tmp_path / "some.json") == written


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"name": "other"}')
    with pytest.raises(UserError, match=r"other\.json is no result of a benchmark"):
        read_result(file)


def test_cells_have_the_median_and_the_extremes_and_the_best_is_bold() -> None:
    table = tables.tables(result(speed(OURS, 10, 30, 20), speed("other", 5)))
    assert table.splitlines() == [
        "| speed, tokens/s | lima_ray | other |",
        "|---|---|---|",
        "| fp32 | **20** [10, 30] | 5 |",
    ]


def test_others_lead_where_their_median_is_better() -> None:
    slow = Figure("wait", "fp32", OURS, "ms", (8.0,), "lower")
    quick = Figure("wait", "fp32", "other", "ms", (2.0,), "lower")
    found = tables.where_others_lead(
        [result(speed(OURS, 10), speed("other", 5), slow, quick), result(speed(OURS, 1))]
    )
    assert found == "- wait, fp32: other 2 ms, lima_ray 8: 4.00 times as good"


def test_an_unknown_directive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is none of"):
        page.directive("tabels train", {}, tmp_path)


def test_commands_name_no_path_of_the_machine() -> None:
    said = typed_command("benchmarks.x", "--posts", "/home/me/Posts.xml", "--n", "3", "--json", "f")
    assert said == "python -m benchmarks.x --posts POSTS --n 3"


def test_the_suite_fits_half_an_hour_and_writes_what_the_page_shows() -> None:
    every = benchmarks(posts="", lima="", vllm_python="")
    assert sum(one.limit_s for one in every if one.always) <= 30 * 60
    template = page.TEMPLATE.read_text()
    assert all(f"{{{{tables {one.name}}}}}" in template for one in every)


def test_what_has_figures_of_this_code_machine_and_command_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    one = Benchmark("some", ("benchmarks.x", "--rounds", "2"), 10)
    assert not run.is_current(one)
    command, commit = typed_command(*one.words), code_commit()
    current = replace(result(speed(OURS, 1)), command=command, commit=commit)
    for found, expected in (
        (replace(current, machine=this_machine()), bool(commit)),
        (current, False),
        (replace(current, machine=this_machine(), commit="other"), False),
        (replace(current, machine=this_machine(), command="other"), False),
    ):
        found.write(tmp_path / "some.json")
        assert run.is_current(one) is expected


def test_a_benchmark_that_is_ended_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE_S", 1)
    command = "trap '' TERM; sleep 300 & echo $!; wait; sleep 300"
    started = subprocess.Popen(
        ["sh", "-c", command], start_new_session=True, stdout=subprocess.PIPE
    )
    assert started.stdout
    child = int(started.stdout.readline())
    run.end(started)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
