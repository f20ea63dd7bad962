"""Whole runs in a bucket under Ray Train: an outage, a kill in mid-upload, an empty disk."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cluster_jobs import run
from cluster_jobs import train as small_training
from conftest import ray_cluster

from benchmarks.drill.nodes import local_cluster
from benchmarks.local_servers.s3_server import S3Server, s3_store
from benchmarks.servers import free_port
from lima_ray import train
from lima_ray.config.command_line import run_command
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.storage.bucket import parse_url
from lima_ray.config.storage.working_copy import CACHE, storage_folder
from lima_ray.data.examples import write_examples
from lima_ray.generation.arguments import GenerationJob
from lima_ray.generation.job import generate
from lima_ray.records.example import Example
from lima_ray.records.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
OUTAGE_S = 60.0
"""Longer than pyarrow itself tries again."""


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with s3_store() as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def cluster(store: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    del store
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(tmp_path_factory.mktemp("disk")))
        patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        with ray_cluster(cpus=4):
            yield


def wait_for_object(store: S3Server, name: str, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while name not in store.names():
        assert time.monotonic() < deadline, f"{name} never came"
        time.sleep(0.05)


def test_a_run_outlives_an_outage_and_is_used_from_another_disk(
    recipe: Recipe, store: S3Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe.override({"cluster.workers": 2, "checkpoint.state_every_steps": 2})
    plain = train.fit(recipe.model_copy(update={"name": "plain"}))
    stored = recipe.override({"runs_dir": store.url("runs"), "name": "stored"})

    def go_down() -> None:
        wait_for_object(store, "runs/stored/state/.step-000002.manifest.json")
        store.stop()
        time.sleep(OUTAGE_S)
        store.start()

    outage = threading.Thread(target=go_down)
    outage.start()
    run = train.fit(stored)
    outage.join()
    assert [s["loss"] for s in run.steps()] == [s["loss"] for s in plain.steps()]
    assert sum(m["kind"] == "start" for m in run.metrics()) == 1
    made = (plain.export_dir / "model.safetensors").read_bytes()
    names = store.names("runs/stored/")
    assert {"metrics.jsonl", "recipe.yaml", "loss.png", "export_check.json"} <= set(names)
    assert not [name for name in names if name == "lock"]

    shutil.rmtree(storage_folder())
    before = store.names("runs/stored/metrics.jsonl"), len(store.objects.by_name)
    again = train.fit(stored)  # finished, and known to be so from the store alone
    assert (store.names("runs/stored/metrics.jsonl"), len(store.objects.by_name)) == before
    assert len(again.steps()) == 9 and not (again.epoch_dir(1)).exists()
    job = GenerationJob(model=store.url("runs/stored"), prompts=prompts(tmp_path), out=tmp_path)
    assert [r.model for r in generate(job)] == ["stored"]
    url = store.url("runs/stored/export")
    assert generate(job.model_copy(update={"model": url, "out": tmp_path / "more"}))
    copy = storage_folder() / "read"
    assert next(copy.rglob("export/model.safetensors")).read_bytes() == made
    capfd.readouterr()
    with pytest.raises(UserError, match=r"optim\.learning_rate"):
        train.fit(stored.override({"optim.learning_rate": 0.5}))
    with pytest.raises(SystemExit):
        run_command("select", [store.url("runs/stored")])
    assert "names no judge" in capfd.readouterr().err


def kill_users_of(disk: Path) -> None:
    """Kill every process whose working copies are on a disk, Ray's own among them."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(CACHE) == str(disk):
                process.kill()
                process.wait(30)


def prompts(folder: Path) -> str:
    file = folder / "prompts.jsonl"
    write_examples([Example(("the cat reads",), id="one", source="words")], file)
    return str(file)


def test_a_kill_in_mid_upload_loses_nothing(
    recipe: Recipe, store: S3Server, tmp_path: Path
) -> None:
    point = {"checkpoint.state_every_steps": 2, "cluster.workers": 2}
    whole = train.fit(recipe.override(point | {"name": "whole"}))
    killed = recipe.override(point | {"runs_dir": store.url("runs"), "name": "killed"})
    killed.save(tmp_path / "killed.yaml")
    command = [sys.executable, "-m", "lima_ray.train", str(tmp_path / "killed.yaml")]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment |= {CACHE: str(tmp_path / "first"), "RAY_ADDRESS": "local"}
    arrived = threading.Event()

    def hold_the_fourth_state(method: str, name: str) -> None:
        if method in ("PUT", "POST") and "killed/state/step-000004/" in name:
            arrived.set()
            raise ConnectionError  # half of it is there, and no more comes

    store.objects.before = hold_the_fourth_state
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    assert arrived.wait(300)
    time.sleep(6)  # longer than metrics take to be uploaded
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kill_users_of(tmp_path / "first")  # workers outlive their driver by moments
    store.objects.before = lambda method, name: None
    names = store.names("runs/killed/state/")
    assert ".step-000002.manifest.json" in names
    environment[CACHE] = str(tmp_path / "second")
    subprocess.run(command, env=environment, check=True, timeout=600)
    shutil.rmtree(storage_folder(), ignore_errors=True)
    run = Run(killed.run_dir)
    run.refresh()
    assert [m["step"] for m in run.metrics() if m["kind"] == "start"] == [0, 2]
    assert [s["loss"] for s in run.steps()] == [s["loss"] for s in whole.steps()]
    assert [state.step for state in run.states()] == [9, 8]


def test_nodes_of_a_cluster_need_no_common_disk(store: S3Server, tmp_path: Path) -> None:
    """The driver's node has no room for workers; each of two others has one, and its own disk."""
    disks = [tmp_path / f"node-{number}" for number in range(3)]
    point = {"runs_dir": store.url("runs"), "train.zero_stage": 3}
    with local_cluster() as nodes:
        for disk in disks[1:]:
            nodes.add_nodes(variables={CACHE: str(disk)})
        ended = run(nodes, small_training(tmp_path, "spread", **point), {CACHE: str(disks[0])})
        assert ended.returncode == 0, ended.stdout + ended.stderr
    assert any("spread/export/" in name for name in store.names())
    held = [{file.name for file in disk.rglob("*.pt")} for disk in disks]
    assert held[0] == set() and held[1] and held[2] and not held[1] & held[2]


@pytest.fixture
def google() -> Iterator[str]:
    """The URL of a bucket of a server that speaks Google Cloud Storage."""
    server = pytest.importorskip(
        "gcp_storage_emulator.server", reason="needs `pip install gcp-storage-emulator`"
    )
    port = free_port()
    running = server.create_server("127.0.0.1", port, in_memory=True, default_bucket="lima")
    running.start()
    yield f"gs://lima/runs?endpoint_override=127.0.0.1:{port}&scheme=http&anonymous=true"
    running.stop()


def test_a_run_lives_in_google_cloud_storage(recipe: Recipe, google: str, tmp_path: Path) -> None:
    plain = train.fit(recipe.model_copy(update={"name": "plain"}))
    stored = recipe.override({"runs_dir": google, "name": "stored"})
    losses = [s["loss"] for s in train.fit(stored).steps()]
    assert losses == [s["loss"] for s in plain.steps()]
    shutil.rmtree(storage_folder())
    assert [s["loss"] for s in train.fit(stored).steps()] == losses  # finished, by the bucket alone
    model = str(parse_url(google) / "stored" / "export")
    job = GenerationJob(model=model, prompts=prompts(tmp_path), out=tmp_path)
    assert [r.model for r in generate(job)] == ["stored"]
