"""Jobs submitted to a cluster of several nodes: their logs, exit codes, and what a stop leaves."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
import yaml
from cluster_jobs import (
    BUSY_MACHINE,
    deployed,
    in_use,
    python,
    run,
    status,
    submit,
    train,
    until,
    write_config,
)
from judged import reply, write_replies
from sweeps import quick_sweep, trainings

from benchmarks.drill.nodes import LocalCluster, local_cluster
from benchmarks.local_servers.chat_server import serving
from benchmarks.local_servers.judge_server import JudgeServer
from lima_ray.records.run import Run
from lima_ray.records.verdict import read_verdicts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
KEY = "sk-of-a-file"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A head that takes no work, and two nodes of two cores; the judge's key is a file of each."""
    key = tmp_path_factory.mktemp("secrets") / "key"
    key.write_text(KEY)
    with local_cluster(variables=BUSY_MACHINE | {"OPENAI_API_KEY_FILE": str(key)}) as running:
        running.add_nodes(2, cpus=2)
        yield running


@pytest.fixture(autouse=True)
def everything_is_given_back(cluster: LocalCluster) -> Iterator[None]:
    """After each job nothing of it is left: no actor, placement group, core or process."""
    yield
    until(lambda: not in_use(cluster), lambda: f"still in use: {in_use(cluster)}")


def refused(cluster: LocalCluster, *command: str | Path) -> str:
    """Submit what has a mistake; return the job's output, which has the error and no traceback."""
    ended = submit(cluster, *command)
    assert ended.returncode != 0
    assert "exit code 2" in ended.stdout + ended.stderr and "Traceback" not in ended.stdout
    found = re.search(r"^error: .*", ended.stdout, re.M)
    assert found, ended.stdout + ended.stderr
    return found[0]


def test_a_training(cluster: LocalCluster, tmp_path: Path) -> None:
    ended = submit(cluster, *train(tmp_path, "first"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = Run(tmp_path / "runs" / "first")
    assert [step["step"] for step in found.steps()] == [1, 2, 3, 4]
    assert f"model        {found.export_dir}" in ended.stdout and "loss " in ended.stdout
    assert (found.export_dir / "model.safetensors").exists()
    assert "succeeded" in ended.stdout


def test_a_training_with_a_mistake(cluster: LocalCluster, tmp_path: Path) -> None:
    said = refused(cluster, *train(tmp_path, "wrong", **{"data.train": "no-such.jsonl"}))
    assert "no-such.jsonl" in said and not (tmp_path / "runs" / "wrong").exists()
    said = refused(cluster, *train(tmp_path, "large", **{"cluster.workers": 32}))
    assert "32 workers need 32 CPUs; the cluster of 3 nodes has 4 CPUs" in said


def test_a_sweep(cluster: LocalCluster, tmp_path: Path) -> None:
    path = quick_sweep(tmp_path, seeds=[0])
    ended = submit(cluster, *python("tune.sweep", path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2/2 after" in ended.stdout and "report  " in ended.stdout
    assert {line["status"] for line in trainings(tmp_path)} == {"done"}
    path = quick_sweep(tmp_path, "wrong", axes={"optim.no_such": {"grid": [1]}})
    assert "no_such" in refused(cluster, *python("tune.sweep", path))


def test_a_curation(cluster: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    text = "Copper pans spread the heat of the flame evenly, and number {n} of them does not burn."
    rows = [{"conversations": [f"Why pan {n}?", text.format(n=n)], "id": n} for n in range(8)]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "own" / "rows.jsonl").write_text(lines)
    own = {"kind": "examples", "path": "rows.jsonl", "rows": 5}
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(yaml.safe_dump({"near_duplicates": 1, "sources": {"own": own}}))
    command = python("lima_ray.curate", recipe, "--inputs", tmp_path / "own")
    ended = submit(cluster, *command, "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len((tmp_path / "out" / "train.jsonl").read_text().splitlines()) == 5
    assert "own" in ended.stdout
    said = refused(cluster, *command, "--out", tmp_path / "other", "--sources.own.kind", "none")
    assert "none" in said


def test_judging_with_a_key_that_is_a_file(cluster: LocalCluster, tmp_path: Path) -> None:
    for model in ("a", "b"):
        write_replies(tmp_path / model, [reply(model, f"p{n}") for n in range(6)])
    command = python("lima_ray.judge", *(f"{model}={tmp_path / model}" for model in ("a", "b")))
    with serving(JudgeServer()) as server:
        judges = ["--judges", f"judge@{server.url}", "--yes"]
        ended = submit(cluster, *command, *judges, "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdicts = read_verdicts(tmp_path / "out" / "verdicts.jsonl")
    assert len(verdicts) == 12 and {one.status for one in verdicts} == {"read"}
    assert {h["Authorization"] for h in server.headers} == {f"Bearer {KEY}"}
    said = refused(cluster, *command, "--judges", "judge@ftp://x", "--out", tmp_path / "no")
    assert "ftp://x" in said


def test_a_deployment(cluster: LocalCluster, tmp_path: Path, brief_dir: Path) -> None:
    args = {"model": str(brief_dir), "page": False, "slots": 4, "threads": 1}
    with deployed(cluster, tmp_path, args) as url:
        model = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
        asked = {"model": model, "messages": [{"role": "user", "content": "the cat"}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=asked | {"max_tokens": 4})
        assert answer.status_code == 200 and answer.json()["choices"], answer.text
        # Serve builds an application after the command has ended, so `serve status` has mistakes.
        port = int(url.rpartition(":")[2])
        wrong = write_config(tmp_path, args | {"model": str(tmp_path / "none")}, port)
        assert run(cluster, ["serve", "deploy", wrong]).returncode == 0
        until(lambda: "DEPLOY_FAILED" in status(cluster), lambda: status(cluster))
        assert str(tmp_path / "none") in status(cluster)
        wrong.write_text("applications: [{import_path: 3}]")
        assert run(cluster, ["serve", "deploy", wrong]).returncode != 0


def test_a_job_that_is_stopped_goes_on_from_its_last_state(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    longer = {"optim.epochs": 30, "checkpoint.state_every_steps": 2, "select.judge": "none"}
    whole = submit(cluster, *train(tmp_path, "whole", **longer))
    assert whole.returncode == 0, whole.stdout + whole.stderr
    command, found = train(tmp_path, "stopped", **longer), Run(tmp_path / "runs" / "stopped")
    flags = ["--no-wait", "--submission-id", f"stopped-{cluster.port}"]
    assert submit(cluster, *command, flags=flags).returncode == 0
    until(lambda: found.metrics_file.exists() and len(found.steps()) >= 5)
    began_s = time.monotonic()
    stopped = run(cluster, ["ray", "job", "stop", flags[-1]])
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    until(lambda: not in_use(cluster), lambda: f"still in use: {in_use(cluster)}")
    assert time.monotonic() - began_s < 60
    done = found.steps()[-1]["step"]
    state = found.latest_state()
    assert state and 4 <= state.step <= done < 60
    logs = run(cluster, ["ray", "job", "logs", flags[-1]]).stdout
    said = re.search(r"the same command goes on from the state of step (\d+)", logs)
    assert said and 4 <= int(said[1]) <= state.step  # workers may end the one that they write
    ended = submit(cluster, *command)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    losses = {step["step"]: step["loss"] for step in found.steps()}
    assert losses == {s["step"]: s["loss"] for s in Run(tmp_path / "runs" / "whole").steps()}
    started = [m for m in found.metrics() if m["kind"] == "start"]
    assert len(started) == 2
