"""The cluster's guide: its commands parse, and its secrets are those that the files ask for."""

import re
from pathlib import Path

import pytest
from shell_commands import ROOT, blocks, check, commands

CLUSTER = ROOT / "cluster"


def shown(page: Path) -> list[list[str]]:
    return [words for block in blocks(page.read_text()) for words in commands(block)]


@pytest.mark.parametrize("words", shown(CLUSTER / "README.md"), ids=" ".join)
def test_commands_of_the_guide_are_what_their_programs_take(words: list[str]) -> None:
    check(words)


WRONG = [
    "python -m lima_ray.trian lima-7b",
    "python -m lima_ray.train lima-7b --clusterr.workers 8",
    "python -m lima_ray.train lima-77b",
    "ray job submit --no-such-flag -- python -m lima_ray.train",
    "ray job submit -- python -m lima_ray.train --no.such 1",
    "ray up cluster/ray/azure.yaml",
    "ray start --hed",
    "serve run serve.app:build modle=runs/x",
    "serve deploy cluster/served.yaml",
    "sbatch --nodes=1 cluster/slurm/lima.sbatch python -m tune.sweep --no_such",
    "sbatch cluster/slurm/limo.sbatch python -m lima_ray.train",
    "kubectl apply -k cluster/kuberay/trains",
    "helm install kuberay-operator kuberay/kuberay-operator",
    "docker build --file cluster/Dockerfile --target gpu .",
    "docker push registry.example.com/lima_ray:latest",
    "make setpu",
    "source cluster/env.sh",
    "curl http://127.0.0.1:8000",
]


@pytest.mark.parametrize("line", WRONG)
def test_wrong_commands_are_refused(line: str) -> None:
    (words,) = commands(line)
    with pytest.raises(BaseException):  # noqa: B017  click, tyro and we refuse differently
        check(words)


def test_no_ray_starts_without_a_token() -> None:
    """Wherever Ray is started, in the guide or a file of the cluster, it asks for a token."""
    places = list(blocks((CLUSTER / "README.md").read_text()))
    places += [file.read_text() for file in CLUSTER.rglob("*.*") if file.suffix != ".md"]
    starting = [
        place
        for place in places
        if re.search(r"\bray start\b|rayClusterSpec:|rayClusterConfig:", place)
    ]
    assert len(starting) >= 8
    for place in starting:
        assert re.search(r"RAY_AUTH_MODE=token|environment\.sh|mode: token", place), place


def test_every_file_of_the_cluster_is_in_the_guide() -> None:
    text = (CLUSTER / "README.md").read_text()
    for folder in (CLUSTER / "kuberay" / "overlays").iterdir():
        assert f"`{folder.name}`" in text, folder
    for file in [*(CLUSTER / "ray").iterdir(), *(CLUSTER / "monitoring").glob("*.json")]:
        assert file.name in text, file


def test_secrets_that_manifests_name_are_made_in_the_guide() -> None:
    """Each Secret, and each of its keys that a path or a variable names."""
    made = {
        words[words.index("generic") + 1]: set(
            re.findall(r"--from-file[ =]*=?(\w+)", " ".join(words))
        )
        for words in shown(CLUSTER / "README.md")
        if "generic" in words
    }
    text = "".join(file.read_text() for file in (CLUSTER / "kuberay").rglob("*.yaml"))
    assert set(re.findall(r"secretName: ([\w-]+)", text)) == set(made)
    optional = {"netrc", "openai_api_key"}
    assert set(re.findall(r"/etc/lima/(\w+)", text)) <= made["lima-secrets"] | optional
    assert re.findall(r"secretKeyRef: \{name: (\S+), key: (\w+)\}", text) == [
        ("lima-postgres", "password")
    ]
    assert made["lima-ray-token"] == {"auth_token"}  # the key that KubeRay reads
    assert made["lima-postgres"] == {"password"}
