"""A trained model written as a complete Hugging Face model.

Weights keep the precision in which training used them. LoRA's updates are merged in fp32, since
most are smaller than a bf16 weight's rounding, and the adapter stands beside the merged weights.
The files are what `save_pretrained` of transformers writes, with its names and shards.
"""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors.torch import load_file, save_file
from torch import distributed as dist
from torch import nn
from transformers import PreTrainedTokenizerFast as Tokenizer
from transformers.utils import logging

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling
from lima_ray.model.families import context_length
from lima_ray.model.loading import (
    DTYPES,
    PAPER,
    generation_config,
    save_tokenizer_and_config,
)
from lima_ray.model.parameters import count_elements, gathered
from lima_ray.records.files import make_readable, write_json
from lima_ray.records.lineage import MIB

GROUP_BYTES = 4 << 30
"""Weights that rank 0 holds whole in memory; more go through a scratch file."""
ADAPTER = "adapter"
"""Folder of LoRA's adapter beside the merged weights."""
LORA = ".lora_"
Tensors = dict[str, torch.Tensor]
LoraUpdates = dict[str, Callable[[], torch.Tensor]]
"""By the name of each adapted weight, what LoRA adds to it, computed in fp32 when it is needed."""


def save_weights(
    model: Any,
    tokenizer: Tokenizer,
    folder: Path,
    lineage: dict[str, Any],
    dtype: str = "auto",
    sampling: Sampling = PAPER,
) -> int:
    """Write weights as a complete Hugging Face model; every worker takes part, rank 0 writes.

    Args:
        model: the trained module; a PEFT model is merged, and its adapter written to `adapter/`.
        folder: the directory to write; it appears when it is complete.
        lineage: what made these weights, saved as `lineage.json` with a hash of them.
        dtype: of the files, `bf16` or `fp32`; `auto` is the precision in use, fp32 for LoRA.
        sampling: how others decode the model unless they are told otherwise.

    Returns:
        bytes written (on rank 0; 0 elsewhere).

    Raises:
        UserError: on every worker alike, where the disk lacks room or a value is not finite.
    """
    adapted = hasattr(model, "peft_config")
    plain = model.get_base_model() if adapted else model
    target = DTYPES.get(dtype) or (torch.float32 if adapted else None)
    unfinished = folder.with_name(f"{folder.name}.partial")
    first = dist.get_rank() == 0
    if first:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    needed = sum(count_bytes(p, target) for p in plain.parameters())
    room_for_scratch = needed if needed > GROUP_BYTES else 0
    check_disk_space(folder.parent, needed + room_for_scratch + MIB, f"the weights {folder.name}")
    adapter = {n: p for n, p in model.named_parameters() if LORA in n} if adapted else {}
    factors = gather(adapter, None)
    weights = gather_state(plain, factors, target, unfinished)
    refuse_not_finite(weights, unfinished)
    if not first:
        return 0
    logging.disable_progress_bar()
    written = hash_tensors(weights)
    if adapted:
        heads = {f"base_model.model.{n}": t for n, t in weights.items() if is_head(plain, n)}
        model.save_pretrained(
            unfinished / ADAPTER, state_dict=factors | heads, save_embedding_layers=True
        )
        (unfinished / ADAPTER / "README.md").unlink()  # a form to fill in
    in_use = plain.config.dtype
    # The base's own may be one that transformers refuses to write.
    plain.generation_config = generation_config(tokenizer, context_length(plain.config), sampling)
    plain.save_pretrained(unfinished, state_dict=weights, max_shard_size=GROUP_BYTES)
    plain.config.dtype = in_use  # which `save_pretrained` has changed
    save_tokenizer_and_config(plain, tokenizer, unfinished, target or plain.dtype, sampling)
    del weights
    for scratch in unfinished.glob("gathered-*"):
        scratch.unlink()
    write_json(unfinished / "lineage.json", lineage | {"weights": written})
    make_readable(*unfinished.rglob("*"))
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return folder_bytes(folder)


def folder_bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def count_bytes(tensor: torch.Tensor, dtype: torch.dtype | None) -> int:
    """Return bytes of a tensor, partitioned or not, in a precision or its own."""
    return count_elements(tensor) * (dtype.itemsize if dtype else tensor.element_size())


def gather(
    tensors: Tensors, dtype: torch.dtype | None, changes: LoraUpdates | None = None
) -> Tensors:
    """Return copies of whole tensors in rank 0's memory; nothing on other ranks.

    Args:
        tensors: parameters, partitioned or not, and buffers.
        dtype: of the copies of floating-point tensors; none keeps each one's own.
    """
    parameters = [t for t in tensors.values() if isinstance(t, nn.Parameter)]
    with torch.no_grad(), gathered(*parameters):
        if dist.get_rank() > 0:
            return {}
        copies: Tensors = {}
        for name, tensor in tensors.items():
            copy = tensor.detach().to("cpu", copy=True)
            if changes and name in changes:
                copy = copy.float() + changes[name]()
            if dtype and copy.is_floating_point():
                copy = copy.to(dtype)
            copies[name] = copy.contiguous()
        return copies


def gather_state(
    model: nn.Module, factors: Tensors, dtype: torch.dtype | None, scratch: Path
) -> Tensors:
    """Return the whole state of a model in rank 0's memory, under its plain names, LoRA merged.

    Args:
        model: the plain model; LoRA's layers may stand in it.
        factors: what `gather` gave of LoRA's.
        dtype: see `gather`.
        scratch: folder for what exceeds `GROUP_BYTES`; it is then mapped from there.
    """
    state = {n: t for n, t in model.state_dict(keep_vars=True).items() if LORA not in n}
    names: dict[int, str] = {}
    for name, tensor in state.items():
        names.setdefault(id(tensor), name)  # tied weights are one tensor
    own = {name: state[name] for name in names.values()}
    changes = lora_updates(model, factors)
    gathered: Tensors = {}
    groups = list(split_groups(own, dtype))
    for number, group in enumerate(groups):
        copies = gather(group, dtype, changes)
        if len(groups) > 1 and copies:
            save_file(copies, scratch / f"gathered-{number}")
            copies = load_file(scratch / f"gathered-{number}")
        gathered |= copies
    return {
        name.replace(".base_layer", ""): gathered[names[id(tensor)]]
        for name, tensor in state.items()
        if gathered
    }


def split_groups(tensors: Tensors, dtype: torch.dtype | None) -> Iterator[Tensors]:
    """Yield groups of at most `GROUP_BYTES`, or of one larger tensor."""
    group: Tensors = {}
    filled = 0
    for name, tensor in tensors.items():
        if group and filled + count_bytes(tensor, dtype) > GROUP_BYTES:
            yield group
            group, filled = {}, 0
        group[name] = tensor
        filled += count_bytes(tensor, dtype)
    yield group


def lora_updates(model: nn.Module, factors: Tensors) -> LoraUpdates:
    """Return what LoRA's layers in a model add to its weights, from their gathered factors."""
    changes: LoraUpdates = {}
    for name, layer in model.named_modules():
        if not hasattr(layer, "lora_A") or not factors:
            continue
        inner: Any = layer
        path = name
        while hasattr(inner, "base_layer"):
            inner, path = inner.base_layer, f"{path}.base_layer"
        weight = f"{path}.{getattr(layer, 'parameter_name', 'weight')}"
        down, up = (factors[f"base_model.model.{name}.lora_{side}.default.weight"] for side in "AB")
        changes[weight] = partial(lora_update, layer, down, up)
    return changes


def lora_update(layer: Any, down_RI: torch.Tensor, up_OR: torch.Tensor) -> torch.Tensor:
    """Return scale · B A in fp32, for a linear layer (O, I) or E experts in one parameter."""
    down_RI, up_OR, scale = down_RI.float(), up_OR.float(), layer.scaling["default"]
    experts = getattr(layer, "num_experts", 1)
    if experts == 1:
        return scale * (up_OR @ down_RI)
    # As PEFT's ParamWrapper orders them: experts first in A, last in B.
    down_ERI = down_RI.unflatten(0, (experts, -1))
    up_ORE = up_OR.unflatten(1, (-1, experts))
    order = "eoi" if layer._did_swap_in_out_features else "eio"
    return scale * torch.einsum(f"ore,eri->{order}", up_ORE, down_ERI)


def is_head(model: Any, name: str) -> bool:
    """Return whether a weight is of the embeddings or the head, which train whole beside LoRA."""
    heads = (model.get_input_embeddings(), model.get_output_embeddings())
    return any(model.get_submodule(name.rpartition(".")[0]) is head for head in heads)


def refuse_not_finite(weights: Tensors, partial: Path) -> None:
    """Raise the same error on every worker where rank 0's weights hold inf or NaN."""
    bad = [next((n for n, t in weights.items() if not torch.isfinite(t).all()), None)]
    dist.broadcast_object_list(bad, src=0)
    if bad[0]:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"the trained weight {bad[0]} holds values that are not finite, so the model is not "
            "saved. Lower optim.learning_rate, under another --name"
        )


def hash_tensors(tensors: Tensors) -> str:
    """Return a hash of all values, with their names."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def check_disk_space(folder: Path, needed: int, what: str) -> None:
    """Raise the same error on every worker where `folder` lacks room for `needed` bytes."""
    free = [shutil.disk_usage(folder).free if dist.get_rank() == 0 else 0]
    dist.broadcast_object_list(free, src=0)
    if free[0] < needed:
        raise UserError(
            f"no room for {what}: it needs {needed / MIB:,.0f} MiB and {folder} has "
            f"{free[0] / MIB:,.0f} MiB left. The last saved state is whole; make room and run "
            "the same command again to go on from it"
        )
