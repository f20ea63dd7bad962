"""A sweep in a bucket: run to its end, gone on with from an empty disk, and reported from there."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ray_cluster
from sweeps import quick_sweep

from benchmarks.local_servers.s3_server import S3Server, s3_store
from lima_ray.config.command_line import run_command
from lima_ray.config.storage.working_copy import CACHE, storage_folder
from tune import sweep
from tune.arguments import SweepCommand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    monkeypatch.setenv(CACHE, str(tmp_path / "disk"))
    with s3_store() as server:
        yield server


def test_a_sweep_lives_in_a_bucket(
    store: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = store.url("runs")
    path = quick_sweep(tmp_path, seeds=[0], set={"runs_dir": url})
    with ray_cluster(cpus=2):
        study = sweep.run(SweepCommand(sweep=str(path)))
    assert [outcome.status for outcome in study.outcomes] == ["done", "done"]
    trials = {name.partition("/")[0] for name in store.names("runs/trials/")}
    assert {outcome.id for outcome in study.outcomes} <= trials
    names = store.names("runs/sweeps/quick/")
    assert {"sweep.yaml", "trainings.jsonl", "report.md", "figure.png"} <= set(names)
    assert not [n for n in store.names("runs/") if "/state/" in n or "/epochs/0" in n]
    values = [study.estimate(point).mean for point in study.points]

    shutil.rmtree(storage_folder())
    store.objects.requests.clear()
    with ray_cluster(cpus=2):
        again = sweep.run(SweepCommand(sweep=str(path), resume=True))
    assert [again.estimate(point).mean for point in again.points] == values
    written = [name for method, name in store.objects.requests if method == "PUT"]
    assert not [name for name in written if name.endswith("metrics.jsonl")]  # nothing trained again
    shutil.rmtree(storage_folder())
    capsys.readouterr()
    run_command("sweep_report", [store.url("runs/sweeps/quick")])
    said = capsys.readouterr().out
    assert "2 of 2 trainings done" in said
    assert f"report       {store.url('runs/sweeps/quick/report.md')}" in said
