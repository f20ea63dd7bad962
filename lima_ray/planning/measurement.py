"""Three steps of a way to compute, run and kept by what decides their figures."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

from lima_ray.config.cache import cache_folder
from lima_ray.planning.candidates import Candidate, Measured
from lima_ray.planning.hardware import Hardware
from lima_ray.planning.shape import ModelShape
from lima_ray.records.files import read_json, write_json

SIZES = ("parameters", "trained", "layers", "hidden", "query", "key", "mlp")
DECIDES = ("torch", "transformers", "deepspeed", "peft")
"""Packages whose version decides a measurement."""


def measurement_key(candidate: Candidate, shape: ModelShape, on: Hardware) -> dict[str, Any]:
    """Return what decides the figures of a candidate."""
    recipe = candidate.recipe
    return {
        "family": shape.config.model_type,
        "sizes": [getattr(shape, name) for name in SIZES] + [shape.config.vocab_size],
        "train": recipe.train.model_dump(exclude={"precision"}) | {"bf16": candidate.bf16},
        "model": recipe.model.model_dump(include={"lora_rank", "attention", "liger"}),
        "dropout": recipe.model.residual_dropout > 0,
        "rows": [recipe.data.max_tokens, recipe.optim.batch_examples],
        "workers": recipe.cluster.workers,
        "card": on.card or [f"{node.cores:g} cores" for node in on.nodes],
        "packages": {name: version(name) for name in DECIDES},
    }


def file_of(key: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode())
    return f"plan-{digest.hexdigest()[:16]}.json"


def with_measurement(candidate: Candidate, shape: ModelShape, on: Hardware) -> Candidate:
    """Return a candidate with what was measured of it on such hardware, if anything was."""
    kept = None
    with suppress(OSError, RuntimeError):  # no home, or one that others may write
        kept = read_json(cache_folder() / file_of(measurement_key(candidate, shape, on)))
    if kept is None:
        return candidate
    return replace(candidate, measured=Measured(kept["peak_bytes"], kept["flops_per_s"]))


def keep_measurement(
    candidate: Candidate, shape: ModelShape, on: Hardware, measured: Measured
) -> None:
    key = measurement_key(candidate, shape, on)
    write_json(
        cache_folder() / file_of(key),
        asdict(measured) | {"key": json.loads(json.dumps(key, default=str))},
    )
