"""The model a run trains: base weights, EOT's row, and the precision and attention in use."""

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast as Tokenizer

from lima_ray.config.errors import UserError
from lima_ray.config.paths import resolve
from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Model, Sampling
from lima_ray.model import attention, cpu_layers
from lima_ray.model.families import context_length, load_config
from lima_ray.model.lora import add_lora
from lima_ray.model.parameters import gathered
from lima_ray.model.residual_dropout import add_residual_dropout

if TYPE_CHECKING:
    from transformers import GenerationConfig

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
PAPER = Sampling()
CausalLM = Any
"""A `transformers` causal language model; its own annotations say less than Any."""


def read_pretrained(
    reference: str, dtype: str | torch.dtype, attention_name: str
) -> tuple[CausalLM, dict[str, Any]]:
    """Read a Hugging Face model from safetensors, and run none of its code.

    Args:
        reference: a directory, or a model of the hub.
        dtype: of its weights; `auto` keeps the files'.
        attention_name: as `transformers` knows it.

    Returns:
        the model, and what transformers tells of missing and unexpected weights.
    """
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    return loader.from_pretrained(
        reference,
        dtype=dtype,
        attn_implementation=attention_name,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )


def check_complete(info: dict[str, Any], name: str) -> None:
    """Refuse a model that lacks weights, which transformers would fill at random."""
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise UserError(f"{name} lacks {len(missing)} weights, such as {missing[0]}")


def load_model(recipe: Recipe, tokenizer: Tokenizer, device: torch.device) -> CausalLM:
    """Load the base onto a device and prepare it for training.

    Under ZeRO 3, which places weights itself, they are born partitioned.
    """
    attention.register()
    dtype = choose_dtype(recipe, device)
    base = str(resolve(recipe.model.base) or recipe.model.base)
    kind = choose_attention(recipe.model, device, dtype, load_config(base))
    model, info = read_pretrained(base, dtype, kind)
    if kind in (attention.PACKED, attention.VARLEN):
        check_plain_attention(model.config, recipe.data.max_tokens)
    check_complete(info, recipe.model.base)
    if recipe.model.liger and device.type == "cuda" and importlib.util.find_spec("liger_kernel"):
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model=model, fused_linear_cross_entropy=False)
    if device.type == "cpu" and model.dtype == torch.float32:
        cpu_layers.install(model)
    add_tokens(model, len(tokenizer))
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False
    add_residual_dropout(model, recipe.model.residual_dropout)
    if choose_precision(recipe, device) == "mixed":
        # Cast weights kept until the forward ends would be a whole model beside ZeRO 3's share.
        cpu_layers.multiply_in_bf16(model, keep_casts=recipe.train.zero_stage != 3)
    if recipe.model.lora_rank:
        model = add_lora(model, recipe.model)
    if recipe.train.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if recipe.train.zero_stage != 3:
        model = model.to(device)
    return model.train()


def describe_kernels(model: nn.Module) -> dict[str, Any]:
    """Describe what computes a model: number format, attention, whether Liger's layers do."""
    config: Any = model.config
    names = {attention.PACKED: "packed", attention.VARLEN: "varlen"}
    kind = str(config._attn_implementation)
    return {
        "precision": getattr(model, "precision", dtype_name(next(model.parameters()).dtype)),
        "attention": names.get(kind, kind),
        "liger": any(m.forward.__module__.startswith("liger_kernel") for m in model.modules()),
    }


def dtype_name(dtype: torch.dtype) -> str:
    """Return a precision's name in a model's configuration, such as `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def choose_dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    """Return the number format of the weights in use."""
    return DTYPES["bf16" if choose_precision(recipe, device) == "bf16" else "fp32"]


def choose_precision(recipe: Recipe, device: torch.device) -> str:
    """Return the `train.precision` that `auto` stands for on a device, or that is asked for."""
    asked = recipe.train.precision
    if asked == "mixed" and device.type != "cpu":
        raise UserError(f"train.precision mixed is for a CPU; on {device.type} bf16 is the same")
    if asked != "auto":
        return asked
    if device.type == "cpu":
        return "mixed" if cpu_layers.multiplies_bf16() else "fp32"
    return "bf16" if recipe.train.zero_stage else "fp32"


def choose_attention(model: Model, device: torch.device, dtype: torch.dtype, config: Any) -> str:
    """Return the attention implementation by the name that `transformers` knows it by.

    auto takes the fastest there is for bf16 on a GPU: FlashAttention 2 where it is installed, then
    the one inside PyTorch; everywhere else PyTorch's attention row by row.
    """
    flash = device.type == "cuda" and dtype == torch.bfloat16
    # Values of another width than keys are for PyTorch's attention row by row alone.
    varlen = attention.PACKED if getattr(config, "v_head_dim", None) else attention.VARLEN
    if model.attention == "packed":
        return attention.PACKED
    if model.attention != "auto":
        if not flash:
            raise UserError(
                f"model.attention {model.attention} needs bf16 on a GPU, not {dtype} on "
                f"{device.type}; use auto or packed"
            )
        return varlen if model.attention == "varlen" else model.attention
    if not flash:
        return attention.PACKED
    # Asked by distribution: flash-attn-4 installs a module `flash_attn` without FlashAttention 2.
    if is_installed("flash-attn"):
        return "flash_attention_2"
    width = attention.head_width(config)
    if width <= attention.VARLEN_HEAD_MAX and width % 8 == 0:
        return varlen
    return "kernels-community/flash-attn2" if is_installed("kernels") else attention.PACKED


def is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def check_plain_attention(config: Any, max_tokens: int) -> None:
    """Refuse bases whose attention is more than `packed_attention` computes."""
    if getattr(config, "attn_logit_softcapping", None):
        raise UserError(
            "this base caps attention scores, which packed attention does not; use a "
            "FlashAttention kernel on a GPU (--model.attention)"
        )
    if max_tokens > context_length(config):
        raise UserError(
            f"this base attends {context_length(config)} tokens back, fewer than data.max_tokens "
            f"{max_tokens}; lower it"
        )


def add_tokens(model: CausalLM, vocab: int) -> None:
    """Give tokens the base has no row for (a new EOT) the mean of its rows, in and out."""
    old = model.config.vocab_size
    if vocab <= old:
        return
    model.resize_token_embeddings(vocab, mean_resizing=False)
    heads = (model.get_input_embeddings(), model.get_output_embeddings())
    for weight in {id(m.weight): m.weight for m in heads}.values():
        with torch.no_grad(), gathered(weight, change=True):
            if weight.numel():
                weight[old:] = weight[:old].float().mean(dim=0).to(weight.dtype)


def generation_config(tokenizer: Tokenizer, context: int, sampling: Sampling) -> "GenerationConfig":
    """Return how other programs decode an export unless they are told otherwise."""
    from transformers import GenerationConfig

    # At temperature 0 nothing is drawn, and transformers warns of what would draw.
    draws = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    return GenerationConfig(
        do_sample=sampling.temperature > 0,
        **(draws if sampling.temperature else {}),
        repetition_penalty=sampling.repetition_penalty,
        max_length=min(sampling.context, context),
        max_new_tokens=sampling.max_new_tokens,  # goes before max_length where both are given
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def save_tokenizer_and_config(
    model: CausalLM,
    tokenizer: Tokenizer,
    folder: Path,
    dtype: torch.dtype,
    sampling: Sampling = PAPER,
) -> None:
    """Write everything of a Hugging Face model but its weights, whose files are in `dtype`.

    Others decode it by `sampling` unless they are told otherwise.
    """
    config = type(model.config).from_dict(model.config.to_dict())
    config.use_cache = True
    config.dtype = dtype
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    generation_config(tokenizer, context_length(config), sampling).save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
