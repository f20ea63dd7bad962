"""Planned bytes against bytes that are counted on real engines and real forward passes."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from lima_ray.config.recipe import Recipe
from lima_ray.data import training_data
from lima_ray.model.loading import load_model
from lima_ray.model.loss import forward_packed
from lima_ray.planning.memory import Load, WorkerMemory, plan_memory
from lima_ray.planning.sizes import KNOWN, base_config, load_of_steps, read_shape, shape_of
from lima_ray.training.loop import build_engine, train_step
from lima_ray.training.schedule import plan_epoch

CPU = torch.device("cpu")
LINEAR = torch.nn.functional.linear
STATES = 0.02
"""What alignment and padding may add to a tiny model's states."""
ACTIVATIONS = 0.05
"""Of a tiny model: rows' sums and positions, which are not counted, are small beside the rest."""


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the memory that tensors stand in, each counted once."""
    found = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(found.values())


def state_tensors(engine: Any) -> Iterable[torch.Tensor]:
    """What an engine holds between steps: weights in use, fp32 ones, and AdamW's averages."""
    for parameter in engine.module.parameters():
        yield getattr(parameter, "ds_tensor", parameter)
    for state in engine.basic_optimizer.state.values():
        yield from (value for value in state.values() if value.dim())
    for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
        yield from getattr(engine.optimizer, name, [])
    yield from getattr(engine.optimizer, "fp32_groups_flat_partition", [])


@pytest.mark.parametrize(
    ("stage", "precision"),
    [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16")],
)
@pytest.mark.parametrize("rank", [0, 4])
def test_states_are_those_of_an_engine(
    recipe: Recipe, alone: None, stage: int, precision: str, rank: int
) -> None:
    point = {"train.zero_stage": stage, "train.precision": precision, "model.lora_rank": rank}
    recipe = recipe.override(point)
    tokenizer, _, rows = training_data.load(recipe)
    engine = build_engine(recipe, tokenizer, CPU)
    train_step(engine, plan_epoch(recipe, rows, 0, 1)[0], rows, 1e-5)
    counted = storage_bytes(state_tensors(engine))
    engine.destroy()
    states = WorkerMemory(recipe, read_shape(recipe), Load(1, 1), False, precision).states()
    assert sum(states.values()) == pytest.approx(counted, rel=STATES)


@pytest.mark.parametrize("precision", ["fp32", "mixed", "bf16"])
@pytest.mark.parametrize(
    "point",
    [
        {},
        {"model.residual_dropout": 0.3},
        {"model.lora_rank": 4},
        {"train.activation_checkpointing": True},
    ],
    ids=["plain", "dropout", "lora", "checkpointing"],
)
def test_activations_are_what_autograd_keeps(
    recipe: Recipe, precision: str, point: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # ZeRO 3 replaces it in the whole process, with one that keeps no weight in bf16.
    monkeypatch.setattr(torch.nn.functional, "linear", LINEAR)
    recipe = recipe.override(
        {"train.precision": precision, "train.zero_stage": 2, "model.residual_dropout": 0.0} | point
    )
    tokenizer, _, rows = training_data.load(recipe)
    model = load_model(recipe, tokenizer, CPU)
    batch = plan_epoch(recipe, rows, 0, 1)[0].ranks[0][0]
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = forward_packed(model, batch, rows)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    own = [t for t in kept if t.untyped_storage().data_ptr() not in weights]
    lengths = rows.lengths_R[list(batch)]
    load = Load(int(lengths.sum()), int(rows.supervised_R[list(batch)].sum()))
    planned = WorkerMemory(recipe, read_shape(recipe), load, False, precision)
    hidden = load.supervised * planned.product * planned.shape.hidden
    softmax = load.supervised * 4 * planned.shape.config.vocab_size
    expected = planned.activations() + planned.casts() + hidden + softmax
    if recipe.train.activation_checkpointing:
        # Kept as the layers' arguments, out of autograd's sight.
        expected -= load.tokens * planned.positions()
    # New tokens' rows of the vocabulary, and the few numbers of a whole row, are left out.
    assert expected == pytest.approx(storage_bytes(own), rel=ACTIVATIONS)
    assert torch.isfinite(loss)


def test_known_shapes_have_the_published_sizes() -> None:
    published = {"7b": 6.74, "13b": 13.02, "30b": 32.53, "65b": 65.29}  # LLaMA, in billions
    for name, billions in published.items():
        shape = shape_of(base_config(f"huggyllama/llama-{name}"))
        assert shape.parameters / 1e9 == pytest.approx(billions, abs=0.01)
    assert shape_of(base_config("meta-llama/Meta-Llama-3-8B")).parameters == 8_030_261_248
    smol = "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert shape_of(base_config(smol)).parameters == 134_515_008
    assert len(KNOWN) == 6


def test_each_setting_changes_memory_as_it_should() -> None:
    shape = shape_of(base_config("huggyllama/llama-13b"))
    recipe = Recipe().override({"cluster.workers": 8, "train.zero_stage": 2})

    def peak(**point: Any) -> float:
        tried = recipe.override({name.replace("__", "."): v for name, v in point.items()})
        return plan_memory(tried, shape, Load(8192, 7000), gpu=True, precision="bf16").peak

    plain = peak()
    assert peak(train__activation_checkpointing=True) < plain
    assert peak(train__zero_stage=3) < plain < peak(train__zero_stage=1)
    assert peak(train__zero_stage=3, train__offload_optimizer=True) < peak(train__zero_stage=3)
    assert peak(cluster__workers=16) < plain
    assert plain < peak(model__liger=False)
    offloaded = recipe.override({"train.zero_stage": 3, "train.offload_optimizer": True})
    memory = plan_memory(offloaded, shape, Load(8192, 7000), gpu=True, precision="bf16")
    assert memory.parts["AdamW"] == 0
    assert memory.host_bytes >= 12 * shape.parameters / 8


def test_the_load_is_the_largest_micro_batch(recipe: Recipe) -> None:
    rows = training_data.load(recipe)[2]
    steps = plan_epoch(recipe, rows, 0, 2)
    sums = [int(rows.lengths_R[list(b)].sum()) for s in steps for rank in s.ranks for b in rank]
    load = load_of_steps(steps, rows)
    assert load.tokens == max(sums)
    assert load.several == any(len(step.ranks[0]) > 1 for step in steps)


def test_a_wide_vocabulary_peaks_at_the_loss() -> None:
    shape = shape_of(base_config("meta-llama/Meta-Llama-3-8B"))
    tried = Recipe().override({"train.zero_stage": 3, "train.activation_checkpointing": True})
    memory = plan_memory(
        tried.override({"cluster.workers": 8}), shape, Load(8192, 8000), True, "bf16"
    )
    assert memory.moment == "loss"
    assert memory.parts["loss head"] > 3 * 4 * 8000 * 128256
    assert np.isclose(memory.peak, sum(memory.parts.values()))
