"""A run's directory: claimed by one training, and readable whatever a kill or a full disk left."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from conftest import dialogues

from lima_ray.config.errors import UserError, exit_on_user_error
from lima_ray.config.recipe import Recipe
from lima_ray.data.examples import write_examples
from lima_ray.records.files import write_json
from lima_ray.records.quality import NEWER, Quality, read_qualities
from lima_ray.records.run import Run
from lima_ray.train import summarise
from lima_ray.training.signals import raise_on_signals, run_in_thread

CARD = {part: {"hash": "0"} for part in ("data", "base")}


@contextmanager
def full_disk() -> Iterator[None]:
    """No file grows over 20 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def card(recipe: Recipe) -> dict[str, dict[str, str]]:
    """What a run of a recipe is made from."""
    return CARD | {"recipe": {"hash": recipe.hash()}}


def begun(recipe: Recipe) -> Run:
    """A run with the weights of an epoch."""
    run = Run(recipe.run_dir)
    run.initialise(recipe, card(recipe))
    run.epoch_dir(1).mkdir(parents=True)
    write_json(run.epoch_dir(1) / "lineage.json", {"epoch": 1, "weights": "abc"})
    return run


def test_a_full_disk_leaves_the_recipe_as_it_was(recipe: Recipe) -> None:
    run = begun(recipe)
    before = run.recipe_file.read_bytes()
    with full_disk(), pytest.raises(UserError, match=r"tiny cannot be written: File too large"):
        run.initialise(recipe, card(recipe))
    assert run.recipe_file.read_bytes() == before
    assert not list(run.path.glob(".*partial"))
    run.initialise(recipe, card(recipe))


def test_an_emptied_recipe_is_written_anew_by_the_same_command_alone(recipe: Recipe) -> None:
    run = begun(recipe)
    run.recipe_file.write_text("")
    with pytest.raises(UserError, match=r"recipe\.yaml is empty or no recipe"):
        run.recipe()
    with pytest.raises(UserError, match=r"holds a run made with another recipe \(hash"):
        run.initialise(recipe.override({"seed": 5}), card(recipe.override({"seed": 5})))
    run.initialise(recipe, card(recipe))
    assert run.recipe() == recipe
    run.recipe_file.write_text("")
    run.data_card_file.unlink()
    with pytest.raises(UserError, match=r"neither .*recipe\.yaml nor .*data_card\.json tells"):
        run.initialise(recipe, card(recipe))
    origin = {part: made["hash"] for part, made in card(recipe).items()}
    write_json(run.epoch_dir(1) / "lineage.json", origin | {"epoch": 1})
    with pytest.raises(UserError, match=r"holds a run made with another recipe \(hash"):
        run.initialise(recipe.override({"seed": 5}), card(recipe.override({"seed": 5})))
    run.initialise(recipe, card(recipe))
    assert run.recipe() == recipe


def test_a_run_of_an_earlier_version_goes_on(recipe: Recipe) -> None:
    run = begun(recipe)
    tree = recipe.model_dump(mode="json")
    tree["sampling"]["max_tokens"] = tree["sampling"].pop("context")
    del tree["sampling"]["max_new_tokens"]
    run.recipe_file.write_text(yaml.safe_dump(tree))
    assert run.recipe() == recipe
    run.initialise(recipe, card(recipe))
    assert run.recipe_file.read_text() == recipe.to_yaml()


def test_a_broken_recipe_is_an_error_in_words(recipe: Recipe) -> None:
    run = begun(recipe)
    run.recipe_file.write_text("name: [")
    with pytest.raises(UserError, match=r"recipe\.yaml cannot be read"):
        run.recipe()


def test_a_run_is_trained_once_at_a_time(recipe: Recipe) -> None:
    run = Run(recipe.run_dir)
    with run.locked():
        told = pytest.raises(UserError, match=r"another process is training .*tiny; wait")
        with told, Run(recipe.run_dir).locked():
            pass
        run.initialise(recipe, card(recipe))  # the lock alone is no other's directory
    with run.locked():
        pass


def test_write_errors_are_reported(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = Run(tmp_path / "file" / "tiny")
    told = pytest.raises(UserError, match=r"cannot be written: Not a directory.*--runs_dir")
    with told, run.locked():
        pass


@pytest.mark.parametrize("address", ["hdfs://h:1/x", "file:///tmp"])
def test_a_runs_dir_that_is_no_folder_is_refused(recipe: Recipe, address: str) -> None:
    told = address.replace("///", "//")  # a path holds no empty part
    with pytest.raises(UserError, match=rf"runs_dir is .* {told} is no folder.*Mount the bucket"):
        recipe.override({"runs_dir": address})


def test_lines_that_were_cut_off_are_skipped(recipe: Recipe) -> None:
    run = begun(recipe)
    step = {"kind": "step", "step": 1, "epoch": 1, "loss": 2.0}
    lines = [json.dumps(step), json.dumps(step)[:20] + json.dumps(step | {"step": 2}), "7"]
    text = "\n".join([*lines, json.dumps(step | {"step": 3}), json.dumps(step)[:9]])
    run.metrics_file.write_bytes(text.encode() + b"\xff")
    assert [m["step"] for m in run.metrics()] == [1, 3]
    run.metrics_file.write_text("")
    assert "tells of no step" in summarise(run)


def quality(epoch: int, weights: str) -> Quality:
    return Quality(epoch, 4.0, 3.0, 5.0, 1.0, 50, 0, 2.0, "exact", 1.0, weights)


def test_a_grade_belongs_to_the_weights_that_it_judged(recipe: Recipe) -> None:
    recipe = recipe.override({"select.judge": "exact", "data.dev": recipe.data.train})
    run = begun(recipe)
    run.dev_dir(1).mkdir(parents=True)
    file = run.dev_dir(1) / "quality.json"
    write_json(file, asdict(quality(1, "abc")))
    assert read_qualities(run, recipe.select.judge_name) == {1: quality(1, "abc")}
    write_json(run.epoch_dir(1) / "lineage.json", {"epoch": 1, "weights": "trained anew"})
    assert read_qualities(run, recipe.select.judge_name) == {}
    write_json(file, asdict(quality(1, "trained anew")))
    assert 1 in read_qualities(run, recipe.select.judge_name)
    file.write_text(file.read_text()[:30])
    assert read_qualities(run, recipe.select.judge_name) == {}


def test_a_grade_that_an_earlier_version_wrote_is_read(recipe: Recipe) -> None:
    run, now = begun(recipe), asdict(quality(1, "abc"))
    earlier = {name: now[name] for name in now if name not in ("value", *NEWER)} | {"grade": 4.0}
    run.dev_dir(1).mkdir(parents=True)
    write_json(run.dev_dir(1) / "quality.json", earlier)
    assert read_qualities(run, "exact") == {1: quality(1, "abc")}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_training_with_a_word(
    recipe: Recipe, number: int, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(recipe)
    run.metrics_file.write_text(json.dumps({"kind": "step", "step": 4}) + "\n")
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def signal_soon() -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), number)
        time.sleep(60)

    with pytest.raises(SystemExit) as ended, exit_on_user_error(), raise_on_signals(run):
        run_in_thread(signal_soon)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert ended.value.code == status
    said = capsys.readouterr().err
    assert said == "stopped at step 4; the same command goes on from the beginning\n"


def test_without_a_signal_everything_is_as_before(recipe: Recipe) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with raise_on_signals(Run(recipe.run_dir)):
        assert run_in_thread(lambda: 7) == 7
        with pytest.raises(UserError, match="as it was"):
            run_in_thread(raising)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def raising() -> None:
    raise UserError("as it was")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_resumes(
    recipe: Recipe, tmp_path: Path, number: int, status: int
) -> None:
    write_examples(dialogues(24), tmp_path / "rows.jsonl")
    point = {"data.train": str(tmp_path / "rows.jsonl"), "optim.epochs": 300}
    recipe = recipe.override(point | {"checkpoint.weights_from_epoch": 300})
    recipe.save(tmp_path / "tiny.yaml")
    command = [sys.executable, "-m", "lima_ray.train", str(tmp_path / "tiny.yaml")]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    options = {"env": environment, "text": True, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
    run = Run(recipe.run_dir)
    deadline = time.monotonic() + 240
    while len(run.steps()) < 8 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == status, said
    assert "stopped at step " in said and "the same command goes on from the state of step" in said
    assert "Traceback" not in said and "***" not in said
