"""Every family that is allowed computes in packed rows and in slots what transformers does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from shapes import EXPERTS, SMALL
from shapes import LATENT as LATENT_SHAPE
from transformers import AutoConfig, AutoModelForCausalLM

from lima_ray import train
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.engine.engine import Engine
from lima_ray.model import attention
from lima_ray.model.families import FAMILIES, context_length, find_family, why_undecodable
from lima_ray.model.residual_dropout import add_residual_dropout

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    **SMALL,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WIDE: dict[str, Any] = {"head_dim": 16}
LATENT: dict[str, Any] = {**EXPERTS, **LATENT_SHAPE, "n_routed_experts": 4}
FIELDS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen3": WIDE,
    "qwen2_moe": {**EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32},
    "qwen3_moe": {**EXPERTS, **WIDE, "num_experts": 4},
    "gemma": WIDE,
    "gemma2": {**WIDE, "attn_logit_softcapping": None, "sliding_window": 64},
    "gemma3_text": {**WIDE, "sliding_window": 64},
    "mistral": {"sliding_window": 64},
    "ministral3": WIDE,
    "olmo3": {"sliding_window": 64},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "granite": {"residual_multiplier": 0.3, "attention_multiplier": 0.2, "logits_scaling": 3.0},
    "cohere2": {"sliding_window": 64},
    "exaone4": {"sliding_window": 64},
    "glm": WIDE,
    "glm4": WIDE,
    "glm4_moe": {**EXPERTS, **WIDE, "n_routed_experts": 4, "n_group": 1, "topk_group": 1},
    "seed_oss": WIDE,
    "helium": WIDE,
    "hunyuan_v1_dense": WIDE,
    "ernie4_5": WIDE,
    "phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "minimax_m2": {**WIDE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
}
IDS = torch.randint(3, 300, (1, 30), generator=torch.Generator().manual_seed(0))
CUT = 18
"""Where the second of two packed rows starts."""


@pytest.fixture(params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


def build(family: str, **fields: Any) -> Any:
    """A tiny random model of a family, its weights large enough to matter."""
    attention.register()
    config = AutoConfig.for_model(family, **SIZES | FIELDS.get(family, {}) | fields)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.1)
    return model.eval()


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two are equal but for rounding, measured by the largest."""
    return bool((found - expected).abs().max() <= 2e-5 * expected.abs().max())


@torch.no_grad()
def test_packed_rows_are_rows_alone(model: Any) -> None:
    model.set_attn_implementation("eager")
    parts = (IDS[:, :CUT], IDS[:, CUT:])
    alone = torch.cat([model(input_ids=ids, use_cache=False).logits for ids in parts], dim=1)
    model.set_attn_implementation(attention.PACKED)
    starts = torch.tensor([0, CUT, 30], dtype=torch.int32)
    packed = model(
        input_ids=IDS,
        position_ids=torch.cat([torch.arange(n) for n in (CUT, 30 - CUT)])[None],
        use_cache=False,
        cu_seq_lens_q=starts,
        cu_seq_lens_k=starts,
        max_length_q=CUT,
        max_length_k=CUT,
    ).logits
    assert close(packed, alone)


@torch.no_grad()
def test_dropout_falls_on_what_is_added_to_the_residual_stream(model: Any) -> None:
    """Without those modules' outputs a layer adds nothing, and twice them it adds twice as much."""
    layer = model.get_decoder().layers[1]
    modules = [layer.get_submodule(name) for name in find_family(model.config).residual_modules]
    found: dict[str, torch.Tensor] = {}

    def note(_: Any, args: Any, kwargs: Any, output: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        found["added"] = (output[0] if isinstance(output, tuple) else output) - before

    layer.register_forward_hook(note, with_kwargs=True)

    def added(*factors: float) -> torch.Tensor:
        hooks = [
            module.register_forward_hook(
                lambda _, __, output, by=by: (
                    (output[0] * by, *output[1:]) if isinstance(output, tuple) else output * by
                )
            )
            for module, by in zip(modules, factors, strict=True)
        ]
        model(input_ids=IDS, use_cache=False)
        for hook in hooks:
            hook.remove()
        return found["added"]

    assert not added(0, 0).any()
    assert added(1, 0).any()
    assert close(added(2, 0), 2 * added(1, 0))


@torch.inference_mode()
def test_slots_decode_what_the_model_computes(model: Any, tmp_path: Path, base_dir: Path) -> None:
    for file in base_dir.glob("token*"):
        shutil.copy(file, tmp_path)
    model.save_pretrained(tmp_path)
    if not find_family(model.config).decodes:
        with pytest.raises(UserError, match="cannot be decoded here"):
            Engine(tmp_path, slots=2)
        return
    model.set_attn_implementation("eager")
    expected = model(input_ids=IDS, use_cache=False).logits[0, CUT:]
    engine = Engine(tmp_path, slots=2)
    engine.forward.prefill(1, 0, IDS[0, :CUT].tolist())
    found = [engine.forward.logits([(1, n, int(IDS[0, n]))])[0].clone() for n in range(CUT, 30)]
    assert close(torch.stack(found), expected)
    window = FIELDS.get(model.config.model_type, {}).get("sliding_window")
    assert engine.context == (window or 512)


def test_the_first_layer_drops_nothing_and_the_last_most() -> None:
    model = build("olmo2")
    add_residual_dropout(model, 0.5)
    model.train()
    layers = model.get_decoder().layers
    x_BTD = torch.randn(2, 40, 64)
    shares = [(layer.post_feedforward_layernorm(x_BTD) == 0).float().mean() for layer in layers]
    assert shares[0] == 0 and shares[1] == pytest.approx(0.5, abs=0.05)
    assert not (layers[1].mlp(x_BTD) == 0).any()


def base_of(family: str, base_dir: Path, path: Path, **fields: Any) -> Path:
    """A base of a family, for what is looked at before its weights are."""
    shutil.copytree(base_dir, path)
    own = {k: v for k, v in FIELDS.get(family, {}).items() if k != "sliding_window"}
    AutoConfig.for_model(family, **SIZES | own | fields).save_pretrained(path)
    return path


REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("gpt2", {}, {}, r"family 'gpt2' are neither trained nor decoded here.*llama"),
    ("gpt_oss", {}, {}, "family 'gpt_oss' are neither"),
    ("falcon_h1", {}, {}, "family 'falcon_h1' are neither"),
    ("nemotron", {}, {}, "family 'nemotron' are neither"),
    ("llama", {"max_position_embeddings": 128}, {}, r"has 128 positions; lower it: --data\.max_t"),
    ("mistral", {"sliding_window": 64}, {}, r"attends 64 tokens back; lower it: --data\.max_tok"),
    ("gemma3_text", {"sliding_window": 64}, {}, "attends 64 tokens back"),
    ("deepseek_v3", {}, {"select.judge": "exact"}, "select.judge is exact, but models of the fam"),
    ("gemma2", {"attn_logit_softcapping": 30.0}, {"select.judge": "exact"}, "caps attention sc"),
]


@pytest.mark.parametrize(("family", "fields", "point", "message"), REFUSED, ids=str)
def test_what_would_go_wrong_silently_is_refused_before_any_worker(
    recipe: Recipe,
    base_dir: Path,
    tmp_path: Path,
    family: str,
    fields: dict[str, Any],
    point: dict[str, Any],
    message: str,
) -> None:
    base = base_of(family, base_dir, tmp_path / "base", **fields)
    recipe = recipe.override({"model.base": str(base), "data.dev": recipe.data.train} | point)
    with pytest.raises(UserError, match=message):
        train.prepare(recipe)


def test_an_export_is_served_up_to_its_window(base_dir: Path) -> None:
    config = AutoConfig.for_model("mistral", **SIZES, sliding_window=64)
    assert (context_length(config), why_undecodable(config)) == (64, "")
    whole = AutoConfig.for_model("qwen2", **SIZES, use_sliding_window=False)
    assert context_length(whole) == 512
    found = AutoConfig.from_pretrained(base_dir)
    assert (
        context_length(found)
        == json.loads((base_dir / "config.json").read_text())["max_position_embeddings"]
    )
