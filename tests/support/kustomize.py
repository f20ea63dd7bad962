"""Render a kustomization as `kustomize build` does, with the few of its features that ours use."""

import copy
import json
from pathlib import Path
from typing import Any

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "images", "patches"}


def render(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of a kustomization; ValueError where it has what this does not know."""
    return apply(folder, [])


def apply(folder: Path, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `found` and the folder's resources, changed as the folder says."""
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    if unknown := set(settings) - KNOWN:
        raise ValueError(f"{folder}: unknown {sorted(unknown)}")
    for name in settings.get("resources", []):
        path = folder / name
        found = [*found, *(read(path) if path.is_file() else render(path))]
    for name in settings.get("components", []):
        found = apply(folder / name, found)
    for patch in settings.get("patches", []):
        chosen = [one for one in found if one["kind"] == patch["target"]["kind"]]
        if not chosen:
            raise ValueError(
                f"{folder}: a patch for a {patch['target']['kind']}, which is not there"
            )
        for one in chosen:
            for step in yaml.safe_load((folder / patch["path"]).read_text(encoding="utf-8")):
                change(one, step)
    for image in settings.get("images", []):
        for one in found:
            rename_image(one, image)
    for one in found:
        if "namespace" in settings and one["kind"] not in ("Namespace", "PersistentVolume"):
            one["metadata"]["namespace"] = settings["namespace"]
    return found


def read(file: Path) -> list[dict[str, Any]]:
    """Return a file's objects; what YAML's aliases share is copied, so a patch changes one."""
    loaded = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    return [json.loads(json.dumps(one)) for one in loaded]


def change(manifest: Any, step: dict[str, Any]) -> None:
    """Do one step of a JSON patch (RFC 6902): add, replace or remove."""
    *parents, last = [p.replace("~1", "/").replace("~0", "~") for p in step["path"].split("/")[1:]]
    node = manifest
    for name in parents:
        node = node[int(name)] if isinstance(node, list) else node[name]
    value = copy.deepcopy(step.get("value"))
    if isinstance(node, list) and step["op"] == "add":
        node.insert(len(node) if last == "-" else int(last), value)
        return
    key = int(last) if isinstance(node, list) else last
    if step["op"] in ("replace", "remove"):
        node[key]  # must be there
    if step["op"] == "remove":
        del node[key]
    else:
        node[key] = value


def rename_image(node: Any, image: dict[str, str]) -> None:
    """Give containers, wherever they stand, the image's new name and tag."""
    if isinstance(node, list):
        for item in node:
            rename_image(item, image)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("containers", "initContainers"):
                for container in value or []:
                    name = container.get("image", "").partition(":")[0]
                    if name == image["name"]:
                        new = image.get("newName", name)
                        container["image"] = f"{new}:{image['newTag']}"
            rename_image(value, image)
