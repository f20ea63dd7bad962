"""Write the schemas of KubeRay's kinds, small enough to be test data, from its CRD files.

    python tests/support/kuberay_crds.py kuberay/ray-operator/config/crd/bases VERSION

Keeps every field of version v1 and its rules; leaves out descriptions, and writes what stands in
several places (a pod's template, above all) once, under `$defs`.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[1] / "data" / "kuberay_crds.json"
SHORTEST = 150
"""Characters of a part that is worth a definition of its own."""


def write(folder: Path, version: str) -> None:
    kinds = {}
    for file in sorted(folder.glob("*.yaml")):
        crd = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)
        served = {v["name"]: v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"]}
        kinds[crd["spec"]["names"]["kind"]] = without_descriptions(served["v1"])
    origin = f"github.com/ray-project/kuberay v{version}, ray-operator/config/crd/bases"
    shared = {"license": "Apache-2.0", "from": origin, "version": version} | share(kinds)
    FILE.write_text(json.dumps(shared, separators=(",", ":")) + "\n", encoding="utf-8")


def without_descriptions(node: Any) -> Any:
    if isinstance(node, list):
        return [without_descriptions(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: without_descriptions(value)
        for key, value in node.items()
        if not (key == "description" and isinstance(value, str))  # a field may be called so
    }


def share(kinds: dict[str, Any]) -> dict[str, Any]:
    """Return `kinds` with schemas that recur replaced by `$ref`, and those schemas as `$defs`."""
    counts: Counter[str] = Counter()
    count(kinds, counts)
    names: dict[str, str] = {}
    definitions: dict[str, Any] = {}

    def replaced(node: Any) -> Any:
        if isinstance(node, list):
            return [replaced(item) for item in node]
        if not isinstance(node, dict):
            return node
        text = json.dumps(node, sort_keys=True)
        if counts[text] < 2 or not isinstance(node.get("type"), str):
            return {key: replaced(value) for key, value in node.items()}
        if text not in names:
            names[text] = f"d{len(names)}"
            definitions[names[text]] = {key: replaced(value) for key, value in node.items()}
        return {"$ref": f"#/$defs/{names[text]}"}

    return {"kinds": replaced(kinds), "$defs": definitions}


def count(node: Any, counts: Counter[str]) -> None:
    if isinstance(node, dict):
        text = json.dumps(node, sort_keys=True)
        if len(text) > SHORTEST:
            counts[text] += 1
            if counts[text] > 1:
                return
    for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        count(item, counts)


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
