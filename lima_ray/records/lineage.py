"""What a run is made from: the base, checked before use, and hashes that tell origins apart."""

import hashlib
from pathlib import Path

import numpy as np

from lima_ray.config.errors import UserError
from lima_ray.config.flags import did_you_mean
from lima_ray.config.paths import resolve
from lima_ray.config.storage.whole_folders import read_manifest
from lima_ray.config.storage.working_copy import location

MIB = 1 << 20
HUB_S = 10
"""How long the hub may take to answer."""


def check_base(base: str) -> None:
    """Refuse a local base that has no configuration or no safetensors weights."""
    path = resolve(base)
    if path is None:
        check_hub_base(base)
        return
    if not (path / "config.json").is_file():
        raise UserError(f"{path} has no config.json; a base is a directory of a Hugging Face model")
    if not any(path.glob("*.safetensors")):
        pickles = sorted(p.name for p in path.glob("*.bin"))
        found = (
            f"only {', '.join(pickles)}, which are pickles and are not read" if pickles else "none"
        )
        raise UserError(f"{path} has no weights in *.safetensors ({found})")


def check_hub_base(base: str) -> None:
    """Refuse a base that is no directory and cannot be one of the hub; ask the hub once."""
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        raise UserError(
            f"no base model at {base}: no such directory, nor the hub's form owner/name"
        )
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # httpx's, or httpx2's
    )

    try:
        if try_to_load_from_cache(base, "config.json"):
            return
        folder = Path(base).parent
        if folder.is_dir():
            there = sorted(f.parent.name for f in folder.glob("*/config.json"))
            near = did_you_mean(Path(base).name, there, f"{folder}/") or "."
            raise UserError(
                f"no base model at {base}: {folder} holds {', '.join(there) or 'no model'}"
                f"{near} If the hub's {base} is meant, "
                f"fetch it first: hf download {base}"
            )
        get_hf_file_metadata(hf_hub_url(base, "config.json"), timeout=HUB_S)
    except (HTTPError, HFValidationError, OSError, ValueError) as error:
        said = str(error).strip().splitlines()[0]
        raise UserError(
            f"no base model at {base}: no such directory here, and the hub says: {said}"
        ) from error


def hash_arrays(*arrays: np.ndarray) -> str:
    """Return the first 12 hex digits of the SHA-256 of the arrays' bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def hash_base(base: str) -> str:
    """Return 12 hex digits that identify a base: the hub's commit or a SHA-256 of files."""
    made = read_manifest(Path(base)) if location(Path(base)) else None
    if made and "hash" in made:  # known without its weights on this disk
        return str(made["hash"])
    path = resolve(base)
    if path is None:
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(f"the base {base} cannot be fetched: {error}") from error
        return str(getattr(config, "_commit_hash", None) or base)[:12]
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")) + sorted(path.glob("*.json")):
        # Of a large file the size, the first and the last MiB count, so 131 GB take no minutes.
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as content:
            digest.update(content.read(MIB))
            content.seek(max(0, size - MIB))
            digest.update(content.read(MIB))
    return digest.hexdigest()[:12]
