"""A model is not the judge of its own replies: by name, by endpoint, by the weights behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from lima_ray.config.errors import UserError
from lima_ray.generation.endpoint import read_key
from lima_ray.generation.reply_directory import read_settings
from lima_ray.judging.asking.judges import EndpointJudge
from lima_ray.judging.questions.replies import REPLIES_FILE, split_reference
from lima_ray.records.reply import Reply

LISTING_S = 5.0


@dataclass(frozen=True)
class Judged:
    """Who made the replies of a model, as far as the replies and their directory tell."""

    names: frozenset[str]
    """What it is called, without an owner before it, in lower case."""
    weights: str = ""
    """Hash of its weights."""


def find_judged(references: Sequence[str], models: Mapping[str, Sequence[Reply]]) -> list[Judged]:
    """Return who made the replies; `models` are those of the references, in their order."""
    found = []
    for reference, (name, replies) in zip(references, models.items(), strict=True):
        settings = settings_of(reference) or {}
        endpoint = settings.get("endpoint") or {}
        called = {name, endpoint.get("model", ""), *(reply.model for reply in replies)} - {""}
        weights = str(settings.get("model_hash") or "")
        found.append(Judged(frozenset(map(_plain, called)), weights))
    return found


def settings_of(reference: str) -> dict[str, Any] | None:
    """Return what made the replies of `NAME=PATH`; none of a table that lies beside others."""
    path = split_reference(reference)[1]
    if path.is_dir():
        return read_settings(path)
    return read_settings(path.parent) if path.name == REPLIES_FILE else None


def check_not_judged(
    judges: Sequence[EndpointJudge],
    judged: Sequence[Judged],
    way_out: str = "; --allow_self allows it",
) -> None:
    """Refuse a judge whose own replies it would judge.

    A server of ours tells the revision of each model, which is the hash of its weights, so it is
    known by that as well, whatever it is called.
    """
    for judge in judges:
        revision = served_revision(judge)
        for one in judged:
            by_name = {_plain(judge.model), _plain(judge.annotator.name)} & one.names
            if by_name or (revision and revision == one.weights):
                shown = ", ".join(sorted(one.names))
                raise UserError(
                    f"the judge {judge.annotator.name} would judge its own replies ({shown}); a "
                    f"model prefers its own. Take another judge{way_out}"
                )


def served_revision(judge: EndpointJudge) -> str:
    """Return the revision that a judge's server tells of it; empty where it tells none."""
    key = read_key(judge.api_key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        listed = httpx2.get(
            f"{judge.url.rstrip('/')}/models", headers=headers, timeout=LISTING_S
        ).json()["data"]
        return next(str(m.get("revision") or "") for m in listed if m["id"] == judge.model)
    except (httpx2.RequestError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return ""  # not every server lists its models; the questions tell whether it answers


def _plain(name: str) -> str:
    return name.rsplit("/", 1)[-1].strip().casefold()
