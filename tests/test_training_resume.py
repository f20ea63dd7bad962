"""Losses are the same for any number of workers, and after a stop in the middle of an epoch.

Each process group runs all its cases in turn, since starting processes is what takes the time.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from process_group import in_process_group

from lima_ray.config.recipe import Recipe
from lima_ray.data import training_data
from lima_ray.records.phases import Phases
from lima_ray.records.run import Run
from lima_ray.training.loop import train

STOP_AFTER = 5
"""Steps done when a run is cut off: in the middle of the second of three epochs of three."""
CASES = {
    "zero0": {"train.zero_stage": 0},
    "zero1-bf16": {"train.zero_stage": 1, "train.precision": "bf16"},
    "zero2": {"train.zero_stage": 2},
    "zero2-bf16": {"train.zero_stage": 2, "train.precision": "bf16"},
    "zero3": {"train.zero_stage": 3},
    "zero3-bf16": {"train.zero_stage": 3, "train.precision": "bf16"},
    "zero3-mixed": {"train.zero_stage": 3, "train.precision": "mixed"},
    "lora": {"train.zero_stage": 2, "model.lora_rank": 4},
    "lora-zero3-bf16": {"train.zero_stage": 3, "model.lora_rank": 4, "train.precision": "bf16"},
    "leaving": {"train.zero_stage": 2},
}
AT_WEIGHTS = "zero1-bf16"
"""The case that is killed between an epoch's weights and its state."""
LEAVING = "leaving"
"""The case whose second worker is told that its node is about to be taken away."""
RESHARDED = ("zero0", "zero2", "zero2-bf16", "zero3")
FRESH = ("zero2", "zero3")


class Killed(Exception):
    """Ends a worker's loop as abruptly as a kill, at a known step."""


def train_all(recipes: list[Recipe], killed: bool) -> None:
    """Train one recipe after the other, each cut off at STOP_AFTER if `killed`."""
    for recipe in recipes:
        leaving = killed and recipe.name == LEAVING
        run, done = Run(recipe.run_dir), list[int]()
        try:
            ended = train(
                recipe,
                run,
                torch.device("cpu"),
                Phases(0.0),
                {},
                kill_at_report if killed and recipe.name == AT_WEIGHTS else no_report,
                after_step=kill_at if killed and not leaving else done.append,
                about_to_leave=lambda one=leaving, done=done: one and is_told(done[-1]),
            )
            assert ended != leaving
        except Killed:
            continue


def no_report(*_: Any, **__: Any) -> None:
    """Stands where the report to Ray Train does."""


def kill_at_report(*_: Any, **__: Any) -> None:
    """End the loop after an epoch's weights are written and before its state is."""
    raise Killed


def is_told(step: int) -> bool:
    return torch.distributed.get_rank() == 1 and step == STOP_AFTER


def kill_at(step: int) -> None:
    if step == STOP_AFTER:
        raise Killed


def prepare(recipe: Recipe, folder: str, case: str, **more: Any) -> Recipe:
    """A recipe of its own directory, prepared as `fit` does."""
    runs = Path(recipe.runs_dir) / folder
    point = CASES[case] | {"name": case, "runs_dir": str(runs)} | more
    recipe = recipe.override({"checkpoint.state_every_steps": 2} | point)
    run = Run(recipe.run_dir)
    if not run.path.exists():
        tokenizer, _, rows = training_data.load(recipe)
        run.initialise(recipe, {})
        rows.save(run.rows_file)
        tokenizer.save_pretrained(run.tokenizer_dir, save_jinja_files=False)
    return recipe


def losses(recipe: Recipe) -> list[float]:
    steps = Run(recipe.run_dir).steps()
    assert [s["step"] for s in steps] == list(range(1, len(steps) + 1))
    return [s["loss"] for s in steps]


def test_stopped_runs_resume_exactly(recipe: Recipe) -> None:
    whole = [prepare(recipe, "whole", case) for case in CASES]
    stopped = [prepare(recipe, "stopped", case) for case in CASES]
    in_process_group(2, train_all, whole, False)
    in_process_group(2, train_all, stopped, True)
    for one in stopped:
        state = Run(one.run_dir).latest_state()
        assert state is not None
        saved = {AT_WEIGHTS: 2, LEAVING: STOP_AFTER}.get(one.name, 4)
        assert (state.step, state.workers) == (saved, 2)
    in_process_group(2, train_all, stopped, False)
    for one, other in zip(stopped, whole, strict=True):
        assert len(losses(one)) == 9
        assert losses(one) == losses(other), one.name
        for epoch in (1, 2, 3):
            weights = [Run(r.run_dir).epoch_dir(epoch) / "model.safetensors" for r in (one, other)]
            assert weights[0].read_bytes() == weights[1].read_bytes(), one.name


@pytest.mark.parametrize("workers", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_same_losses(recipe: Recipe, workers: int) -> None:
    still = {"model.residual_dropout": 0.0}
    whole = {case: prepare(recipe, "whole", case, **still) for case in RESHARDED}
    moved = {case: prepare(recipe, "moved", case, **still) for case in RESHARDED}
    fresh = {case: prepare(recipe, "fresh", case, **still) for case in FRESH}
    in_process_group(2, train_all, list(whole.values()), False)
    in_process_group(2, train_all, list(moved.values()), True)
    in_process_group(workers, train_all, [*moved.values(), *fresh.values()], False)
    for case, one in fresh.items():
        np.testing.assert_allclose(losses(one), losses(whole[case]), rtol=1e-4, err_msg=case)
    for case, one in moved.items():
        tolerance = 1e-4 if case in ("zero0", "zero2", "zero3") else 1e-2
        np.testing.assert_allclose(losses(one), losses(whole[case]), rtol=tolerance, err_msg=case)
