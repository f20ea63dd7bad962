"""A step through packing, ZeRO and several workers is the plain PyTorch step."""

from pathlib import Path

import pytest
import torch
from process_group import in_process_group
from torch import distributed as dist

from benchmarks.gpu.reference import AdamState, plain_gradients, step_errors
from lima_ray.config.recipe import Recipe
from lima_ray.data import training_data
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import load_tokenizer
from lima_ray.model.loading import load_model
from lima_ray.training.loop import build_engine, train_step
from lima_ray.training.schedule import Schedule, plan_epoch

STEPS = 3
CPU = torch.device("cpu")


def compared(recipe: Recipe, rows_file: Path, points: list[dict]) -> list[list[dict[str, float]]]:
    """Compare steps of our engine with plain ones from the same weights, for each setting.

    Returns:
        for each setting and step the errors, relative to what they are errors of.
    """
    found = []
    rows, tokenizer = Rows.load(rows_file), load_tokenizer(recipe.model.base)
    plain = load_model(recipe, tokenizer, CPU)
    plain.set_attn_implementation("sdpa")
    for point in points:
        ours = recipe.override(point)
        engine = build_engine(ours, tokenizer, CPU)
        schedule, errors = Schedule.of(ours, len(rows)), []
        before = AdamState.of(engine, steps=0)
        for number, step in enumerate(plan_epoch(ours, rows, 0, dist.get_world_size())[:STEPS]):
            plain.load_state_dict(before.weights, strict=False)
            gradients, loss = plain_gradients(plain, rows, step)
            rate = schedule.learning_rate(number)
            result = train_step(engine, step, rows, rate)
            after = AdamState.of(engine, number + 1)
            expected = after.expected(before, ours.optim, number + 1, rate)
            error = step_errors(result, after, before, expected, gradients, loss, ours.optim)
            errors.append({what: max(of_each.values()) for what, of_each in error.items()})
            before = after
        found.append(errors)
        engine.destroy()
    return found


# Sums of floating-point numbers differ by their order, which packing, workers and each processor
# choose. In fp32 that is 1e-7 of a term; these bounds leave room for cancellation, while a row left
# out, counted twice or seen by another, or a wrong rate, shows in the second digit.
BOUNDS = {"loss": 1e-5, "gradient": 1e-4, "squares": 1e-4, "update": 1e-3}


def check(errors_of_points: list[list[dict[str, float]]], points: list[dict]) -> None:
    """Fail for the settings whose errors are above the bounds."""
    for point, errors in zip(points, errors_of_points, strict=True):
        for number, error in enumerate(errors):
            above = {what: e for what, e in error.items() if not e <= BOUNDS[what]}
            assert not above, (point, number)


@pytest.mark.parametrize("workers", [1, 2])
def test_steps_equal_plain_pytorch(recipe: Recipe, tmp_path: Path, workers: int) -> None:
    recipe = recipe.override({"model.residual_dropout": 0.0, "cluster.workers": workers})
    training_data.load(recipe)[2].save(tmp_path / "rows")
    points = [
        {"train.zero_stage": stage, "train.tokens_per_micro_batch": tokens}
        for stage in (0, 2, 3)
        for tokens in (256, 700, 4096)
    ]
    for errors in in_process_group(workers, compared, recipe, tmp_path / "rows", points):
        check(errors, points)


@pytest.mark.slow
def test_offloaded_steps_equal_plain_pytorch(recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.override({"model.residual_dropout": 0.0, "cluster.workers": 2})
    training_data.load(recipe)[2].save(tmp_path / "rows")
    points = [
        {"train.zero_stage": 2, "train.offload_optimizer": True},
        {"train.zero_stage": 3, "train.offload_optimizer": True},
        {"train.zero_stage": 3, "train.offload_optimizer": True, "train.offload_params": True},
    ]
    for errors in in_process_group(2, compared, recipe, tmp_path / "rows", points):
        check(errors, points)
