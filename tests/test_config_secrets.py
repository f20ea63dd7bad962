"""Secrets: where they are read, and how workers get them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import ray
from conftest import ray_cluster

from lima_ray.config import cluster
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.secrets import sharing
from lima_ray.config.secrets.reading import SECRETS, describe_source, read_secret
from lima_ray.config.secrets.sharing import SharedSecrets
from lima_ray.generation.endpoint import read_key

CANARY = "sk-canary-1"


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


def test_a_secret_is_a_variable_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read_secret("OPENAI_API_KEY") == ""
    (tmp_path / "key").write_text(f"{CANARY}\n")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    assert read_secret("OPENAI_API_KEY") == read_key("OPENAI_API_KEY") == CANARY
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    assert read_secret("OPENAI_API_KEY") == "sk-other"
    monkeypatch.setenv("OPENAI_API_KEY", "")  # said to be none
    assert read_secret("OPENAI_API_KEY") == ""


def test_a_file_that_is_no_key_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert describe_source("MY_KEY") == (
        "MY_KEY, which is not set, or the file that MY_KEY_FILE names"
    )
    monkeypatch.setenv("MY_KEY_FILE", str(file))
    assert read_key("MY_KEY") == ""  # nodes name a file for whoever puts it there
    assert describe_source("MY_KEY") == f"{file} (MY_KEY_FILE), which is not there"
    file.mkdir()
    with pytest.raises(UserError, match=r"MY_KEY_FILE names .*key, which cannot be read \(Is a"):
        read_key("MY_KEY")
    file.rmdir()
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="it is no text"):
        read_key("MY_KEY")
    file.write_text(f"{CANARY}\nsecond")
    assert describe_source("MY_KEY") == f"{file} (MY_KEY_FILE)"
    with pytest.raises(UserError, match="the key in the file of MY_KEY_FILE has char") as error:
        read_key("MY_KEY")
    assert CANARY not in str(error.value)


def test_workers_get_the_secrets_that_the_driver_has(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(CANARY)
    with ray_cluster(cpus=1):  # its node has started before there is a secret
        assert SharedSecrets.of_driver() == SharedSecrets()
        monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
        monkeypatch.setenv("HF_TOKEN", "hf_canary")
        monkeypatch.setenv("THEIR_KEY", "sk-canary-2")

        def seen(*_: object) -> list[str | None]:
            return [os.environ.get(n) for n in ("OPENAI_API_KEY", "HF_TOKEN", "THEIR_KEY")]

        assert cluster.run_as_task(seen, recipe) == [CANARY, "hf_canary", None]

        class Actor:
            def __init__(self, shared: SharedSecrets) -> None:
                shared.enter_environment()

            async def see(self) -> list[str | None]:
                return seen()

        shared = SharedSecrets.of_driver("THEIR_KEY")
        assert "canary" not in repr(shared)
        actor: Any = ray.remote(Actor)
        assert ray.get(actor.remote(shared).see.remote()) == [CANARY, "hf_canary", "sk-canary-2"]


def test_secrets_in_a_jobs_runtime_env_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(sharing.JOB_CONFIG_ENV, raising=False)
    sharing.warn_of_shown_secrets()
    for job in ({}, {"runtime_env": None}, {"runtime_env": {"env_vars": {"HF_HOME": "x"}}}):
        monkeypatch.setenv(sharing.JOB_CONFIG_ENV, json.dumps(job))
        sharing.warn_of_shown_secrets()
    assert not capsys.readouterr().out
    given = {"runtime_env": {"env_vars": {"HF_TOKEN": "hf_canary"}}}
    monkeypatch.setenv(sharing.JOB_CONFIG_ENV, json.dumps(given))
    sharing.warn_of_shown_secrets()
    said = capsys.readouterr().out
    assert "HF_TOKEN stands in this job's runtime_env" in said and "canary" not in said
