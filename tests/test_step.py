"""A step through packing, ZeRO and several workers is the plain PyTorch step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gang import gang

from lima_ray import encode
from lima_ray.config import Recipe
from lima_ray.encode import Rows
from lima_ray.loop import build_engine, train_step
from lima_ray.model import load_model, whole
from lima_ray.schedule import Schedule, plan_epoch

STEPS = 3
CPU = torch.device("cpu")


def plain_steps(recipe: Recipe, rows: Rows, tokenizer) -> tuple[dict[str, np.ndarray], list[float]]:
    """STEPS steps written out: one row at a time through the untouched model, torch's own AdamW."""
    torch.manual_seed(recipe.seed)
    model = load_model(recipe, tokenizer, CPU)
    model.set_attn_implementation("sdpa")
    optim = recipe.optim
    adam = torch.optim.AdamW(
        model.parameters(),
        lr=1.0,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
        weight_decay=optim.weight_decay,
    )
    schedule, losses = Schedule.of(recipe, len(rows)), []
    for number, step in enumerate(plan_epoch(recipe, rows, 0, 1)[:STEPS]):
        supervised = sum(rows.row(r)[1].sum() for r in step.rows)
        total = 0.0
        for r in step.rows:
            ids_T, mask_T = (torch.from_numpy(part) for part in rows.row(r))
            labels_1T = torch.where(mask_T, ids_T.long(), -100)[None]
            logits_1TV = model(input_ids=ids_T.long()[None]).logits
            loss = torch.nn.functional.cross_entropy(
                logits_1TV[0, :-1], labels_1T[0, 1:], reduction="sum", ignore_index=-100
            )
            (loss / float(supervised)).backward()
            total += loss.item() / float(supervised)
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        for group in adam.param_groups:
            group["lr"] = schedule.learning_rate(number)
        adam.step()
        adam.zero_grad()
        losses.append(total)
    return {n: p.detach().numpy().copy() for n, p in model.named_parameters()}, losses


def trained(recipe: Recipe, rows_file: Path, points: list[dict]) -> list[tuple[dict, list[float]]]:
    """In a gang: the same steps through our engine, for several settings in turn."""
    results = []
    for point in points:
        ours = recipe.override(point)
        rows = Rows.load(rows_file)
        tokenizer = encode.load_tokenizer(ours.model.base)
        engine = build_engine(ours, tokenizer, CPU)
        workers = torch.distributed.get_world_size()
        schedule, losses = Schedule.of(ours, len(rows)), []
        for number, step in enumerate(plan_epoch(ours, rows, 0, workers)[:STEPS]):
            rate = schedule.learning_rate(number)
            losses.append(train_step(engine, step, rows, rate).loss)
        weights = {}
        for name, parameter in engine.module.named_parameters():
            with whole(parameter):
                weights[name] = parameter.detach().numpy().copy()
        results.append((weights, losses))
        engine.destroy()
    return results


@pytest.mark.parametrize("workers", [1, 2])
def test_steps_equal_plain_pytorch(recipe: Recipe, tmp_path: Path, workers: int) -> None:
    recipe = recipe.override({"model.residual_dropout": 0.0, "cluster.workers": workers})
    tokenizer, _, rows = encode.prepare(recipe)
    rows.save(tmp_path / "rows")
    points = [
        {"train.zero_stage": stage, "train.tokens_per_micro_batch": tokens}
        for stage in (0, 2, 3)
        for tokens in (256, 700, 4096)
    ]
    expected, losses = plain_steps(recipe, rows, tokenizer)
    untouched = {
        n: p.detach().numpy() for n, p in load_model(recipe, tokenizer, CPU).named_parameters()
    }
    for rank_results in gang(workers, trained, recipe, tmp_path / "rows", points):
        for point, (weights, our_losses) in zip(points, rank_results, strict=True):
            np.testing.assert_allclose(our_losses, losses, rtol=1e-5, err_msg=str(point))
            for name, ours in weights.items():
                change = np.linalg.norm(expected[name] - untouched[name])
                error = np.linalg.norm(ours - expected[name])
                assert error <= 1e-5 * np.linalg.norm(expected[name]), (point, name)
                assert error <= 1e-3 * change, (point, name, "the change itself")


@pytest.mark.slow
def test_offloaded_steps_equal_plain_pytorch(recipe: Recipe, tmp_path: Path) -> None:
    recipe = recipe.override({"model.residual_dropout": 0.0, "cluster.workers": 2})
    tokenizer, _, rows = encode.prepare(recipe)
    rows.save(tmp_path / "rows")
    points = [
        {"train.zero_stage": 2, "train.offload_optimizer": True},
        {"train.zero_stage": 3, "train.offload_optimizer": True},
        {"train.zero_stage": 3, "train.offload_optimizer": True, "train.offload_params": True},
    ]
    expected, losses = plain_steps(recipe, rows, tokenizer)
    for weights, our_losses in gang(2, trained, recipe, tmp_path / "rows", points)[0]:
        np.testing.assert_allclose(our_losses, losses, rtol=1e-5)
        for name, ours in weights.items():
            error = np.linalg.norm(ours - expected[name])
            assert error <= 1e-4 * np.linalg.norm(expected[name]), name
