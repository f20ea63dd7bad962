"""Joining Ray: an address where nobody answers, and what Ray does not need to say."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ray_cluster
from ray._private import services
from ray._private.services import find_bootstrap_address
from ray._private.utils import write_ray_address
from ray.exceptions import OutOfMemoryError

from lima_ray.config import cluster
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.records.run import Run
from lima_ray.training import failures
from lima_ray.training.progress import TrainingProgress
from lima_ray.training.schedule import Schedule


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}"])
def test_a_dead_address_is_refused_at_once(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = form.format(closed.getsockname()[1])
    monkeypatch.setenv("RAY_ADDRESS", address)
    began_s = time.monotonic()
    with pytest.raises(UserError, match=rf"RAY_ADDRESS is {address}, and no Ray .*`unset RAY_ADD"):
        cluster.check_address()
    assert time.monotonic() - began_s < 2 * cluster.CONNECT_TIMEOUT_S
    for unknown in ("no.such.host.invalid:6379", "a..b:1"):
        monkeypatch.setenv("RAY_ADDRESS", unknown)
        with pytest.raises(UserError, match=rf"{re.escape(unknown)}, and no Ray cluster"):
            cluster.check_address()
    # As in `ray.init`, an address that is given counts before that of the environment.
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:1 .*Start it"):
        cluster.check_address("127.0.0.1:1")


def test_addresses_that_answer_or_start_a_ray_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as open_port:
        answers = f"127.0.0.1:{open_port.getsockname()[1]}"
        for address in (answers, f"ray://{answers}", "local", "auto", ""):
            monkeypatch.setenv("RAY_ADDRESS", address)
            assert cluster.check_address() is None
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        assert cluster.check_address(answers) == answers


def test_a_cluster_that_this_machine_belonged_to_and_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray keeps its address in a file, which a killed one leaves behind."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert cluster.check_address() is None
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        write_ray_address(address, str(tmp_path / "ray"))
        assert find_bootstrap_address(None) == address
        assert cluster.check_address() is None and cluster.check_address("auto") == "auto"
    assert cluster.check_address() == "local"
    assert f"{address}) is gone" in capsys.readouterr().out
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: set[str]())
    with pytest.raises(UserError, match=rf"at {address}, does not answer .* `ray stop` here"):
        cluster.check_address("auto")
    write_ray_address("192.0.2.1:6379", str(tmp_path / "ray"))
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(UserError, match=r"at 192\.0\.2\.1:6379, does not answer"):
        cluster.check_address()


@pytest.mark.skipif(sys.platform != "linux", reason="Ray's wheel has jemalloc for Linux alone")
def test_a_worker_of_a_large_base_on_a_cpu_allocates_by_jemalloc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", "/hub")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"")
    assert cluster.PRELOAD not in cluster.training_environment(False, 3, str(tmp_path))
    os.truncate(weights, cluster.LARGE_BASE_BYTES)
    on_cpu = cluster.training_environment(False, 3, str(tmp_path))
    asked = "print('jemalloc' in open('/proc/self/maps').read())"
    said = subprocess.check_output([sys.executable, "-c", asked], env=os.environ | on_cpu)
    assert said.split() == [b"True"]
    assert (on_cpu["OMP_NUM_THREADS"], on_cpu["HF_HOME"]) == ("3", "/hub")
    assert cluster.PRELOAD not in cluster.training_environment(True, 1, str(tmp_path))
    monkeypatch.setenv(cluster.PRELOAD, "own.so")
    assert cluster.training_environment(False, 1, "meta/llama")[cluster.PRELOAD].startswith(
        "own.so:"
    )


def test_rays_environment_is_ours_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in cluster.RAY_DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    niceness = next(iter(cluster.RAY_DEFAULTS))
    monkeypatch.setenv(niceness, "7")
    cluster.set_ray_defaults()
    assert os.environ[niceness] == "7"
    assert "A worker died" in os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"]
    log = logging.getLogger("ray._private.authentication.authentication_token_setup")
    log.warning("Token authentication is enabled for this Ray cluster. Set x")
    log.warning("Token authentication is disabled for this Ray cluster. Anyone can")
    assert ["disabled" in record.getMessage() for record in caplog.records] == [True]


def test_a_task_has_the_judges_key_that_the_driver_has(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ray_cluster(cpus=1):
        monkeypatch.setenv("OPENAI_API_KEY", "the key")  # after the node has started
        assert cluster.run_as_task(lambda: os.environ["OPENAI_API_KEY"], recipe) == "the key"


def test_why_workers_failed_is_noted_by_rank(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert failures.read_failures(run) == []
    died = RuntimeError("The actor died. Worker exit detail: Worker unexpectedly exits with code 2")
    callback = failures.FailureLog(run)
    callback.after_exception(None, {1: died, 0: died})
    callback.after_exception(None, {0: RuntimeError("Connection closed"), 1: died})
    callback.after_exception(None, {1: ValueError("Traceback\n  x\nValueError: no room")})
    full = "killed due to the node running low on memory. Memory was 22.5GB used / 23.5GB limit (1)"
    callback.after_exception(None, {0: OutOfMemoryError(f"{full}\nRefer to the documentation")})
    *other, memory = failures.read_failures(run)
    assert "worker 0 failed: its node ran low on memory, 22.5GB of 23.5GB in use; ask" in memory
    assert other == [
        "workers 0, 1 failed: its process ended unexpectedly (killed, out of memory, or crashed)",
        "worker 1 failed: its process ended unexpectedly (killed, out of memory, or crashed); "
        "worker 0 failed: RuntimeError: Connection closed",
        "worker 1 failed: ValueError: ValueError: no room",
    ]


def test_a_failure_with_brackets_is_printed_as_it_is(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "worker 0 failed: [/pytorch/gloo/pair.cc:537] Read error [127.0.0.1]: [bold]reset"
    run = Run(tmp_path)
    with TrainingProgress(run, recipe, Schedule.of(recipe, 24)):
        run.metrics_file.write_text(json.dumps({"kind": "note", "step": 0, "text": said}) + "\n")
    assert said in capsys.readouterr().out
