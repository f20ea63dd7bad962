"""Residual dropout by depth, the EOT row, packed attention, LoRA, and refused bases."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.data.encoding import encode
from lima_ray.data.examples import read_examples
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import load_tokenizer
from lima_ray.model import cpu_layers
from lima_ray.model.flops import step_flops
from lima_ray.model.loading import choose_precision, describe_kernels, load_model
from lima_ray.model.loss import forward_packed
from lima_ray.model.residual_dropout import residual_dropout_rates
from lima_ray.records.lineage import check_base
from lima_ray.training.schedule import learning_rate, step_seed

CPU = torch.device("cpu")


def loaded(recipe: Recipe) -> tuple[Any, Rows, Any]:
    tokenizer = load_tokenizer(recipe.model.base)
    rows = encode(read_examples(recipe.data.train), tokenizer, recipe.data)
    return tokenizer, rows, load_model(recipe, tokenizer, CPU)


def logits(model: torch.nn.Module, rows: Rows, row: int) -> torch.Tensor:
    return model(input_ids=torch.from_numpy(rows.row(row)[0]).long()[None]).logits


def test_rates_rise_linearly_from_zero() -> None:
    assert residual_dropout_rates(4, 0.3) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    rates = residual_dropout_rates(80, 0.3)
    assert (rates[0], rates[-1]) == (0.0, 0.3)
    assert residual_dropout_rates(1, 0.3) == [0.0]


def test_each_sublayer_drops_at_its_layers_rate(recipe: Recipe) -> None:
    _, _, model = loaded(recipe.override({"model.residual_dropout": 0.4}))
    x_BTD = torch.ones(4, 500, 64)
    for layer, rate in zip(model.model.layers, (0.0, 0.2, 0.4), strict=True):
        layer.mlp.forward = lambda x: x
        y = layer.mlp(x_BTD)
        dropped = (y == 0).float().mean().item()
        assert dropped == pytest.approx(rate, abs=0.01)
        assert y.mean().item() == pytest.approx(1.0, abs=0.02)
        position = model.model.rotary_emb(x_BTD, torch.arange(500)[None])
        attended = layer.self_attn(x_BTD, position_embeddings=position, attention_mask=None)[0]
        assert (attended == 0).float().mean().item() == pytest.approx(rate, abs=0.01)


def test_eval_is_the_untouched_model(recipe: Recipe, base_dir: Path) -> None:
    _, rows, model = loaded(recipe.override({"model.residual_dropout": 0.3}))
    untouched = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    vocab = untouched.config.vocab_size
    with torch.no_grad():
        ids = torch.arange(5, 60)[None] % vocab
        model.eval()
        torch.testing.assert_close(model(ids).logits[..., :vocab], untouched(ids).logits)
        evaluated = logits(model, rows, 0)
        model.train()
        assert not torch.allclose(logits(model, rows, 0), evaluated, atol=1e-3)


@pytest.mark.parametrize(
    "point", [{}, {"train.activation_checkpointing": True}, {"model.lora_rank": 4}]
)
def test_mixed_precision_is_fp32_within_the_rounding_of_bf16(
    recipe: Recipe, point: dict[str, Any]
) -> None:
    found = {}
    for precision in ("fp32", "mixed"):
        same = point | {"train.precision": precision, "model.residual_dropout": 0.0}
        torch.manual_seed(0)
        _, rows, model = loaded(recipe.override(same))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # begins at zero, which hides lora_A from the gradient
                torch.nn.init.normal_(parameter, std=0.02)
        loss, _ = forward_packed(model, (0, 3, 5), rows)
        loss.backward()
        named = model.named_parameters()
        gradients = {name: p.grad for name, p in named if p.grad is not None}
        assert {g.dtype for g in gradients.values()} == {torch.float32}
        with torch.no_grad():
            evaluated = logits(model.eval(), rows, 0)
        assert describe_kernels(model)["precision"] == {"fp32": "float32"}.get(precision, "mixed")
        found[precision] = loss.item(), gradients, evaluated
    (loss, gradients, evaluated), (mixed_loss, mixed_gradients, mixed_evaluated) = found.values()
    assert torch.equal(mixed_evaluated, evaluated)
    assert mixed_loss != loss
    assert mixed_loss == pytest.approx(loss, rel=0.01)
    assert mixed_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        error = (mixed_gradients[name] - gradient).norm() / gradient.norm()
        assert error < 0.05, (name, error)


def test_auto_multiplies_in_bf16_where_the_processor_does(recipe: Recipe) -> None:
    auto = recipe.override({"train.precision": "auto"})
    here = "mixed" if cpu_layers.multiplies_bf16() else "fp32"
    assert choose_precision(auto, CPU) == here
    gpu = torch.device("cuda")
    assert choose_precision(auto, gpu) == "bf16"
    assert choose_precision(auto.override({"train.zero_stage": 0}), gpu) == "fp32"
    with pytest.raises(UserError, match="mixed is for a CPU"):
        choose_precision(recipe.override({"train.precision": "mixed"}), gpu)


def test_checkpointed_layers_draw_the_same_dropout(recipe: Recipe) -> None:
    gradients = []
    for on in (False, True):
        point = {"train.activation_checkpointing": on, "model.residual_dropout": 0.3}
        _, rows, model = loaded(recipe.override(point))
        assert model.is_gradient_checkpointing == on
        torch.manual_seed(step_seed(0, 7, 0))
        forward_packed(model, (0, 3, 5), rows)[0].backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_packed_rows_do_not_see_each_other(recipe: Recipe) -> None:
    tokenizer = load_tokenizer(recipe.model.base)
    rows = encode(read_examples(recipe.data.train), tokenizer, recipe.data)
    model = load_model(recipe, tokenizer, CPU).eval()
    together = forward_packed(model, (0, 1, 2), rows)
    alone = [forward_packed(model, (row,), rows) for row in (0, 1, 2)]
    torch.testing.assert_close(together[0], sum(loss for loss, _ in alone), rtol=1e-5, atol=0)
    assert together[1] == sum(correct for _, correct in alone)
    model.set_attn_implementation("sdpa")
    plain = logits(model, rows, 1)[0, :-1].log_softmax(-1)
    ids, mask = rows.row(1)
    target = torch.from_numpy(ids[1:]).long()
    nll = -plain[torch.arange(len(target)), target][torch.from_numpy(mask[1:])].sum()
    torch.testing.assert_close(alone[1][0], nll, rtol=1e-5, atol=0)


def test_an_empty_micro_batch_weighs_nothing(recipe: Recipe) -> None:
    _, rows, model = loaded(recipe)
    loss, correct = forward_packed(model, (), rows)
    loss.backward()
    assert (loss.item(), float(correct)) == (0.0, 0.0)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_a_new_eot_starts_as_the_mean(recipe: Recipe, base_dir: Path) -> None:
    tokenizer, _, model = loaded(recipe)
    base: Any = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    assert len(tokenizer) == base.config.vocab_size + 1
    for ours, theirs in (
        (model.get_input_embeddings(), base.get_input_embeddings()),
        (model.get_output_embeddings(), base.get_output_embeddings()),
    ):
        torch.testing.assert_close(ours.weight[:-1], theirs.weight)
        torch.testing.assert_close(ours.weight[-1], theirs.weight.mean(dim=0))
    assert model.config.eos_token_id == len(tokenizer) - 1


def test_lora_trains_adapters_and_embeddings_only(recipe: Recipe) -> None:
    _, rows, model = loaded(recipe.override({"model.lora_rank": 4}))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in n or "embed_tokens" in n or "lm_head" in n for n in trained)
    assert sum("lora_A" in n for n in trained) == 3 * 7
    forward_packed(model, (0, 1), rows)[0].backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if n in trained)


def test_learning_rate_ends_are_exact(recipe: Recipe) -> None:
    optim = recipe.override({"optim.learning_rate": 1e-5}).optim
    rates = [learning_rate(step, 480, optim) for step in range(480)]
    assert rates[0] == 1e-5
    assert rates[-1] == 1e-6
    np.testing.assert_allclose(np.diff(rates), -9e-6 / 479)
    assert learning_rate(0, 1, optim) == 1e-5


def test_flops_count_what_a_profiler_counts(recipe: Recipe) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    tokenizer = load_tokenizer(recipe.model.base)
    rows = encode(read_examples(recipe.data.train), tokenizer, recipe.data)
    model = load_model(recipe, tokenizer, CPU)
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        forward_packed(model, (0,), rows)[0].backward()
    length, supervised = rows.lengths_R[:1], int(rows.supervised_R[0])
    half_of_square = 6.0 * 3 * 64 * float(length[0]) ** 2
    embedding_free = counter.get_total_flops() - half_of_square
    assert step_flops(model.config, length, supervised) == pytest.approx(embedding_free, rel=0.01)


@pytest.mark.parametrize(
    ("removed", "message"),
    [("model.safetensors", "no weights in"), ("config.json", "no config.json")],
)
def test_incomplete_bases_are_refused(
    base_dir: Path, tmp_path: Path, removed: str, message: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base_dir, broken)
    (broken / removed).unlink()
    with pytest.raises(UserError, match=message):
        check_base(str(broken))


def test_pickled_weights_are_refused(base_dir: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(base_dir, pickled)
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"pytorch_model\.bin, which are pickles"):
        check_base(str(pickled))


@pytest.mark.parametrize("base", ["./nowhere", "/no/such/base", "justaname"])
def test_a_missing_base_is_refused(base: str) -> None:
    with pytest.raises(UserError, match="no base model at"):
        check_base(base)
