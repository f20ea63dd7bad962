"""Runs in a bucket: workers whose nodes share no disk, kills, and a store that goes down."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from process_group import in_process_group

from benchmarks.local_servers.s3_server import S3Server, s3_store
from lima_ray.config.recipe import Recipe
from lima_ray.config.storage import changing_files, whole_folders
from lima_ray.config.storage.working_copy import CACHE, location
from lima_ray.data import training_data
from lima_ray.records.phases import Phases
from lima_ray.records.run import Run
from lima_ray.training.loop import train

STOP_AFTER = 5
"""Steps done when a run is cut off: in the middle of the second of three epochs of three."""
STAGES = {"zero0": 0, "zero1": 1, "zero2": 2, "zero3": 3}


class Killed(Exception):
    """Ends a worker's loop as abruptly as a kill, at a known step."""


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    with s3_store() as server:
        yield server


@pytest.fixture(autouse=True)
def driver_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of the driver's own, beside those of the workers."""
    monkeypatch.setenv(CACHE, str(tmp_path / "driver"))


def train_all(recipes: list[Recipe], disks: list[str], stop_after: int) -> list[list[str]]:
    """Train one recipe after the other on this rank's own disk; return what that holds of states.

    Args:
        disks: of each rank.
        stop_after: steps after which each is cut off; 0 trains to the end.
    """
    os.environ[CACHE] = disks[torch.distributed.get_rank()]
    held = []

    def stop(step: int) -> None:
        if step == stop_after:
            raise Killed

    for recipe in recipes:
        run = Run(recipe.run_dir)
        try:
            device, phases = torch.device("cpu"), Phases(0.0)
            train(recipe, run, device, phases, {}, lambda _: None, after_step=stop)
        except Killed:
            pass
        files = run.state_dir.glob("step-*/*.pt")
        held.append(sorted(str(file.relative_to(run.state_dir)) for file in files))
    return held


def prepare(recipe: Recipe, runs_dir: str, name: str, **point: Any) -> Recipe:
    """A recipe whose run is prepared as `fit` does."""
    same = {"checkpoint.state_every_steps": 2, "name": name, "runs_dir": runs_dir}
    recipe = recipe.override(same | point)
    run = Run(recipe.run_dir)
    tokenizer, _, rows = training_data.load(recipe)
    run.refresh()
    run.initialise(recipe, {})
    rows.save(run.rows_file)
    tokenizer.save_pretrained(run.tokenizer_dir, save_jinja_files=False)
    changing_files.push(run.rows_file)
    whole_folders.publish(run.tokenizer_dir)
    return recipe


def losses(recipe: Recipe) -> list[float]:
    run = Run(recipe.run_dir)
    run.refresh()
    steps = run.steps()
    assert [s["step"] for s in steps] == list(range(1, len(steps) + 1))
    return [s["loss"] for s in steps]


@pytest.mark.slow
def test_workers_without_a_common_disk_resume_exactly(
    recipe: Recipe, store: S3Server, tmp_path: Path
) -> None:
    """Two nodes are cut off; two others, with empty disks, and then one go on from the store."""
    plain = [
        prepare(recipe, str(tmp_path / "plain"), name, **{"train.zero_stage": stage})
        for name, stage in STAGES.items()
    ]
    stored = [
        prepare(recipe, store.url("runs"), name, **{"train.zero_stage": stage})
        for name, stage in STAGES.items()
    ]
    disks = [str(tmp_path / name) for name in ("a", "b", "c", "d")]
    in_process_group(2, train_all, plain, disks[:2], 0)
    first, second = in_process_group(2, train_all, stored, disks[:2], STOP_AFTER)
    assert not set(first[-1]) & set(second[-1])  # of ZeRO 3 each has its own alone
    for one in stored:
        assert [state.step for state in open_afresh(one).states()] == [4, 2]
    in_process_group(2, train_all, stored, disks[2:], 0)
    for whole, one in zip(plain, stored, strict=True):
        assert losses(one) == losses(whole)
        run, there = open_afresh(one), Run(whole.run_dir)
        assert run.kept_epochs() == [1, 2, 3]
        for epoch in run.kept_epochs():
            weights = whole_folders.fetch(run.epoch_dir(epoch)) / "model.safetensors"
            assert (
                weights.read_bytes() == (there.epoch_dir(epoch) / "model.safetensors").read_bytes()
            )


@pytest.mark.slow
def test_another_number_of_workers_goes_on_from_the_store(
    recipe: Recipe, store: S3Server, tmp_path: Path
) -> None:
    """The states of two nodes are converted on the disk of a third."""
    point = {"train.zero_stage": 2, "model.residual_dropout": 0.0}
    plain = prepare(recipe, str(tmp_path / "plain"), "one", **point)
    stored = prepare(recipe, store.url("moved"), "one", **point)
    disks = [str(tmp_path / name) for name in ("a", "b")]
    in_process_group(2, train_all, [stored], disks, STOP_AFTER)
    in_process_group(1, train_all, [plain, stored], [str(tmp_path / "c")], 0)
    np.testing.assert_allclose(losses(stored), losses(plain), rtol=1e-4)
    assert (open_afresh(stored).states()[0].step, open_afresh(stored).states()[0].workers) == (9, 1)


def open_afresh(recipe: Recipe) -> Run:
    run = Run(recipe.run_dir)
    run.refresh()
    assert location(run.path)
    return run
