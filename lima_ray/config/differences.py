"""Nested settings as flat ones, and how two of them differ."""

from typing import Any


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one mapping of dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, str]:
    """Return how flat settings differ, by name: `'old' (now 'new')`."""
    return {
        name: f"{theirs.get(name)!r} (now {ours.get(name)!r})"
        for name in sorted(theirs | ours)
        if theirs.get(name) != ours.get(name)
    }
