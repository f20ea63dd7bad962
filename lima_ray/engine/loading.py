"""A model made ready to decode in slots: loaded from its directory, checked, made to use slots."""

import threading
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer
from transformers.utils import logging

from lima_ray.config.errors import UserError
from lima_ray.config.sections import WeightFormat
from lima_ray.data.tokenizer import TOKENIZER_FILES, check_sentencepiece, template_eot_ids
from lima_ray.engine.cpu.batch_invariant import make_batch_invariant
from lima_ray.model.attention import register_attention
from lima_ray.model.families import load_config, why_undecodable
from lima_ray.model.loading import check_complete, read_pretrained

SLOT_ATTENTION = "lima_slots"
"""Name of `slot_attention` in transformers' registry."""
LOADING = threading.Lock()
"""One model is loaded at a time: `transformers` sets the number format of new tensors for the whole
process meanwhile, and two at once leave each other's weights in the wrong one."""


def load(
    model_dir: Path, device: torch.device, batch: int, held_as: WeightFormat
) -> tuple[Any, Any]:
    """Return a directory's model, its attention in slots, and tokenizer; refuse a broken one.

    One whose attention is more than plain causal is refused too. A CPU computes in fp32, from
    weights that are held in the format named; CUDA in the precision of the files.
    """
    if device.type != "cpu" and held_as != "auto":
        raise UserError(
            f"weights is {held_as}, but {device.type} computes in the precision of the files; "
            "leave it auto, or decode on a CPU (CUDA_VISIBLE_DEVICES=)"
        )
    needed = {
        "model": ("config.json",),
        "weights in safetensors": ("*.safetensors",),
        "tokenizer": TOKENIZER_FILES,
    }
    for what, patterns in needed.items():
        if not any(any(model_dir.glob(pattern)) for pattern in patterns):
            raise UserError(f"no {what} in {model_dir}: it lacks {' or '.join(patterns)}")
    check_sentencepiece(model_dir)
    register_attention(SLOT_ATTENTION, slot_attention)
    logging.disable_progress_bar()
    try:
        config = load_config(str(model_dir))
        if problem := why_undecodable(config):
            raise UserError(f"{model_dir}: {problem}")
        tokenizer = AutoTokenizer.from_pretrained(str(model_dir), trust_remote_code=False)
        with LOADING:
            dtype = "auto" if device.type == "cuda" else cpu_dtype(model_dir, config, held_as)
            model, info = read_pretrained(str(model_dir), dtype, SLOT_ATTENTION)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the model in {model_dir} cannot be loaded: {error}") from error
    check_complete(info, str(model_dir))
    model = model.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        model = make_batch_invariant(model, batch, held_as)
    return model, tokenizer


def cpu_dtype(model_dir: Path, config: Any, held_as: WeightFormat) -> torch.dtype:
    """Return the number format in which a model is read before its layers are packed.

    bf16, which takes half the memory, where nothing is lost by it: where every file is in bf16, and
    only in Llamas, since other families may have constants that would be rounded.
    """
    if held_as == "fp32" or config.model_type != "llama":
        return torch.float32
    for file in model_dir.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            if any(tensors.get_slice(name).get_dtype() != "BF16" for name in tensors.keys()):  # noqa: SIM118
                return torch.float32
    return torch.bfloat16


def slot_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    slot_cache: Any = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend to what the KV cache's slots hold, called by `transformers` as an attention.

    Args:
        module: the attention layer; its `layer_idx` is used.
        attention_mask: not used; the cache knows what each sequence sees.
        slot_cache: the KV cache of a `Forward`, which passes it to the model.

    Returns:
        outputs (B, T, H, D), and no weights.
    """
    assert slot_cache is not None, "the engine passes slot_cache to every forward"
    layer: Any = module
    return slot_cache.attend(layer.layer_idx, query_BHTD, key_BGTD, value_BGTD, scaling), None


def stop_token_ids(model: Any, tokenizer: Any) -> set[int]:
    """Return the tokens that end a reply: the tokenizer's EOT, those of the model's generation
    config, and what its chat template ends replies with (a base's EOS may be another token)."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    ends = {token for token in (tokenizer.eos_token_id, *named) if token is not None}
    return ends | template_eot_ids(tokenizer)
