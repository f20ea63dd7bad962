"""The exported model is the trained one: precision, LoRA, experts, buffers, and the check of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from shapes import EXPERTS, LATENT, SMALL
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GenerationConfig,
    LlamaConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3MoeConfig,
)

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Sampling
from lima_ray.data import training_data
from lima_ray.data.tokenizer import load_tokenizer
from lima_ray.model import export, export_check
from lima_ray.model.families import context_length
from lima_ray.model.loading import load_model
from lima_ray.records.run import Run
from lima_ray.training import zero
from lima_ray.training.loop import build_engine, train_step
from lima_ray.training.schedule import plan_epoch

pytestmark = pytest.mark.usefixtures("alone")
CPU = torch.device("cpu")
IDS = torch.tensor([[1, 9, 17, 33, 5, 6, 7, 8]])
FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SMALL),
    "tied, biased qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen3_moe": Qwen3MoeConfig(**SMALL, **EXPERTS, num_experts=4),
    "mixtral": MixtralConfig(**SMALL, num_local_experts=4),
    "deepseek_v3": DeepseekV3Config(**{**SMALL, **EXPERTS, **LATENT, "n_routed_experts": 4}),
}


def family_base(family: str, base_dir: Path, path: Path) -> Path:
    """A random base of a family, with the tiny base's tokenizer."""
    shutil.copytree(base_dir, path)
    config = FAMILIES[family]
    tokens = json.loads((base_dir / "config.json").read_text())
    for name in ("vocab_size", "bos_token_id", "eos_token_id"):
        setattr(config, name, tokens[name])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, buffer in model.named_buffers():
        if "correction" in name:
            buffer.normal_()
    model.save_pretrained(path)
    return path


def trained(recipe: Recipe) -> tuple[Any, Any]:
    """A recipe's model, its adapters moved away from nothing, and the tokenizer."""
    tokenizer = load_tokenizer(recipe.model.base)
    model = load_model(recipe, tokenizer, CPU).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model, tokenizer


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_export_computes_what_the_trained_model_does(
    recipe: Recipe, base_dir: Path, tmp_path: Path, family: str, rank: int
) -> None:
    base = family_base(family, base_dir, tmp_path / "base")
    recipe = recipe.override({"model.base": str(base), "model.lora_rank": rank})
    model, tokenizer = trained(recipe)
    expected = model(input_ids=IDS).logits
    export.save_weights(model, tokenizer, tmp_path / "01", {})
    loader: Any = AutoModelForCausalLM
    loaded, info = loader.from_pretrained(tmp_path / "01", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded.eval()(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-5)
    # The names are those that transformers itself gives a plain model of this family.
    loaded.save_pretrained(tmp_path / "plain")
    names = [set(load_file(tmp_path / f / "model.safetensors")) for f in ("01", "plain")]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), (True, 0.7, 0.9, 1.2)),
        (Sampling(temperature=1, top_p=0.5, repetition_penalty=1), (True, 1, 0.5, 1)),
        (Sampling(temperature=0), (False, 1, 1, 1.2)),
    ],
)
def test_others_decode_an_export_as_its_recipe_says(
    recipe: Recipe, tmp_path: Path, sampling: Sampling, expected: tuple[float, ...]
) -> None:
    model, tokenizer = trained(recipe)
    for longest in (32, 10**6):
        limited = sampling.model_copy(update={"context": longest})
        export.save_weights(model, tokenizer, tmp_path / "01", {}, sampling=limited)
        told = GenerationConfig(do_sample=False, temperature=1.0, top_p=1.0)
        told.update(**GenerationConfig.from_pretrained(tmp_path / "01").to_diff_dict())
        names = ("do_sample", "temperature", "top_p", "repetition_penalty")
        assert tuple(getattr(told, name) for name in names) == expected
        assert told.max_length == min(longest, context_length(model.config))
        assert told.max_new_tokens is None
    limited = sampling.model_copy(update={"max_new_tokens": 5})
    export.save_weights(model, tokenizer, tmp_path / "02", {}, sampling=limited)
    told = GenerationConfig.from_pretrained(tmp_path / "02")
    assert told.max_new_tokens == 5


def test_weights_of_several_groups_are_the_same(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = trained(recipe.override({"model.lora_rank": 4}))
    export.save_weights(model, tokenizer, tmp_path / "one", {})
    monkeypatch.setattr(export, "GROUP_BYTES", 100_000)
    export.save_weights(model, tokenizer, tmp_path / "many", {})
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 1
    assert not list((tmp_path / "many").glob("gathered*"))
    hashes = [json.loads((tmp_path / f / "lineage.json").read_text()) for f in ("one", "many")]
    assert hashes[0]["weights"] == hashes[1]["weights"]
    one, many = (AutoModelForCausalLM.from_pretrained(tmp_path / f) for f in ("one", "many"))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, many.state_dict()[name]), name


@pytest.mark.parametrize(
    ("precision", "rank", "asked", "found"),
    [
        ("fp32", 0, "auto", torch.float32),
        ("bf16", 0, "auto", torch.bfloat16),
        ("bf16", 4, "auto", torch.float32),
        ("fp32", 0, "bf16", torch.bfloat16),
        ("bf16", 4, "bf16", torch.bfloat16),
    ],
)
def test_the_files_have_the_precision_of_training(
    recipe: Recipe, tmp_path: Path, precision: str, rank: int, asked: str, found: torch.dtype
) -> None:
    point = {"train.precision": precision, "model.lora_rank": rank, "train.zero_stage": 2}
    model, tokenizer = trained(recipe.override(point))
    export.save_weights(model, tokenizer, tmp_path / "01", {}, asked)
    weights = load_file(tmp_path / "01" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {found}
    config = json.loads((tmp_path / "01" / "config.json").read_text())
    assert config["dtype"] == str(found).removeprefix("torch.") and config["use_cache"]
    if rank == 0 and asked == "auto":
        for name, weight in model.state_dict().items():
            assert torch.equal(weights[name], weight), name


def test_a_small_loras_change_survives_a_bf16_base(recipe: Recipe, tmp_path: Path) -> None:
    """Each change is far below a bf16 weight's rounding; together they move the logits."""
    model, tokenizer = trained(recipe.override({"model.lora_rank": 4, "train.precision": "fp32"}))
    weight = model.base_model.model.model.layers[0].mlp.up_proj
    with torch.no_grad():
        weight.base_layer.weight.copy_(weight.base_layer.weight.bfloat16())
        weight.lora_B["default"].weight.mul_(1e-4)
    export.save_weights(model, tokenizer, tmp_path / "01", {})
    saved = load_file(tmp_path / "01" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    change = weight.get_delta_weight("default")
    torch.testing.assert_close(saved - weight.base_layer.weight, change, rtol=0, atol=1e-8)
    lost = saved.bfloat16() == weight.base_layer.weight.bfloat16()
    assert lost.float().mean() > 0.8


def test_the_adapter_stands_beside(recipe: Recipe, tmp_path: Path) -> None:
    from peft import PeftModel

    model, tokenizer = trained(recipe.override({"model.lora_rank": 4}))
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(0.01)
    export.save_weights(model, tokenizer, tmp_path / "01", {})
    plain = AutoModelForCausalLM.from_pretrained(recipe.model.base, dtype=torch.float32)
    plain.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    adapted = PeftModel.from_pretrained(plain, tmp_path / "01" / "adapter").eval()
    torch.testing.assert_close(adapted(input_ids=IDS).logits, model(input_ids=IDS).logits)
    run = Run(tmp_path)
    (tmp_path / "epochs").mkdir()
    (tmp_path / "01").rename(run.epoch_dir(1))
    run.export(1)
    assert (run.export_dir / "adapter" / "adapter_model.safetensors").is_file()


def test_others_may_read_the_files(recipe: Recipe, tmp_path: Path) -> None:
    model, tokenizer = trained(recipe.override({"model.lora_rank": 4}))
    export.save_weights(model, tokenizer, tmp_path / "01", {})
    expected = (tmp_path / "01").stat().st_mode & 0o666
    for file in (tmp_path / "01").rglob("*.*"):
        assert file.stat().st_mode & 0o777 == expected, file


def test_weights_that_are_not_finite_are_not_saved(recipe: Recipe, tmp_path: Path) -> None:
    model, tokenizer = trained(recipe)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("inf")
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight holds values that are"):
        export.save_weights(model, tokenizer, tmp_path / "01", {})
    assert not list(tmp_path.glob("01*"))


def exported(recipe: Recipe) -> Run:
    """A run of a few steps in this process, its weights written as epoch 1 and exported."""
    run = Run(recipe.run_dir)
    tokenizer, _, rows = training_data.load(recipe)
    run.path.mkdir(parents=True, exist_ok=True)
    rows.save(run.rows_file)
    engine = build_engine(recipe, tokenizer, CPU)
    for step in plan_epoch(recipe, rows, 0, 1):
        train_step(engine, step, rows, 1e-2)
    lineage = {"epoch": 1, "trained": export_check.asdict(export_check.probe_loss(engine, rows))}
    dtype = recipe.checkpoint.weights_dtype
    export.save_weights(engine.module, tokenizer, run.epoch_dir(1), lineage, dtype)
    engine.destroy()
    run.export(1)
    return run


@pytest.mark.parametrize(
    "point",
    [
        {},
        {"train.precision": "bf16", "train.zero_stage": 2},
        {"model.lora_rank": 4},
        {"model.lora_rank": 4, "train.precision": "bf16", "train.zero_stage": 2},
    ],
    ids=["fp32", "bf16", "lora", "lora bf16"],
)
def test_the_loss_of_the_export_is_the_trainers_own(recipe: Recipe, point: dict[str, Any]) -> None:
    run = exported(recipe.override(point))
    told = export_check.check_export(run, "auto")
    assert told.startswith("export loaded again: loss ")
    found = json.loads(run.export_check_file.read_text())
    exact = {} in (point, {k: v for k, v in point.items() if k != "model.lora_rank"})
    expected = pytest.approx(found["trained"]["loss"], rel=1e-5 if exact else 1e-2)
    assert found["loaded"]["loss"] == expected
    weights = run.export_dir / "model.safetensors"
    weights.write_bytes(b"")  # what is checked already is not loaded again
    assert export_check.check_export(run, "auto") == told


def test_an_export_that_differs_is_removed(recipe: Recipe) -> None:
    run = exported(recipe)
    file = run.export_dir / "model.safetensors"
    weights = load_file(file)
    file.unlink()
    save_file({n: w.neg() for n, w in weights.items()}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"not the model that was trained: loss \d.*report"):
        export_check.check_export(run, "auto")
    assert not run.export_dir.exists()


def test_an_export_that_lacks_weights_is_refused(recipe: Recipe) -> None:
    run = exported(recipe)
    file = run.export_dir / "model.safetensors"
    weights = load_file(file)
    file.unlink()
    save_file(dict(list(weights.items())[:-1]), file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="was not saved whole: 1 missing weights"):
        export_check.check_export(run, "auto")


def test_rounding_that_the_recipe_wants_is_reported(recipe: Recipe) -> None:
    run = exported(recipe.override({"checkpoint.weights_dtype": "bf16"}))
    told = export_check.check_export(run, "bf16")
    assert " in bfloat16, " in told and " as trained in float32" in told


def test_zero_0_reports_the_norm_of_the_gradient(recipe: Recipe) -> None:
    tokenizer, _, rows = training_data.load(recipe)
    norms = []
    for stage in (0, 2):
        still = {"train.zero_stage": stage, "model.residual_dropout": 0.0, "optim.clip_norm": 0.5}
        engine = build_engine(recipe.override(still), tokenizer, CPU)
        steps = plan_epoch(recipe, rows, 0, 1)
        norms.append([train_step(engine, step, rows, 1e-3).grad_norm for step in steps])
        engine.destroy()
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert min(norms[0]) > 0.5


def test_buckets_smaller_than_a_weight_change_nothing(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, _, rows = training_data.load(recipe)
    losses = []
    for stage, least in ((0, zero.MIN_BUCKET), (2, zero.MIN_BUCKET), (2, 1000), (3, 1000)):
        monkeypatch.setattr(zero, "MIN_BUCKET", least)
        still = {"train.zero_stage": stage, "model.residual_dropout": 0.0}
        engine = build_engine(recipe.override(still), tokenizer, CPU)
        steps = plan_epoch(recipe, rows, 0, 1)
        losses.append([train_step(engine, step, rows, 1e-3).loss for step in steps])
        engine.destroy()
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-5)


def test_one_worker_in_fp32_takes_zero_0(recipe: Recipe) -> None:
    tokenizer, _, _ = training_data.load(recipe)
    stages = []
    for precision in ("fp32", "bf16"):
        engine = build_engine(recipe.override({"train.precision": precision}), tokenizer, CPU)
        stages.append(engine.zero_optimization_stage())
        engine.destroy()
    assert stages == [0, 2]
