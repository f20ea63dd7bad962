"""Check a manifest of KubeRay as the Kubernetes API server would: defaults, then the CRD."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

Manifest = dict[str, Any]
FILE = Path(__file__).parents[1] / "data" / "kuberay_crds.json"


@cache
def crds() -> dict[str, Any]:
    """Return the schemas by kind (`kuberay_crds.py` writes them), strict about unknown fields."""
    read = json.loads(FILE.read_text(encoding="utf-8"))
    return read | {part: strict(read[part]) for part in ("kinds", "$defs")}


def strict(node: Any) -> Any:
    """Return a schema that refuses unknown fields and allows what the API server does."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value) for key, value in node.items()}
    fields = isinstance(node.get("properties"), dict) and node.get("type") == "object"
    if fields and not node.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if node.get("nullable") is True and isinstance(node.get("type"), str):
        made["type"] = [node["type"], "null"]
    return made


def with_defaults(manifest: Manifest) -> Manifest:
    """Return a copy with its kind's defaults, which the API server fills in before it checks."""
    made = copy.deepcopy(manifest)
    fill(crds()["kinds"][manifest["kind"]], made)
    return made


def fill(schema: Any, value: Any) -> None:
    schema = resolved(schema)
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        for name, field in fields.items():
            if name not in value and "default" in resolved(field):
                value[name] = copy.deepcopy(resolved(field)["default"])
        for name, item in value.items():
            others = schema.get("additionalProperties")
            fill(fields.get(name, others if isinstance(others, dict) else {}), item)
    elif isinstance(value, list):
        for item in value:
            fill(schema.get("items", {}), item)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = crds()["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def schema_errors(manifest: Manifest) -> list[str]:
    """Return what the API server would refuse, each with the field's path."""
    schema = crds()["kinds"][manifest["kind"]] | {"$defs": crds()["$defs"]}
    found = Draft202012Validator(schema).iter_errors(with_defaults(manifest))
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]
