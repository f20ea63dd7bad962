"""Settings that files hold: nested or flat, by the names of any version, and how two differ."""

from typing import Any

from lima_ray.config.sections import Sampling, Select

REPLACED = {
    "sampling.max_tokens": "sampling.max_tokens is now sampling.context (prompt and reply "
    "together) and sampling.max_new_tokens (the reply alone)"
}
"""Fields of earlier versions, and what to write in their place."""


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


def with_current_names(settings: Any) -> Any:
    """Return settings that a command wrote, perhaps of an earlier version, by today's names.

    What people write, recipes and flags, is not converted: an earlier name is refused there.
    """
    if isinstance(settings, list):
        return [with_current_names(part) for part in settings]
    if not isinstance(settings, dict):
        return settings
    now = {
        "sampling.context" if name == "sampling.max_tokens" else name: with_current_names(value)
        for name, value in settings.items()
    }
    sampling = now.get("sampling")
    if isinstance(sampling, dict) and "max_tokens" in sampling:
        most = sampling.pop("max_tokens")
        # It bounded prompt and reply together, but at an endpoint the reply alone.
        there = "endpoint" in now
        sampling |= {"max_new_tokens": most if there else None}
        sampling |= {"context": Sampling().context if there else most}
    return now


def hashed_sampling(sampling: Sampling) -> dict[str, Any]:
    """Return sampling as hashes know it: equal settings have one hash in every version."""
    fields = sampling.model_dump()
    fields["max_tokens"] = fields.pop("context")
    if fields["max_new_tokens"] is None:
        del fields["max_new_tokens"]
    return fields


def hashed_select(select: Select, reference: str = "") -> dict[str, Any]:
    """Return a selection as hashes know it, with the hash of what its reference says, if any."""
    fields = select.model_dump(exclude={"reference"})
    return fields | ({"reference": reference} if reference else {})
