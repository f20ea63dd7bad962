"""Resume states: what damage, a hostile file or a missing manifest does to them."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.data import training_data
from lima_ray.model.export_check import check_export
from lima_ray.records.files import write_json
from lima_ray.records.phases import Phases
from lima_ray.records.run import MANIFEST, Run
from lima_ray.train import is_finished
from lima_ray.training import checkpoint
from lima_ray.training.loop import build_engine, train, train_step
from lima_ray.training.schedule import Schedule, plan_epoch

pytestmark = pytest.mark.usefixtures("alone")
CPU = torch.device("cpu")


def begin(recipe: Recipe) -> Run:
    """A run's directory with its rows and tokenizer."""
    run = Run(recipe.run_dir)
    tokenizer, _, rows = training_data.load(recipe)
    run.initialise(recipe, {})
    rows.save(run.rows_file)
    tokenizer.save_pretrained(run.tokenizer_dir, save_jinja_files=False)
    return run


def go_on(recipe: Recipe, run: Run) -> list[dict[str, Any]]:
    """Train to the end; the run's metrics."""
    train(recipe, run, CPU, Phases(0.0), {}, lambda _: None)
    return run.metrics()


def flip(file: Path) -> None:
    """Change 64 bytes in the middle, the size kept."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    file.write_bytes(content)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_damaged_state_is_named_and_the_one_before_it_used(recipe: Recipe, stage: int) -> None:
    recipe = recipe.override({"train.zero_stage": stage})
    run = begin(recipe)
    whole = [m["loss"] for m in go_on(recipe, run) if m["kind"] == "step"]
    newest, before = run.states()
    assert (newest.step, before.step) == (9, 6)
    for name in newest.files:
        flip(newest.folder / name)
    metrics = go_on(recipe, run)
    (note,) = [m["text"] for m in metrics if m["kind"] == "note"]
    assert "the state of step 9 is damaged and not used: " in note and "mp_rank_00" in note
    assert [m["step"] for m in metrics if m["kind"] == "start"] == [0, 6]
    assert [m["loss"] for m in metrics if m["kind"] == "step"] == whole
    assert [s.step for s in run.states()] == [9, 6]
    assert not list(run.state_dir.glob("damaged-*"))


def test_damage_everywhere_ends_with_the_files_names(recipe: Recipe) -> None:
    run = begin(recipe)
    go_on(recipe, run)
    for state in run.states():
        flip(state.folder / next(iter(state.files)))
    with pytest.raises(UserError, match=r"step 9 is damaged.*step 6 is damaged.*remove .*/state"):
        go_on(recipe, run)


def test_a_lost_file_or_manifest_is_damage(recipe: Recipe) -> None:
    run = begin(recipe)
    go_on(recipe, run)
    newest, before = run.states()
    (newest.folder / MANIFEST).write_text("{")
    found, notes = checkpoint.find_intact_state(run)
    assert found == before and "step-000009 is damaged: manifest.json" in notes[0]
    (before.folder / next(iter(before.files))).unlink()
    with pytest.raises(UserError, match="step 6 is damaged"):
        checkpoint.find_intact_state(run)


def test_a_state_of_an_earlier_version_is_refused_and_a_run_it_finished_stays_finished(
    recipe: Recipe,
) -> None:
    run, schedule = (
        Run(recipe.run_dir),
        Schedule.of(recipe, len(training_data.load(recipe)[2])),
    )
    folder = run.state_dir / f"step-{schedule.steps:06}"
    folder.mkdir(parents=True)
    entry = {"tag": folder.name, "step": schedule.steps, "workers": 1}
    (run.state_dir / "latest.json").write_text(json.dumps([entry]))
    with pytest.raises(UserError, match=r"earlier version .*wrote .*step-.*remove .*/state to"):
        checkpoint.find_intact_state(run)
    assert folder.exists() and not is_finished(run, schedule)
    run.epoch_dir(recipe.optim.epochs).mkdir(parents=True)
    assert is_finished(run, schedule)
    run.export_dir.mkdir()
    write_json(run.export_dir / "lineage.json", {"epoch": 3, "weights": "abc"})
    assert "an earlier version saved it" in check_export(run, "auto")
    folder.rename(folder.with_name("step-000001"))
    assert not is_finished(run, schedule)


class Hostile:
    """A pickle that makes a folder as it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_state_runs_no_code(recipe: Recipe, tmp_path: Path, stage: int) -> None:
    """Who may write the runs folder may write manifests too, so checksums alone do not help."""
    recipe = recipe.override({"train.zero_stage": stage})
    run = begin(recipe)
    go_on(recipe, run)
    newest = run.states()[0]
    tokenizer, _, _ = training_data.load(recipe)
    for name in newest.files:
        torch.save({"module": Hostile(tmp_path / "hacked")}, newest.folder / name)
        engine = build_engine(recipe, tokenizer, CPU)
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            checkpoint.load_state(engine, run, newest.folder.name)
        engine.destroy()
    if stage:
        with pytest.raises(RuntimeError, match="Weights only load failed"):
            checkpoint.convert_to_universal(newest)
    assert not (tmp_path / "hacked").exists()


def test_no_more_states_than_kept_are_on_the_disk_at_any_time(recipe: Recipe) -> None:
    run = begin(recipe)
    tokenizer, _, rows = training_data.load(recipe)
    engine = build_engine(recipe, tokenizer, CPU)
    most = 0

    def watching(*args: Any, **kwargs: Any) -> Any:
        nonlocal most
        found = save(*args, **kwargs)
        most = max(most, len(list(run.state_dir.glob("step-*"))))
        return found

    save, engine.save_checkpoint = engine.save_checkpoint, watching
    for number, step in enumerate(plan_epoch(recipe, rows, 0, 1), start=1):
        train_step(engine, step, rows, 1e-3)
        checkpoint.save_state(engine, run, number, keep=2)
    engine.destroy()
    assert [s.step for s in run.states()] == [3, 2] and most == 2


@pytest.mark.parametrize(("rate", "stage"), [(1e8, 0), (1e8, 2)])
def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(
    recipe: Recipe, rate: float, stage: int
) -> None:
    point = {"optim.learning_rate": rate, "train.zero_stage": stage}
    recipe = recipe.override(point | {"checkpoint.state_every_steps": 1})
    run = begin(recipe)
    with pytest.raises(UserError, match=r"(?s)not finite.*Lower optim\.learning_rate"):
        go_on(recipe, run)
    assert len(run.steps()) < 9
    assert not run.kept_epochs()
    assert "NaN" not in run.metrics_file.read_text()


def test_a_gradient_that_overflows_is_reported(recipe: Recipe) -> None:
    """DeepSpeed leaves such a step out without a word."""
    recipe = recipe.override({"train.zero_stage": 2, "train.precision": "bf16"})
    tokenizer, _, rows = training_data.load(recipe)
    engine = build_engine(recipe, tokenizer, CPU)
    engine.module.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    result = train_step(engine, plan_epoch(recipe, rows, 0, 1)[0], rows, 1e-3)
    engine.destroy()
    assert result.grad_norm == float("inf") and result.loss == pytest.approx(5.8, abs=0.3)


def test_a_run_keeps_the_stage_that_it_began_with(recipe: Recipe) -> None:
    recipe = recipe.override({"optim.epochs": 1, "checkpoint.state_every_steps": 1})
    run = begin(recipe)
    go_on(recipe, run)
    newest = run.states()[0]
    assert newest.zero_stage == 0
    shutil.rmtree(newest.folder)
    # A recipe that would take another stage by itself, had the run not begun.
    metrics = go_on(recipe.override({"train.zero_stage": 2}), run)
    assert [m["zero_stage"] for m in metrics if m["kind"] == "start"] == [0, 0]
