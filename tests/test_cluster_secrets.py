"""Secrets of a driver reach its workers, and nothing that Ray or we write shows them."""

from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
import ray_dumps
from cluster_jobs import BUSY_MACHINE, deployed, environment, python, run, train
from judged import reply, write_replies
from sweeps import quick_sweep

from benchmarks.drill.nodes import LocalCluster, local_cluster
from benchmarks.local_servers.chat_server import ChatServer, refused, serving
from benchmarks.local_servers.judge_server import JudgeServer
from lima_ray.config.secrets.reading import SECRETS
from lima_ray.web.passwords import login_line

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
CANARIES = {name: f"sk-canary-{number}" for number, name in enumerate(SECRETS)}
CANARIES["MLFLOW_TRACKING_URI"] = "https://me:sk-canary-uri@mlflow.invalid"
CANARIES["OTHER_KEY"] = "sk-canary-other"
SHOWN = "/tmp/canary-that-is-shown"
"""What a driver forwards by `runtime_env`; that it is found tells that the dumps are read."""
ENVIRONMENT = CANARIES | {"HF_HOME": SHOWN}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A node that writes down all that Ray can."""
    told = {"RAY_enable_export_api_write": "1", "RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}
    with local_cluster(head_cpus=4, variables=told | BUSY_MACHINE) as running:
        yield running


def look(cluster: LocalCluster, tmp_path: Path, *said: str) -> None:
    """Require that nothing shows a canary, and that the dumps show what a driver forwards."""
    shown = dict(ray_dumps.answers(cluster))
    shown["gcs"] = ray_dumps.key_values(cluster, environment(cluster))
    shown |= dict(ray_dumps.files(cluster.folder, tmp_path))
    shown |= {f"output {number}": text.encode() for number, text in enumerate(said)}
    assert ray_dumps.where("sk-canary", shown) == []
    found = ray_dumps.where(SHOWN, shown)
    for place in ("/api/v0/actors?detail=1", "export_events", str(cluster.gcs_folder)):
        assert any(place in name for name in found), found


def test_of_a_training_with_a_judge(cluster: LocalCluster, tmp_path: Path) -> None:
    with serving(ChatServer(grading=lambda question: "Fine.\n4")) as server:
        judge = {"judge": "endpoint", "endpoint": server.url, "endpoint_model": "judge"}
        fields = {f"select.{name}": value for name, value in judge.items()}
        ended = run(cluster, train(tmp_path, "it", **fields), ENVIRONMENT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {h["Authorization"] for h in server.headers} == {f"Bearer {CANARIES['OPENAI_API_KEY']}"}
    look(cluster, tmp_path, ended.stdout, ended.stderr)


def test_of_a_tracker(cluster: LocalCluster, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    fields = {"log.tracker": "wandb", "select.judge": "none", "optim.epochs": 1}
    offline = ENVIRONMENT | {"WANDB_MODE": "offline"}
    ended = run(cluster, train(tmp_path, "tracked", **fields), offline)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert list((tmp_path / "runs" / "tracked" / "wandb").glob("offline-run-*/*.wandb"))
    look(cluster, tmp_path, ended.stdout, ended.stderr)


def test_of_judges(cluster: LocalCluster, tmp_path: Path) -> None:
    for model in ("a", "b"):
        write_replies(tmp_path / model, [reply(model, f"p{n}") for n in range(6)])
    command = python("lima_ray.judge", *(f"{model}={tmp_path / model}" for model in ("a", "b")))
    command += ["--workers", "2", "--yes"]
    with serving(JudgeServer()) as server:
        judges = [f"judge@{server.url}", f"other@{server.url},api_key_env=OTHER_KEY"]
        flags = ["--out", str(tmp_path / "out"), "--judges", *judges]
        ended = run(cluster, [*command, *flags], ENVIRONMENT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    keys = {CANARIES["OPENAI_API_KEY"], CANARIES["OTHER_KEY"]}
    assert {h["Authorization"] for h in server.headers} == {f"Bearer {key}" for key in keys}
    with serving(ChatServer()) as server:
        server.answer = lambda body: refused(401, f"no {CANARIES['OPENAI_API_KEY']}")
        flags = ["--out", str(tmp_path / "no"), "--judges", f"judge@{server.url}"]
        denied = run(cluster, [*command, *flags], ENVIRONMENT)
    assert denied.returncode == 2 and "401 x no ***" in denied.stderr, denied.stderr
    look(cluster, tmp_path, ended.stdout, ended.stderr, denied.stdout, denied.stderr)


def test_of_a_sweep_with_a_judge(cluster: LocalCluster, tmp_path: Path) -> None:
    with serving(ChatServer(grading=lambda question: "Fine.\n4")) as server:
        judge = {"judge": "endpoint", "endpoint": server.url, "endpoint_model": "judge"}
        fields = {f"select.{name}": value for name, value in judge.items()}
        path = quick_sweep(tmp_path, seeds=[0], set=fields)
        ended = run(cluster, python("tune.sweep", path), ENVIRONMENT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {h["Authorization"] for h in server.headers} == {f"Bearer {CANARIES['OPENAI_API_KEY']}"}
    look(cluster, tmp_path, ended.stdout, ended.stderr)


def test_of_a_server(cluster: LocalCluster, tmp_path: Path, brief_dir: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "api_keys").write_text("sk-canary-api\n")
    line = login_line("anna", "sk-canary-login")
    (secret / "logins").write_text(f"{line}\n")
    args = {"model": str(brief_dir), "slots": 4, "threads": 1}
    args |= {"api_keys_file": str(secret / "api_keys"), "login_file": str(secret / "logins")}
    args["database"] = f"sqlite:///{tmp_path}/chat.sqlite"
    with deployed(cluster, tmp_path, args) as url, httpx.Client(base_url=url, timeout=60) as client:
        right = {"Authorization": "Bearer sk-canary-api"}
        model = client.get("/v1/models", headers=right).json()["data"][0]["id"]
        asked = {"model": model, "messages": [{"role": "user", "content": "the cat"}]}
        for key, status in (("api", 200), ("wrong", 401)):
            said = client.post(
                "/v1/chat/completions",
                json=asked | {"max_tokens": 4},
                headers={"Authorization": f"Bearer sk-canary-{key}"},
            )
            assert said.status_code == status, said.text
        for word, status in (("wrong", 401), ("login", 303)):
            fields = {"name": "anna", "password": f"sk-canary-{word}"}
            assert client.post("/chat/login", data=fields).status_code == status
        shown = dict(ray_dumps.answers(cluster))
        shown["gcs"] = ray_dumps.key_values(cluster, environment(cluster))
        shown |= dict(ray_dumps.files(cluster.folder))
        shown |= {str(file): file.read_bytes() for file in tmp_path.glob("chat.sqlite*")}
    assert ray_dumps.where("sk-canary", shown) == []
    assert ray_dumps.where(line.partition(":")[2], shown) == []
    assert any("/api/serve/applications/" in name for name in ray_dumps.where(str(secret), shown))
