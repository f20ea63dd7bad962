"""Manifests of Kubernetes, checked as the API server and KubeRay's operator would."""

import copy
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kuberay_rules import ON_BY_DEFAULT, operator_errors
from kuberay_schema import crds, schema_errors, with_defaults
from kustomize import change, render
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema
from shell_commands import ROOT, check, commands

from lima_ray.config.command_line import COMMANDS, parse_arguments
from lima_ray.config.storage.bucket import parse_url
from serve.arguments import Args

KUBERAY = ROOT / "cluster" / "kuberay"
FOLDERS = sorted(
    file.parent.relative_to(KUBERAY).as_posix()
    for file in KUBERAY.rglob("kustomization.yaml")
    if file.parent.name != "image"
)
GATES = {"overlays/serve-rocksdb": "GCSFaultToleranceEmbeddedStorage"}
GATES["overlays/sweep-nightly"] = "RayCronJob"
"""What a default operator has off."""
SECRET = re.compile(r"TOKEN|KEY|PASSWORD|SECRET|NETRC")
Manifest = dict[str, Any]


@cache
def rendered(folder: str) -> list[Manifest]:
    return render(KUBERAY / folder)


def of_ray(folder: str) -> list[Manifest]:
    """The objects of KubeRay, with their defaults."""
    return [with_defaults(m) for m in rendered(folder) if m["apiVersion"] == "ray.io/v1"]


def cluster_of(manifest: Manifest) -> Manifest:
    """The RayCluster's spec inside an object of KubeRay."""
    spec = manifest["spec"]
    spec = spec.get("jobTemplate", spec)
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def groups(manifest: Manifest) -> list[Manifest]:
    cluster = cluster_of(manifest)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods(folder: str) -> Iterator[Manifest]:
    """Yield the spec of every pod that a folder's objects start."""
    for manifest in rendered(folder):
        if manifest["kind"] == "StatefulSet":
            yield manifest["spec"]["template"]["spec"]
    for manifest in of_ray(folder):
        spec = manifest["spec"].get("jobTemplate", manifest["spec"])
        yield from (group["template"]["spec"] for group in groups(manifest))
        if "submitterPodTemplate" in spec:
            yield spec["submitterPodTemplate"]["spec"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_api_server_takes_every_manifest(folder: str) -> None:
    for manifest in rendered(folder):
        if manifest["apiVersion"] == "ray.io/v1":
            assert schema_errors(manifest) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_operator_takes_every_manifest(folder: str) -> None:
    gate = GATES.get(folder)
    for manifest in of_ray(folder):
        assert operator_errors(manifest, ON_BY_DEFAULT | {str(gate)}) == []
        assert bool(operator_errors(manifest)) == bool(gate), "needs its gate, and no other does"
    if gate:
        told = (KUBERAY / folder / "kustomization.yaml").read_text()
        values = yaml.safe_load((KUBERAY / "operator-values.yaml").read_text())
        assert gate in told and {"name": gate, "enabled": True} in values["featureGates"]


CHANGES = yaml.safe_load((ROOT / "tests" / "data" / "kuberay_broken.yaml").read_text())


def title(change: Manifest) -> str:
    return f"{change['in']}: {change['refused']}"


def changed(manifest: Manifest, put: dict[str, Any]) -> Manifest:
    for path, value in put.items():
        step = {"op": "remove" if value is None else "add", "path": path, "value": value}
        change(manifest, step)
    return manifest


@pytest.mark.parametrize("given", CHANGES["schema"], ids=title)
def test_the_api_server_refuses(given: Manifest) -> None:
    manifest = changed(copy.deepcopy(own(given["in"])), given["put"])
    assert given["refused"] in "\n".join(schema_errors(manifest))


@pytest.mark.parametrize("given", CHANGES["operator"], ids=title)
def test_the_operator_refuses(given: Manifest) -> None:
    (manifest,) = of_ray(given["in"])
    before = operator_errors(manifest)
    found = [e for e in operator_errors(changed(manifest, given["put"])) if e not in before]
    assert any(given["refused"] in error for error in found), found


def test_defaults_are_filled_before_what_is_required() -> None:
    manifest = copy.deepcopy(own("cluster"))
    group = manifest["spec"]["workerGroupSpecs"][0]
    for field in ("replicas", "minReplicas", "maxReplicas"):
        del group[field]
    assert schema_errors(manifest) == []
    filled = with_defaults(manifest)["spec"]["workerGroupSpecs"][0]
    assert (filled["replicas"], filled["minReplicas"]) == (0, 0) and filled[
        "maxReplicas"
    ] == 2**31 - 1
    assert "minReplicas" not in group
    del manifest["spec"]["headGroupSpec"]["template"]
    assert "'template' is a required property" in "\n".join(schema_errors(manifest))


def own(folder: str) -> Manifest:
    (found,) = [m for m in rendered(folder) if m["apiVersion"] == "ray.io/v1"]
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_ray_asks_for_a_token_and_is_the_version_of_the_image(folder: str) -> None:
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.M)
    for manifest in of_ray(folder):
        cluster = cluster_of(manifest)
        assert cluster["authOptions"] == {"mode": "token", "secretName": "lima-ray-token"}
        assert pinned and cluster["rayVersion"] == pinned[1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_hold_to_the_restricted_standard(folder: str) -> None:
    """No root, no rights, pinned images, secrets by reference, no needless API token."""
    for pod in pods(folder):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert re.search(r":[\w.-]*\d[\w.-]*$", container["image"]), container["image"]
            assert set(container["resources"]) == {"requests", "limits"}
            for variable in container.get("env", []):
                value = variable.get("value", "")
                assert not SECRET.search(variable["name"]) or value.startswith("/") or not value
        for volume in pod.get("volumes", []):
            assert set(volume) - {"name"} <= {"persistentVolumeClaim", "secret", "emptyDir", "csi"}
    for manifest in of_ray(folder):
        grows = cluster_of(manifest).get("enableInTreeAutoscaling")
        for number, group in enumerate(groups(manifest)):
            mounted = group["template"]["spec"].get("automountServiceAccountToken", True)
            assert mounted == bool(grows and number == 0)


@pytest.mark.parametrize("folder", FOLDERS)
def test_claims_and_mounts_lead_somewhere(folder: str) -> None:
    claims = {
        m["metadata"]["name"]
        for m in (*rendered("common"), *rendered(folder))
        if m["kind"] == "PersistentVolumeClaim"
    }
    assert "lima-shared" in claims
    for pod in pods(folder):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        assert len(volumes) == len(pod.get("volumes", []))
        named = [
            v["persistentVolumeClaim"]["claimName"]
            for v in volumes.values()
            if len(v) and ("persistentVolumeClaim" in v)
        ]
        assert set(named) <= claims
        for mount in (m for c in pod["containers"] for m in c.get("volumeMounts", [])):
            assert mount["name"] in volumes or mount["name"] == "data"  # postgres's own claim


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f != "common"])
def test_the_end_of_what_a_folder_makes_leaves_runs_and_namespace(folder: str) -> None:
    kinds = {m["kind"] for m in rendered(folder)}
    assert not kinds & {"Namespace", "PersistentVolumeClaim", "NetworkPolicy"}


def test_all_of_a_bucket_s_training_is_in_it() -> None:
    (job,) = of_ray("overlays/train-bucket")
    words = job["spec"]["entrypoint"].split()
    recipe = parse_arguments(COMMANDS["train"], words[3:]).recipe
    names = [recipe.model.base, recipe.data.train, recipe.data.test, recipe.runs_dir]
    assert [parse_url(name).scheme for name in names] == ["s3"] * 4
    used = [recipe.data.dev, recipe.data.heldout, recipe.select.reference]
    assert not any(used), "more to be brought to the bucket"


def test_a_bucket_s_export_is_served_like_the_shared_one() -> None:
    configs = [
        yaml.safe_load(of_ray(folder)[0]["spec"]["serveConfigV2"])
        for folder in ("serve", "overlays/serve-bucket")
    ]
    models = [config["applications"][0]["args"].pop("model") for config in configs]
    assert configs[0] == configs[1]
    runs_dir, run = "s3://example-lima/runs", "lima-7b/export"
    assert models == [f"/shared/runs/{run}", f"{runs_dir}/{run}"]
    (job,) = of_ray("overlays/train-bucket")
    assert f" --runs_dir {runs_dir} " in job["spec"]["entrypoint"]


@pytest.mark.parametrize("folder", ["train-bucket", "serve-bucket"])
def test_pods_of_a_bucket_have_an_identity_and_room_instead_of_a_claim(folder: str) -> None:
    (manifest,) = of_ray(f"overlays/{folder}")
    accounts = {m["metadata"]["name"] for m in rendered("common") if m["kind"] == "ServiceAccount"}
    used = {group["template"]["spec"]["serviceAccountName"] for group in groups(manifest)}
    assert len(used) == 1 and used < accounts
    for group in groups(manifest):
        pod = group["template"]["spec"]
        assert not any("persistentVolumeClaim" in volume for volume in pod["volumes"])
        (container,) = pod["containers"]
        if "nvidia.com/gpu" in container["resources"]["limits"]:
            assert "ephemeral-storage" in container["resources"]["requests"]
        variables = {one["name"]: one.get("value") for one in container["env"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounts[variables["LIMA_STORAGE_CACHE"]] in {v["name"] for v in pod["volumes"]}


@pytest.mark.parametrize("folder", FOLDERS)
def test_entrypoints_are_commands_whose_paths_are_mounted(folder: str) -> None:
    for manifest in of_ray(folder):
        spec = manifest["spec"].get("jobTemplate", manifest["spec"])
        if "entrypoint" not in spec:
            continue
        for words in commands(spec["entrypoint"]):
            check(words)
        paths = re.findall(r" (/\w+)/", spec["entrypoint"])
        in_bucket = re.search(r"--runs_dir (s3|gs)://", spec["entrypoint"])
        assert in_bucket or "/shared" in paths
        for group in groups(manifest):
            container = group["template"]["spec"]["containers"][0]
            if in_bucket:
                variables = {one["name"]: one.get("value") for one in container["env"]}
                paths = [variables["LIMA_STORAGE_CACHE"]]
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert set(paths) <= mounted


def test_a_training_is_tried_again_under_the_same_name() -> None:
    for folder in ("train", "overlays/train-kueue", "overlays/train-bucket"):
        (job,) = of_ray(folder)
        assert job["spec"]["backoffLimit"] > 0 and " --name lima-7b " in job["spec"]["entrypoint"]
    (job,) = of_ray("overlays/train-kueue")
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "lima"}
    assert job["spec"]["suspend"] and job["spec"]["shutdownAfterJobFinishes"]


def test_gpus_are_as_many_as_the_recipe_and_the_replicas_want() -> None:
    for folder, gpus in (("train", 8), ("cluster", 8), ("serve", 2)):
        (manifest,) = of_ray(folder)
        (group,) = groups(manifest)[1:]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert group["maxReplicas"] * int(limits["nvidia.com/gpu"]) == gpus


def test_what_serves_has_keys_and_logins(brief_dir: Path, tmp_path: Path) -> None:
    (service,) = of_ray("serve")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (app,) = config.applications
    given = dict(app.args or {})
    assert given["api_keys_file"].startswith("/etc/lima/") and given["login_file"].startswith(
        "/etc/lima/"
    )
    assert given["database"].startswith("postgresql") and "@" in given["database"]
    assert ":" not in given["database"].partition("//")[2].partition("@")[0], "a password"
    for name in ("api_keys_file", "login_file"):
        (tmp_path / name).write_text("x\n")
        given[name] = str(tmp_path / name)
    args = Args.model_validate(given | {"model": str(brief_dir)})
    assert args.replicas == 2 and args.gpus == 1
    with pytest.raises(ValidationError):
        Args.model_validate(given)  # the model's path is looked at
    assert config.http_options.port == 8000
    (engine,) = app.deployments
    assert (engine.name, engine.max_surge_percent) == ("Engine", 0), "a change waits for spare GPUs"
    names = {
        p["name"]: p["containerPort"]
        for p in groups(service)[1]["template"]["spec"]["containers"][0]["ports"]
    }
    assert names["serve"] == 8000


def test_policies_let_in_ray_and_name_no_address() -> None:
    policies = [m for m in rendered("common") if m["kind"] == "NetworkPolicy"]
    assert {"Ingress"} == {kind for policy in policies for kind in policy["spec"]["policyTypes"]}
    text = str(policies)
    assert "ipBlock" not in text and "8265" in text
    for policy in policies:
        for entry in policy["spec"]["ingress"]:
            assert entry["from"], "a rule without `from` lets in everybody"


def test_a_kustomization_that_the_test_does_not_know_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kustomization.yaml"
    file.write_text("resources: []\nnamePrefix: x-\n")
    with pytest.raises(ValueError, match="namePrefix"):
        render(tmp_path)
    file.write_text("resources: []\npatches: [{target: {kind: RayJob}, path: p.yaml}]\n")
    with pytest.raises(ValueError, match="not there"):
        render(tmp_path)


def test_the_schemas_are_the_release_that_the_guide_installs() -> None:
    assert crds()["license"] == "Apache-2.0"
    assert f"--version {crds()['version']} " in (ROOT / "cluster" / "README.md").read_text()
