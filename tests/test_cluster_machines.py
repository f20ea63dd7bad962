"""Machines by `ray up` and Slurm: Ray's own schema, the token, the loopback, and the scripts."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli
from ray.serve.schema import ServeDeploySchema
from shell_commands import ROOT, check, commands, parse_click

from benchmarks.local_servers.http_server import QuietHandler, listening
from serve.arguments import Args

CLUSTER = ROOT / "cluster"
LAUNCHED = sorted(path.name for path in (CLUSTER / "ray").glob("*.yaml"))
SCRIPTS = ["environment.sh", "kuberay/drain_node.sh", "ray/spot_notice.sh", "slurm/lima.sbatch"]


def launched(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / "ray" / name).read_text())


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_up_takes_every_file(name: str) -> None:
    validate_config(prepare_config(launched(name)))


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("aws.yaml", {"cluster_names": "x"}, "cluster_names"),
    ("aws.yaml", {"max_workers": "1"}, "'1' is not of type"),
    ("aws.yaml", {"head_node_type": "heads"}, "must be one of"),
    (
        "gcp.yaml",
        {"available_node_types": {"head": {"node_config": {}}}},
        "'resources' is a required",
    ),
    ("on-premise.yaml", {"auth": {"ssh_usr": "lima"}}, "ssh_usr"),
]


@pytest.mark.parametrize(("name", "fields", "message"), WRONG, ids=[w[2] for w in WRONG])
def test_ray_up_refuses(name: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises((jsonschema.ValidationError, ValueError), match=message):
        validate_config(prepare_config(launched(name) | fields))


@pytest.mark.parametrize("name", LAUNCHED)
def test_commands_of_machines_parse(name: str) -> None:
    config = launched(name)
    for key, lines in config.items():
        if key.endswith("_commands"):
            for line in lines:
                for words in commands(line):
                    check(words)


@pytest.mark.parametrize("name", LAUNCHED)
def test_machines_have_the_token_and_keep_the_dashboard_to_themselves(name: str) -> None:
    config = launched(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for role in ("head", "worker"):
        (start,) = [c for c in config[f"{role}_start_ray_commands"] if "ray start" in c]
        assert start.startswith("source ~/lima_ray/cluster/environment.sh && ")
        (words,) = [w for w in commands(start) if w[:2] == ["ray", "start"]]
        parsed = parse_click(ray_cli, words[1:])
        assert parsed["dashboard_host"] == "127.0.0.1"  # its default where a worker names none
        assert parsed["head"] == (role == "head")
    text = (CLUSTER / "ray" / name).read_text()
    assert "0.0.0.0" not in text
    assert not re.search(r"hf_[A-Za-z]{10}|AKIA[A-Z0-9]{16}|BEGIN .*PRIVATE KEY", text)


def test_spot_machines_are_spot_and_enough_for_the_recipe() -> None:
    config = prepare_config(launched("aws-spot.yaml"))
    node = config["available_node_types"]["gpu_spot"]
    assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert node["max_workers"] == 8 == config["max_workers"]
    assert "InstanceMarketOptions" not in config["available_node_types"]["head"]["node_config"]


def test_the_config_of_two_replicas_has_keys_and_logins(brief_dir: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((CLUSTER / "serve.yaml").read_text())
    (app,) = ServeDeploySchema.model_validate(config).applications
    given = dict(app.args or {})
    for name in ("api_keys_file", "login_file"):
        assert given[name].startswith("/shared/")
        (tmp_path / name).write_text("x\n")
        given[name] = str(tmp_path / name)
    args = Args.model_validate(given | {"model": str(brief_dir)})
    assert (args.replicas, args.gpus, args.page_replicas) == (2, 1, 1)
    assert args.names(page=True) is None, "keys and logins guard all of it"


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_bash(name: str) -> None:
    subprocess.run(["bash", "-n", CLUSTER / name], check=True)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, "--shell=bash", CLUSTER / name], check=True, cwd=ROOT)


def environment(folder: Path, venv: str) -> subprocess.CompletedProcess[str]:
    """Source environment.sh in another folder, and tell the variables that it leaves."""
    kept = {key: os.environ[key] for key in ("HOME", "PATH")}
    return subprocess.run(
        ["bash", "-c", f"source {CLUSTER}/environment.sh && env"],
        env=kept | {"LIMA_VENV": venv, "LIMA_SHARED": "/data"},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_environment_asks_for_the_token_and_finds_the_checkout(tmp_path: Path) -> None:
    told = environment(tmp_path, sys.prefix).stdout
    parts = (line.partition("=") for line in told.splitlines())
    found = {name: value for name, _, value in parts}
    assert found["RAY_AUTH_MODE"] == "token" and found["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert found["PATH"].startswith(f"{sys.prefix}/bin:") and found["PYTHONPATH"] == str(ROOT)
    assert Path(found["RAY_SERVE_HAPROXY_BINARY_PATH"]).is_file()
    assert found["HF_HOME"] == "/data/huggingface"


def test_ray_does_not_start_in_an_environment_without_the_package(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    ended = environment(tmp_path, str(tmp_path))
    assert ended.returncode == 1 and "RAY_AUTH_MODE" not in ended.stdout


NOTICES = {
    "aws": {
        "PUT /latest/api/token": "a-token",
        "GET /latest/meta-data/spot/instance-action": '{"action": "terminate", "time": "%s"}',
    },
    "google": {"GET /computeMetadata/v1/instance/preempted": "TRUE"},
}
"""What the metadata service of a machine answers once it is to end."""


@pytest.mark.parametrize(("provider", "least", "most"), [("aws", 90, 110), ("google", 20, 20)])
def test_ray_is_told_of_a_spot_notice_once_there_is_one(
    provider: str, least: int, most: int, tmp_path: Path
) -> None:
    asked, noticed = list[str](), threading.Event()

    class Metadata(QuietHandler):
        def do_GET(self) -> None:
            name = f"{self.command} {self.path}"
            asked.append(name)
            answer = NOTICES[provider][name]
            if provider == "google":
                assert self.headers["Metadata-Flavor"] == "Google"
                answer = answer if noticed.is_set() else "FALSE"
            elif self.command == "GET":
                assert self.headers["X-aws-ec2-metadata-token"] == "a-token"
                if not noticed.is_set():
                    self.respond(404, {}, b"Not Found")
                    return
                ends = time.gmtime(time.time() + 120)
                answer %= time.strftime("%Y-%m-%dT%H:%M:%SZ", ends)
            self.respond(200, {}, answer.encode())

        do_PUT = do_GET

    told = tmp_path / "told"
    ray = tmp_path / "bin" / "ray"
    ray.parent.mkdir()
    ray.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {told}\n')
    ray.chmod(0o755)
    (ray.parent / "python").symlink_to(sys.executable)
    with listening(Metadata) as port:
        variables = {"SPOT_METADATA_URL": f"http://127.0.0.1:{port}", "LIMA_VENV": str(tmp_path)}
        watching = subprocess.Popen(
            [CLUSTER / "ray" / "spot_notice.sh", provider, "head:6379"],
            env=os.environ | variables | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
        )
        try:
            while len(asked) < 4:
                time.sleep(0.1)
            assert watching.poll() is None and not told.exists()
            noticed.set()
            assert watching.wait(60) == 0
        finally:
            watching.kill()
            watching.wait()
    parsed = parse_click(ray_cli, told.read_text().splitlines())
    assert parsed["address"] == "head:6379" and parsed["node_id"] is None
    assert parsed["reason"] == "DRAIN_NODE_REASON_PREEMPTION"
    assert least <= int(parsed["deadline_remaining_seconds"]) <= most


def test_slurm_starts_ray_with_flags_that_it_has_and_on_the_loopback() -> None:
    text = (CLUSTER / "slurm" / "lima.sbatch").read_text().replace("\\\n", " ")
    start = ray_cli.commands["start"]
    known = {name for option in start.params for name in [*option.opts, *option.secondary_opts]}
    lines = [line.split("${start[@]}")[-1] for line in text.splitlines() if "start[@]" in line]
    (common,) = re.findall(r"^start=\(ray start [^)]*", text, re.M)
    given = {flag for line in [common, *lines] for flag in re.findall(r"(--[a-z-]+)", line)}
    assert {"--head", "--address", "--block", "--dashboard-host"} <= given <= known
    assert "--dashboard-host=127.0.0.1" in text and "0.0.0.0" not in text
    with pytest.raises(click.ClickException):
        parse_click(ray_cli, ["start", "--dashboard-hosts=127.0.0.1"])
