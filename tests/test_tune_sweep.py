"""Sweeps on a real Ray: trainings, judging, resuming, and what stops them before they start."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sweeps
import yaml
from conftest import ray_cluster
from sweeps import ROWS, quick_sweep, starts, trainings

from benchmarks.local_servers.chat_server import serving
from benchmarks.local_servers.judge_server import JudgeServer, longer
from lima_ray.config.errors import UserError
from lima_ray.config.loading import load_recipe as load_recipe
from lima_ray.records.quality import read_qualities
from lima_ray.records.reply import read_replies
from tune import sweep
from tune.results import Study
from tune.sweep import Command
from tune.sweep_directory import SweepDirectory
from tune.training import encoded, reserve


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of two cores."""
    with ray_cluster(cpus=2):
        yield


def test_a_sweep_trains_judges_reports_and_repeats_nothing(
    cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = quick_sweep(tmp_path)
    study = sweep.run(Command(sweep=str(path)))
    output = capfd.readouterr().out
    with pytest.raises(UserError, match="holds this sweep already; --resume goes on"):
        sweep.run(Command(sweep=str(path)))
    again = sweep.run(Command(sweep=str(path), resume=True))
    shared = sweep.run(Command(sweep=str(quick_sweep(tmp_path, "sharing", seeds=[0]))))
    assert "sweep quick: 2 points x 2 seeds" in output and "4 trainings left, 2 at once" in output
    assert "4/4 after" in output and "residual dropout 0.1, seed 1: done" in output
    for line in (line for line in output.splitlines() if "dev grade" in line and "after" in line):
        grade, epoch = line.split("dev grade ")[1].split(" of epoch ")
        assert any(
            (f"{o.chosen.value:.2f}", str(o.chosen.epoch)) == (grade, epoch)
            for o in study.outcomes
            if o.chosen
        )
    lines = trainings(tmp_path)
    assert sorted((line["point"], line["seed"]) for line in lines) == [
        *((0, 0), (0, 1), (1, 0), (1, 1)),
    ]
    assert {line["status"] for line in lines} == {"done"}
    assert set(starts(tmp_path).values()) == {1} and len(starts(tmp_path)) == 4
    assert [o.id for o in again.outcomes] == [o.id for o in study.outcomes]
    assert {o.id for o in shared.outcomes} < {o.id for o in study.outcomes}
    check_outcomes(study)
    best = load_recipe(str(study.path / "best.yaml"))
    assert best.model.residual_dropout in (0.0, 0.1)
    assert (study.path / "report.md").exists() and list(study.path.glob("*.png"))


@pytest.mark.slow
def test_a_sweep_measures_the_win_rate_against_a_reference(cluster: None, tmp_path: Path) -> None:
    table, said = tmp_path / "other.json", "It is as it is."
    with serving(JudgeServer(decide=longer)) as server:
        fields = {"select.judge": "endpoint", "select.endpoint": server.url}
        prices = {"select.input_usd": 1e6, "select.output_usd": 1e6}
        fields |= {"select.endpoint_model": "judge", "select.reference": str(table)}
        tree = {"axes": {}, "seeds": [0], "metric": "win_rate", "set": fields}
        path = quick_sweep(tmp_path, **tree)
        prompts = [
            json.loads(line)["conversations"][0]
            for split in ("dev", "test")
            for line in (tmp_path / f"{split}.jsonl").read_text().splitlines()
        ]
        table.write_text(json.dumps([{"prompt": text, "reply": said} for text in prompts[:-1]]))
        with pytest.raises(UserError, match=r"test\.jsonl: the reference .* lacks 1 of 4 replies"):
            sweep.run(Command(sweep=str(path)))
        table.write_text(json.dumps([{"prompt": text, "reply": said} for text in prompts]))
        graded = quick_sweep(tmp_path, "graded", **tree | {"metric": "grade"})
        with pytest.raises(UserError, match=r"on .*test\.jsonl gives win_rate, stopped"):
            sweep.run(Command(sweep=str(graded)))
        priced = quick_sweep(tmp_path, "priced", **tree | {"set": fields | prices})
        with pytest.raises(UserError, match=r"may cost \$.*; --yes accepts it"):
            sweep.run(Command(sweep=str(priced)))
        (judging,) = sweep.plan(Command(sweep=str(path))).judging_estimates()
        assert judging.calls == 3 * 2 * sweeps.PROMPTS
        assert len(server.requests) == 1  # a trial
        study = sweep.run(Command(sweep=str(path)))
        # For two epochs and the measurement each prompt in both orders.
        assert len(server.requests) == 1 + 3 * 2 * sweeps.PROMPTS
    (outcome,), (point,) = study.outcomes, study.points
    assert outcome.measured and outcome.chosen and outcome.chosen.metric == "win_rate"
    replies = [r.reply for r in read_replies(outcome.measured / "replies.jsonl")]
    wins = [1.0 if len(r) > len(said) else 0.5 * (len(r) == len(said)) for r in replies]
    assert study.estimate(point).mean == pytest.approx(sum(wins) / len(wins))
    report, best = ((study.path / name).read_text() for name in ("report.md", "best.yaml"))
    assert "win rate, %" in report and f"judged by judge against {table} in both orders" in report
    assert f"dev win rate {100 * outcome.chosen.value:.1f} %" in best
    assert "# Win rate against the reference on the measuring prompts" in best
    assert "grade" not in report.replace("graded", "") and "grade" not in best


def check_outcomes(study: Study) -> None:
    """Each training stands with its chosen epoch, verdicts, and no weights but those."""
    for point in study.points:
        assert study.values_SP(point).shape == (2, sweeps.PROMPTS)
        assert 1 <= study.estimate(point).mean <= 6
    for outcome in study.outcomes:
        recipe = outcome.run.recipe()
        assert recipe.seed == outcome.seed
        assert (
            recipe.model.residual_dropout
            == study.points[outcome.point].values["model.residual_dropout"]
        )
        assert outcome.chosen and set(read_qualities(outcome.run, recipe.select.judge_name)) == {
            1,
            2,
        }
        assert outcome.chosen.value == max(q.value for q in outcome.qualities)
        assert not outcome.run.epochs_dir.exists() and not outcome.run.state_dir.exists()
        assert list(outcome.run.export_dir.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"concurrent": 3}, "concurrent is 3, but one training takes 1 CPU cores .* so 2 fit"),
        ({"set": {"cluster.workers": 3}}, "one training takes 3 CPU cores and the cluster has 2"),
    ],
)
def test_more_at_once_than_fits_is_refused(
    cluster: None, fields: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=expected):
        sweep.run(Command(sweep=str(quick_sweep(tmp_path, **fields))))
    assert not (tmp_path / "runs").exists()


def write_directory(path: Path, name: str = "quick") -> None:
    """Write a sweep's directory as a first run does."""
    plan = sweep.plan(Command(sweep=str(path), name=name))
    with SweepDirectory(plan.path) as directory:
        directory.check(plan.sweep, plan.base, plan.points, plan.ids, True)
        directory.write()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seeds": [0, 1, 2]}, r"sweep.seeds \[0, 1\] \(now \[0, 1, 2\]\)"),
        ({"axes": {"optim.epochs": {"grid": [1, 2]}}}, "sweep.axes.optim.epochs.grid"),
        ({"set": {"data.rows": 32}}, r"recipe.data.rows 64 \(now 32\)"),
        ({"metric": "accepted"}, r"sweep.metric 'grade' \(now 'accepted'\)"),
    ],
)
def test_a_changed_sweep_does_not_mix_with_what_is_there(
    change: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    write_directory(quick_sweep(tmp_path))
    changed = quick_sweep(tmp_path, **change)
    with pytest.raises(UserError, match=f"(?s)another sweep of the name quick.*{expected}"):
        write_directory(changed)


def test_changed_rows_do_not_mix_either_and_harmless_changes_do(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = (ROWS / "curated.jsonl").read_text().splitlines(keepends=True)
    rows.write_text("".join(lines))
    fields = {"data.train": str(rows)}
    write_directory(quick_sweep(tmp_path, set=fields))
    write_directory(
        quick_sweep(tmp_path, set=fields | {"cluster.workers": 2}, retries=5, claim="new")
    )
    rows.write_text("".join(lines[10:]))
    encoded.cache_clear()
    with pytest.raises(UserError, match=r"the rows, prompts or base .* have another content"):
        write_directory(quick_sweep(tmp_path, set=fields))


def test_a_sweep_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    axes = {"sampling.context": {"grid": [48, 64]}}
    path = quick_sweep(tmp_path, axes=axes)
    write_directory(path)
    file = tmp_path / "runs" / "sweeps" / "quick" / "sweep.yaml"
    tree = yaml.safe_load(file.read_text().replace("sampling.context", "sampling.max_tokens"))
    assert tree["points"][1]["values"] == {"sampling.max_tokens": 64}
    assert tree["sweep"]["set"]["sampling.max_tokens"] == 60
    sampling = tree["recipe"]["sampling"]
    sampling["max_tokens"] = sampling.pop("context")
    del sampling["max_new_tokens"]
    file.write_text(yaml.safe_dump(tree))
    study = Study.load(file.parent)
    assert study.recipe.sampling.context == 60
    assert [point.values for point in study.points] == [
        *({"sampling.context": 48}, {"sampling.context": 64}),
    ]
    write_directory(path)
    file.write_text(yaml.safe_dump(tree))
    other = quick_sweep(tmp_path, axes=axes, set={"sampling.context": 61})
    with pytest.raises(UserError, match=r"recipe\.sampling\.context 60 \(now 61\)"):
        write_directory(other)
    before = quick_sweep(tmp_path, set={"sampling.max_tokens": 60})
    with pytest.raises(UserError, match=r"sampling\.max_tokens is now sampling\.context"):
        write_directory(before)


def test_two_processes_do_not_run_one_sweep(tmp_path: Path) -> None:
    path = quick_sweep(tmp_path)
    plan = sweep.plan(Command(sweep=str(path)))
    with SweepDirectory(plan.path) as directory:
        directory.check(plan.sweep, plan.base, plan.points, plan.ids, False)
        directory.write()
        with pytest.raises(UserError, match="another process runs the sweep"):
            write_directory(path)


def test_a_dry_run_tells_the_cost_and_writes_nothing(
    cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.run(Command(sweep=str(quick_sweep(tmp_path)), dry_run=True))
    output = capsys.readouterr().out
    assert "2 points x 2 seeds" in output and "  1  residual dropout 0" in output
    assert "4 trainings left, 2 at once: how long is told after the first steps" in output
    assert "the arithmetic alone is" in output and "of one CPU core" in output
    assert not (tmp_path / "runs").exists()


def test_errors_are_one_message_and_name_the_way_out(tmp_path: Path) -> None:
    path = quick_sweep(tmp_path, axes={"optim.learing_rate": {"grid": [1e-4]}})
    ended = sweeps.run(path)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "did you mean optim.learning_rate?" in ended.stderr


def until(
    holds: Callable[[], Any], running: subprocess.Popen[str] | None = None, timeout_s: float = 240
) -> None:
    """Wait until something holds, while a process runs."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        assert running is None or running.poll() is None, f"it ended with {running.returncode}"
        time.sleep(0.2)


def begun(path: Path, *flags: str) -> subprocess.Popen[str]:
    """Start a sweep that a test will stop, in a session of its own; its output goes to a file."""
    out = (path.parent / "out.txt").open("a")
    return subprocess.Popen(
        sweeps.command(path, *flags),
        cwd=sweeps.ROOT,
        env=sweeps.environment(),
        stdout=out,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_killed_twice_finishes_and_repeats_no_finished_training(tmp_path: Path) -> None:
    path = quick_sweep(tmp_path, axes={"model.residual_dropout": {"grid": [0.0, 0.1, 0.2]}})
    done: list[set[tuple[int, int]]] = []
    for count in (1, 3):
        running = begun(path, "--resume")
        until(lambda count=count: len(trainings(tmp_path)) >= count, running)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        done.append({(line["point"], line["seed"]) for line in trainings(tmp_path)})
        time.sleep(5)  # the Ray of a killed driver ends by itself
    before = starts(tmp_path)
    finished = {line["id"] for line in trainings(tmp_path)}
    ended = sweeps.run(path, "--resume")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = trainings(tmp_path)
    assert len(lines) == 6 and {line["status"] for line in lines} == {"done"}
    assert done[0] <= done[1] and len(done[0]) >= 1 and 3 <= len(done[1]) < 6
    after = starts(tmp_path)
    assert all(after[id] == before[id] for id in finished)
    study = Study.load(tmp_path / "runs" / "sweeps" / "quick")
    for outcome in study.outcomes:
        steps = [step["step"] for step in outcome.run.steps()]
        assert steps == [1, 2, 3, 4]  # one that was cut off went on where its state was


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_ends_a_sweep_with_a_report_of_what_there_is(tmp_path: Path) -> None:
    path = quick_sweep(tmp_path, axes={"model.residual_dropout": {"grid": [0.0, 0.1, 0.2]}})
    running = begun(path)
    until(lambda: len(trainings(tmp_path)) >= 1, running)
    os.kill(running.pid, signal.SIGINT)
    assert running.wait(120) == 130
    output = (tmp_path / "out.txt").read_text()
    assert "interrupted; what was saved is kept" in output and "Traceback" not in output
    report = (tmp_path / "runs" / "sweeps" / "quick" / "report.md").read_text()
    assert "residual dropout" in report or "dropout" in report
    assert 1 <= len(trainings(tmp_path)) < 6
    assert not any(line["status"] == "stopped" for line in trainings(tmp_path))


def test_two_sweeps_are_not_at_one_training(tmp_path: Path) -> None:
    training, prepared = sweep.plan(Command(sweep=str(quick_sweep(tmp_path)))).trainings[0]
    lock = reserve(training, prepared)
    with pytest.raises(UserError, match=f"another sweep is at the training {training.id}"):
        reserve(training, prepared)
    lock.release()
    reserve(training, prepared).release()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_costs_a_retry_and_the_others_nothing(tmp_path: Path) -> None:
    rows = {"optim.epochs": 6, "optim.batch_examples": 4}
    path = quick_sweep(tmp_path, seeds=[0], retries=1, set=rows)
    running = begun(path)
    trials = tmp_path / "runs" / "trials"

    def worker(steps: int) -> tuple[str, int] | None:
        for run in trials.glob("*/metrics.jsonl"):
            lines = [json.loads(line) for line in run.read_text().splitlines()]
            pids = [line["pids"][0] for line in lines if line["kind"] == "start"]
            if pids and lines[-1]["step"] > steps:
                return run.parent.name, pids[-1]
        return None

    until(lambda: worker(20), running)
    name, pid = worker(20) or ("", 0)
    os.kill(pid, signal.SIGKILL)
    assert running.wait(300) == 0, (tmp_path / "out.txt").read_text()
    assert {line["status"] for line in trainings(tmp_path)} == {"done"}
    assert starts(tmp_path)[name] == 2
    steps = [
        record["step"]
        for line in (trials / name / "metrics.jsonl").read_text().splitlines()
        if (record := json.loads(line))["kind"] == "step"
    ]
    assert steps == list(range(1, 97))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_asha_stops_the_worse_points_early(tmp_path: Path) -> None:
    rates = {"optim.learning_rate": {"grid": [1e-3, 5e-4, 1e-7, 2e-7]}}
    fields = {"optim.epochs": 6, "optim.batch_examples": 8, "data.rows": 128}
    path = quick_sweep(
        tmp_path, axes=rates, seeds=[0], set=fields, asha=True, asha_from_epoch=2, asha_keep=2
    )
    ended = sweeps.run(path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    status = {line["point"]: line["status"] for line in trainings(tmp_path)}
    assert len(status) == 4 and "done" in status.values() and "stopped" in status.values()
    study = Study.load(tmp_path / "runs" / "sweeps" / "quick")
    stopped = [o for o in study.outcomes if o.status == "stopped"]
    assert all(max(q.epoch for q in o.qualities) < 6 for o in stopped)
    again = sweeps.run(path, "--resume")
    assert again.returncode == 0 and len(trainings(tmp_path)) == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_optuna_proposes_points_and_goes_on_from_what_it_knows(tmp_path: Path) -> None:
    axes = {
        "optim.learning_rate": {"loguniform": [1e-4, 1e-3]},
        "data.loss_on": {"choice": ["replies", "all"]},
    }
    path = quick_sweep(tmp_path, axes=axes, points=4, seeds=[0], search="optuna")
    running = begun(path)
    until(lambda: len(trainings(tmp_path)) >= 2, running)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    time.sleep(5)
    known = {line["id"] for line in trainings(tmp_path)}
    before = starts(tmp_path)
    ended = sweeps.run(path, "--resume")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    study = Study.load(tmp_path / "runs" / "sweeps" / "quick")
    done = [o for o in study.outcomes if o.status == "done"]
    assert len(done) == 4 and known <= {o.id for o in done}
    assert all(starts(tmp_path)[id] == before[id] for id in known)
    rates = {point.values["optim.learning_rate"] for point in study.points if study.done(point)}
    assert len(rates) == 4 and all(1e-4 <= rate <= 1e-3 for rate in rates)
