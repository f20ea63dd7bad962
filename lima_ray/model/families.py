"""Which bases can be trained and decoded: families whose parts were compared with transformers.

Packing rows, dropping what a sub-layer adds to the residual stream, and decoding in slots each
assume things about a model that nothing checks while it runs: Mamba's state runs on from row to
row, Nemotron's attention ignores where rows begin, GPT-OSS's sinks are left out, all without an
error. `tests/test_model_families.py` compares each family here; others are refused before any work.
"""

from dataclasses import dataclass
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.config.paths import resolve
from lima_ray.config.recipe import Recipe

SUBLAYERS = ("self_attn", "mlp")
POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True)
class Family:
    """What is known of the models of one `model_type`."""

    residual_modules: tuple[str, str] = SUBLAYERS
    """Modules of a layer whose outputs are added to the residual stream; where a norm follows the
    sub-layer, that norm, since dropout before it would be scaled away."""
    decodes: bool = True
    """Whether its exports can be decoded in slots."""


FAMILIES: dict[str, Family] = {
    **{
        name: Family()
        for name in (
            *("llama", "mistral", "ministral3", "mixtral", "qwen2", "qwen3", "qwen2_moe"),
            *("qwen3_moe", "gemma", "phi", "phi3", "phimoe", "olmo", "olmoe", "granite"),
            *("starcoder2", "cohere", "cohere2", "glm", "glm4_moe", "smollm3", "seed_oss"),
            *("apertus", "arcee", "helium", "hunyuan_v1_dense", "ernie4_5", "ernie4_5_moe"),
            *("persimmon", "bitnet", "nanochat", "internlm3", "minimax_m2"),
        )
    },
    **{
        name: Family(residual_modules=POST_NORMS)
        for name in ("gemma2", "gemma3_text", "olmo2", "olmo3", "exaone4", "flex_olmo")
    },
    "glm4": Family(residual_modules=("post_self_attn_layernorm", "post_mlp_layernorm")),
    "deepseek_v2": Family(decodes=False),  # keys and values of other widths
    "deepseek_v3": Family(decodes=False),
}


def load_config(model: str) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(resolve(model) or model), trust_remote_code=False)


def find_family(config: Any) -> Family:
    """Return what is known of a model's family; refuse one of which nothing is."""
    found = FAMILIES.get(config.model_type)
    if found is None:
        raise UserError(
            f"models of the family {config.model_type!r} are neither trained nor decoded here: "
            "packed rows and slots were compared with transformers for "
            f"{', '.join(sorted(FAMILIES))}"
        )
    return found


def check_base_model(recipe: Recipe) -> None:
    """Refuse a base that cannot train, decode where epochs are judged, or hold the longest row."""
    base, asked = recipe.model.base, recipe.data.max_tokens
    try:
        config = load_config(base)
    except (OSError, ValueError) as error:
        raise UserError(f"the configuration of the base {base} cannot be read: {error}") from error
    find_family(config)
    if asked > config.max_position_embeddings:
        raise UserError(
            f"data.max_tokens is {asked}, but {base} has {config.max_position_embeddings} "
            f"positions; lower it: --data.max_tokens {config.max_position_embeddings}"
        )
    window = attention_window(config)
    if window and window < asked:
        raise UserError(
            f"data.max_tokens is {asked}, but {base} attends {window} tokens back; lower it: "
            f"--data.max_tokens {window}"
        )
    if scales_by_length(config) and asked > config.original_max_position_embeddings:
        raise UserError(
            f"data.max_tokens is {asked}, but rows over {config.original_max_position_embeddings} "
            f"tokens change the positions of all rows beside them in {base}; lower it"
        )
    if recipe.select.judge != "none" and (problem := why_undecodable(config)):
        raise UserError(
            f"select.judge is {recipe.select.judge}, but {problem}; use --select.judge none, and "
            "another server for what is exported"
        )


def why_undecodable(config: Any) -> str:
    """Return why models of this configuration cannot be decoded in slots, or nothing."""
    if not find_family(config).decodes:
        return f"models of the family {config.model_type!r} cannot be decoded here"
    if getattr(config, "attn_logit_softcapping", None):
        return "this model caps attention scores, which the engine does not compute"
    if scales_by_length(config):
        return "this model's longrope positions change with a row's neighbours"
    return ""


def scales_by_length(config: Any) -> bool:
    """Return whether the longest row of a batch changes the positions of all."""
    return (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "longrope"


def attention_window(config: Any) -> int | None:
    """Return how many tokens attention reaches back in some layer; none is to the start."""
    kinds = getattr(config, "layer_types", None)
    if kinds and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None)


def context_length(config: Any) -> int:
    """Return the longest row that plain causal attention computes as the model does."""
    return min(
        config.max_position_embeddings, attention_window(config) or config.max_position_embeddings
    )
