"""Two tiers of checkpoints: resume state (newest only), and bf16 weights by epoch.

Resume state is DeepSpeed's own, written by all workers, and is complete before `latest.json` names
it; until then the state before it stays whole. A run that goes on with another number of workers
converts it to a universal checkpoint first. Weights are safetensors, written shard by shard as
plain Hugging Face models: no pickle, and nothing here reads one but a run's own state.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import distributed as dist
from torch import nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from lima_ray.errors import UserError
from lima_ray.lineage import MIB
from lima_ray.model import save_tokenizer_and_config, whole
from lima_ray.run import Run, SavedState, write_json

SHARD_BYTES = 4 << 30
POLL_S = 1.0
CONVERTERS = 2
"""Processes that convert a state to a universal checkpoint."""


def save_state(engine: Any, run: Run, step: int, keep: int) -> int:
    """Write a resume state from all workers, then drop older ones.

    Args:
        engine: the DeepSpeed engine.
        run: where to.
        step: optimizer steps done.
        keep: states to keep, this one included.

    Returns:
        bytes written by all workers (on rank 0; 0 elsewhere).

    Raises:
        UserError: on every worker alike, where the disk lacks room; nothing has been written then.
    """
    tag = f"step-{step:06d}"
    partial = run.state_dir / f"{tag}.partial"
    first = dist.get_rank() == 0
    if first:
        for leftover in run.state_dir.glob("*.partial"):
            shutil.rmtree(leftover)
        partial.mkdir(parents=True)
    need_room(run.state_dir, state_bytes(engine), f"the resume state of step {step}")
    engine.save_checkpoint(
        str(run.state_dir),
        tag=partial.name,
        client_state={"step": step},
        save_latest=False,
        exclude_frozen_parameters=True,
    )
    dist.barrier()
    if not first:
        return 0
    folder = run.state_dir / tag
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    states = [{"tag": tag, "step": step, "workers": dist.get_world_size()}]
    file = run.state_dir / "latest.json"
    older = json.loads(file.read_text()) if file.exists() else []
    states += [s for s in older if s["tag"] != tag][: keep - 1]
    write_json(file, states)
    for old in run.state_dir.glob("step-*"):
        if not any(old.name == s["tag"] for s in states):
            shutil.rmtree(old)
    return folder_bytes(folder)


def state_bytes(engine: Any) -> int:
    """Bytes of a resume state: trained weights in use, and fp32 weight and averages of AdamW."""
    trained = sum(size(p) for p in engine.module.parameters() if p.requires_grad)
    weight = next(engine.module.parameters()).element_size()
    return trained * (weight + 12)


def size(parameter: nn.Parameter) -> int:
    """Elements of a parameter, partitioned or not."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def need_room(folder: Path, needed: int, what: str) -> None:
    """Raise the same error on every worker where `folder` lacks room for `needed` bytes."""
    free = [shutil.disk_usage(folder).free if dist.get_rank() == 0 else 0]
    dist.broadcast_object_list(free, src=0)
    if free[0] < needed:
        raise UserError(
            f"no room for {what}: it needs {needed / MIB:,.0f} MiB and {folder} has "
            f"{free[0] / MIB:,.0f} MiB left. The last saved state is whole; make room and run "
            "the same command again to go on from it"
        )


def universal_tag(state: SavedState) -> str:
    """Convert a state so that any number of workers can load it; done by one worker for all.

    Returns:
        the converted state's tag.
    """
    folder = state.folder.with_name(f"{state.folder.name}-universal")
    there = folder.exists()
    dist.barrier()
    if not there:
        need_room(state.folder, folder_bytes(state.folder), "converting the resume state")
    if not there and dist.get_rank() == 0:
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
        command += ["--input_folder", str(state.folder), "--output_folder", str(partial)]
        command += [f"--num_extract_workers={CONVERTERS}", f"--num_merge_workers={CONVERTERS}"]
        done = subprocess.run(
            [*command, "--inject_missing_state"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the state could not be converted:\n{done.stderr[-2000:]}")
        partial.rename(folder)
    while not folder.exists():
        time.sleep(POLL_S)  # not at a barrier, whose time-out a large state would exceed
    dist.barrier()
    return folder.name


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def load_state(engine: Any, run: Run, tag: str) -> None:
    """Load weights and optimizer from a resume state or its universal form."""
    path, _ = engine.load_checkpoint(str(run.state_dir), tag=tag, load_module_strict=False)
    if path is None:
        raise RuntimeError(f"{run.state_dir / tag} could not be loaded")
    if isinstance(engine.basic_optimizer, torch.optim.AdamW):
        # A universal state gives every group one step counter, on the CPU: each needs its own.
        for parameter, averages in engine.basic_optimizer.state.items():
            step = torch.as_tensor(averages["step"], dtype=torch.float32)
            averages["step"] = step.to(parameter.device, copy=True)


def save_weights(model: Any, tokenizer: Tokenizer, folder: Path, lineage: dict[str, Any]) -> int:
    """Write bf16 weights as a complete Hugging Face model; every worker takes part, rank 0 writes.

    At most one shard of weights is whole at a time. LoRA adapters are merged into the weights.

    Args:
        model: the trained module (a PEFT model is merged).
        tokenizer: saved beside the weights.
        folder: the directory to write; it appears when it is complete.
        lineage: what made these weights, saved as `lineage.json`.

    Returns:
        bytes written (on rank 0; 0 elsewhere).

    Raises:
        UserError: on every worker alike, where the disk lacks room.
    """
    adapted = hasattr(model, "peft_config")
    plain = model.get_base_model() if adapted else model
    scale = lora_scale(model.peft_config["default"]) if adapted else 1.0
    partial = folder.with_name(f"{folder.name}.partial")
    first = dist.get_rank() == 0
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    need_room(folder.parent, 2 * sum(map(size, plain.parameters())), f"the weights {folder.name}")
    shards: list[list[str]] = []
    for number, group in enumerate(shard_groups(plain)):
        with torch.no_grad(), whole(*(p for parts in group.values() for p in parts)):
            if first:
                tensors = {name: merged(p, rest, scale) for name, (p, *rest) in group.items()}
                save_file(tensors, partial / f"shard-{number}", metadata={"format": "pt"})
                shards.append(list(tensors))
    dist.barrier()
    if not first:
        return 0
    name_shards(partial, shards)
    save_tokenizer_and_config(plain, tokenizer, partial)
    write_json(partial / "lineage.json", lineage)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder_bytes(folder)


def lora_scale(config: Any) -> float:
    """What LoRA's update is multiplied by."""
    return config.lora_alpha / config.r


def shard_groups(model: nn.Module) -> list[dict[str, list[nn.Parameter]]]:
    """What is gathered and saved together, at most `SHARD_BYTES` of weights a group.

    Returns:
        groups of plain names, each with its weight and, if it has one, its LoRA update's factors.
    """
    groups: list[dict[str, list[nn.Parameter]]] = [{}]
    filled = 0
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        if filled and filled + 2 * size(parameter) > SHARD_BYTES:
            groups.append({})
            filled = 0
        update = []
        if name.endswith(".base_layer.weight"):
            layer = model.get_submodule(name.removesuffix(".base_layer.weight"))
            update = [p for n, p in layer.named_parameters() if n.startswith("lora_")]
        groups[-1][name.replace(".base_layer.", ".")] = [parameter, *update]
        filled += 2 * size(parameter)
    return groups


def merged(weight: nn.Parameter, factors: list[nn.Parameter], scale: float) -> torch.Tensor:
    """A whole weight in bf16 on the CPU, LoRA's update B A added where it has one."""
    whole_weight = weight.detach()
    if factors:
        down, up = (factor.detach().float() for factor in factors)
        whole_weight = whole_weight.float() + scale * (up @ down)
    return whole_weight.to("cpu", torch.bfloat16, copy=True).contiguous()


def name_shards(folder: Path, shards: list[list[str]]) -> None:
    """Give shards their Hugging Face names, with an index where there are several."""
    if len(shards) == 1:
        (folder / "shard-0").rename(folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"shard-{number}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    total = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)
