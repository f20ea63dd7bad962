"""A model made ready to decode in slots: loaded from its directory, checked, its layers steady."""

import threading
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.masking_utils import AttentionMaskInterface
from transformers.utils import logging

from lima_ray.engine.cpu.batch_invariant import steady_layers
from lima_ray.engine.cpu.kv_slots import slot_attention
from lima_ray.engine.cpu.llama import SteadyLlama, is_plain_llama
from lima_ray.errors import UserError
from lima_ray.families import undecodable
from lima_ray.tokenizer import TOKENIZER_FILES, check_sentencepiece

SLOTS = "lima_slots"
LOADING = threading.Lock()
"""One model is loaded at a time: `transformers` sets the number format of new tensors for the whole
process meanwhile, and two at once leave each other's weights in the wrong one."""


def load(model_dir: Path, device: torch.device, rows: int) -> tuple[Any, Any]:
    """The model of a directory, its attention in slots, and its tokenizer.

    Args:
        model_dir: a Hugging Face model with safetensors.
        device: a CPU computes in fp32, CUDA in the precision of the files.
        rows: usual number of rows in a batch.

    Raises:
        UserError: what is missing there, or cannot be read, or is no plain causal attention.
    """
    needed = {
        "model": ("config.json",),
        "weights in safetensors": ("*.safetensors",),
        "tokenizer": TOKENIZER_FILES,
    }
    for what, patterns in needed.items():
        if not any(any(model_dir.glob(pattern)) for pattern in patterns):
            raise UserError(f"no {what} in {model_dir}: it lacks {' or '.join(patterns)}")
    check_sentencepiece(model_dir)
    register()
    logging.disable_progress_bar()
    check_decodable(model_dir)
    loader: Any = AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model_dir), trust_remote_code=False)
        with LOADING:
            model, info = loader.from_pretrained(
                str(model_dir),
                dtype="auto" if device.type == "cuda" else torch.float32,
                attn_implementation=SLOTS,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the model in {model_dir} cannot be loaded: {error}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(f"{model_dir} lacks {len(missing)} weights, such as {missing[0]}")
    model = model.to(device).eval().requires_grad_(False)
    if device.type == "cpu":
        model = SteadyLlama(model, rows) if is_plain_llama(model) else steady_layers(model, rows)
    return model, tokenizer


def check_decodable(model_dir: Path) -> None:
    """Refuse a model that slots would decode otherwise than it computes.

    Raises:
        UserError: its configuration cannot be read, or what of it is not computed.
    """
    try:
        config = AutoConfig.from_pretrained(str(model_dir), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"the model in {model_dir} cannot be loaded: {error}") from error
    if problem := undecodable(config):
        raise UserError(f"{model_dir}: {problem}")


def register() -> None:
    """Make `attn_implementation="lima_slots"` known, with no mask built for it."""
    AttentionInterface.register(SLOTS, slot_attention)
    AttentionMaskInterface.register(SLOTS, lambda *_, **__: None)
