"""Whole runs under Ray Train: killed workers, exports, full disks, and input that is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from conftest import dialogues, ray_cluster

from lima_ray import train
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.data.examples import write_examples
from lima_ray.records.run import Run


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.2"
    with ray_cluster(cpus=4):
        yield


def wait_for(run: Run, kind: str, count: int, timeout_s: float = 120) -> list[dict]:
    """Wait until a run's metrics hold so many records of a kind."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = [m for m in run.metrics() if m["kind"] == kind]
        if len(found) >= count:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{kind} x {count} never came")


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(recipe: Recipe) -> None:
    recipe = recipe.override(
        {"cluster.workers": 2, "checkpoint.state_every_steps": 2, "optim.epochs": 4}
    )
    whole = train.fit(recipe.model_copy(update={"name": "whole"}))
    killed = recipe.model_copy(update={"name": "killed"})
    run = Run(killed.run_dir)

    def kill_a_worker() -> None:
        start = wait_for(run, "start", 1)[0]
        wait_for(run, "step", 5)
        os.kill(start["pids"][1], signal.SIGKILL)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    train.fit(killed)
    killer.join()
    starts = [m for m in run.metrics() if m["kind"] == "start"]
    assert len(starts) == 2
    assert starts[1]["step"] in (4, 6, 8, 10)
    assert [s["loss"] for s in run.steps()] == [s["loss"] for s in whole.steps()]
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (run.export_dir / file).read_bytes() == (whole.export_dir / file).read_bytes()


@pytest.mark.slow
def test_a_lost_controller_ends_with_the_way_on(recipe: Recipe) -> None:
    """As where the head dies, which it runs on."""
    recipe = recipe.override({"checkpoint.state_every_steps": 2, "optim.epochs": 8})
    run = Run(recipe.run_dir)

    def kill_the_controller() -> None:
        wait_for(run, "step", 3)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if "ray::TrainController" in process.cmdline()[0]:
                    process.kill()

    killer = threading.Thread(target=kill_the_controller)
    killer.start()
    with pytest.raises(UserError, match=r"controller .* was lost .*the same command goes on"):
        train.fit(recipe)
    killer.join()
    train.fit(recipe)
    steps = run.steps()
    assert [s["step"] for s in steps] == list(range(1, 25))
    assert [m["step"] for m in run.metrics() if m["kind"] == "start"][-1] >= 2


def test_the_export_is_the_trained_model_and_needs_transformers_alone(
    recipe: Recipe, tmp_path: Path
) -> None:
    recipe = recipe.override({"train.precision": "bf16", "train.zero_stage": 3, "optim.epochs": 2})
    run = train.fit(recipe)
    script = (
        "import json, sys, torch\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "assert not any(name.split('.')[0] == 'lima_ray' for name in sys.modules)\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "chat = [{'role': 'user', 'content': 'the sun'}, {'role': 'assistant', 'content': 'cat'}]\n"
        "ids = tokenizer.apply_chat_template(chat, return_tensors='pt')['input_ids']\n"
        "torch.save(model(ids).logits.detach(), sys.argv[2])\n"
        "config = model.generation_config\n"
        "print(json.dumps([ids.tolist(), str(model.dtype), config.eos_token_id, config.top_p]))\n"
    )
    out = tmp_path / "logits.pt"
    command = [sys.executable, "-c", script, str(run.export_dir), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    ids, dtype, eot, top_p = json.loads(done.stdout.splitlines()[-1])
    assert (dtype, ids[0].count(eot), top_p) == ("torch.bfloat16", 2, 0.9)
    torch.testing.assert_close(torch.load(out), trainers_logits(recipe, run, ids), rtol=0, atol=0)
    names = sorted(p.name for p in run.export_dir.iterdir())
    assert not [n for n in names if n.endswith((".bin", ".pt", ".pkl"))]
    lineage = json.loads((run.export_dir / "lineage.json").read_text())
    made_from = {part: run.data_card()[part]["hash"] for part in run.data_card()}
    assert made_from | {"epoch": 2} == {k: lineage[k] for k in (*made_from, "epoch")}
    check = json.loads(run.export_check_file.read_text())
    assert check["weights"] == lineage["weights"] and check["trained"] == lineage["trained"]
    assert check["loaded"]["loss"] == pytest.approx(lineage["trained"]["loss"], rel=0.01)
    assert sorted(p.name for p in run.epochs_dir.iterdir()) == ["01", "02"]
    assert (run.path / "loss.png").stat().st_size > 5000


def trainers_logits(recipe: Recipe, run: Run, ids: list[list[int]]) -> torch.Tensor:
    """Logits of the model as the trainer holds it: DeepSpeed's own conversion of its last state."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    from transformers import AutoTokenizer

    from lima_ray.model.loading import load_model

    state = run.latest_state()
    assert state is not None
    weights: Any = get_fp32_state_dict_from_zero_checkpoint(str(run.state_dir), state.folder.name)
    tokenizer = AutoTokenizer.from_pretrained(run.tokenizer_dir)
    model = load_model(recipe, tokenizer, torch.device("cpu"))
    model.load_state_dict({n: w.to(torch.bfloat16) for n, w in weights.items()})
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        return model.eval()(torch.tensor(ids)).logits


def test_lora_exports_merged_weights(recipe: Recipe) -> None:
    from transformers import AutoModelForCausalLM

    point = {"model.lora_rank": 4, "cluster.workers": 2, "train.zero_stage": 3, "optim.epochs": 1}
    run = train.fit(recipe.override(point))
    loader: Any = AutoModelForCausalLM
    model, info = loader.from_pretrained(run.export_dir, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    base = loader.from_pretrained(recipe.model.base)
    change = model.model.layers[1].mlp.up_proj.weight - base.model.layers[1].mlp.up_proj.weight
    assert 0 < change.float().abs().max() < 0.1
    norms = (model.model.norm.weight, base.model.norm.weight.float())
    assert torch.equal(*norms)
    assert (run.export_dir / "adapter" / "adapter_config.json").is_file()


def test_a_finished_run_is_left_alone_and_another_recipe_refused(recipe: Recipe) -> None:
    recipe = recipe.override({"optim.epochs": 1})
    run = train.fit(recipe)
    before = run.metrics_file.read_text()
    assert train.fit(recipe.override({"cluster.workers": 2})).metrics_file.read_text() == before
    with pytest.raises(UserError, match=r"optim\.learning_rate 0\.001 \(now 0\.002\).*--name"):
        train.fit(recipe.override({"optim.learning_rate": 0.002}))
    write_examples(dialogues(24, seed=1), Path(recipe.data.train))
    try:
        with pytest.raises(UserError, match="data's content"):
            train.fit(recipe)
    finally:
        write_examples(dialogues(24), Path(recipe.data.train))
    assert run.metrics_file.read_text() == before


@pytest.mark.parametrize(
    ("room", "told"),
    [
        (1 << 19, r"no room for the resume state of step \d: it needs"),
        pytest.param(0, "no room", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_keeps_the_last_state(
    recipe: Recipe, tmp_path: Path, room: int, told: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        recipe = recipe.override({"runs_dir": str(disk), "checkpoint.weights_from_epoch": 3})
        run = Run(recipe.run_dir)
        ballast = threading.Thread(target=fill_after_first_state, args=(run, disk, room))
        ballast.start()
        with pytest.raises(UserError, match=told):
            train.fit(recipe)
        ballast.join()
        state = run.latest_state()
        assert state is not None and state.folder.is_dir()
        (disk / "ballast").unlink()
        train.fit(recipe)
        assert [s["step"] for s in run.steps()] == list(range(1, 10))
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def fill_after_first_state(run: Run, disk: Path, room: int) -> None:
    """Leave less room than a second state needs."""
    wait_for(run, "save", 1)
    with (disk / "ballast").open("wb", buffering=0) as out, suppress(OSError):
        while free := max(0, shutil.disk_usage(disk).free - room):
            out.write(bytes(free))


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"cluster.device": "gpu", "cluster.workers": 2}, "2 workers need 2 GPUs; .* has 0 GPUs"),
        ({"cluster.workers": 5}, "5 workers need 5 CPUs; .* has 4 CPUs"),
        ({"data.train": "nowhere.jsonl"}, "no data at nowhere.jsonl"),
        ({"model.base": "./nowhere"}, "no base model at"),
        ({"log.tracker": "mlflow"}, "log.tracker is mlflow, which is not installed"),
    ],
)
def test_bad_input_is_refused_before_any_worker(recipe: Recipe, point: dict, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(UserError, match=message):
        train.fit(recipe.override(point))
    assert time.monotonic() - started < 10
    assert not Run(recipe.run_dir).metrics_file.exists()


def test_more_workers_than_examples_are_refused(recipe: Recipe) -> None:
    with pytest.raises(
        UserError, match=r"optim\.batch_examples 8 is smaller than cluster\.workers 9"
    ):
        recipe.override({"cluster.workers": 9})


def test_a_foreign_directory_is_refused(recipe: Recipe) -> None:
    Run(recipe.run_dir).path.mkdir()
    (recipe.run_dir / "thesis.tex").touch()
    with pytest.raises(UserError, match="is not empty and holds no run"):
        train.fit(recipe)


@pytest.mark.slow
def test_tensorboard_gets_every_step(recipe: Recipe) -> None:
    run = train.fit(recipe.override({"log.tracker": "tensorboard", "optim.epochs": 1}))
    events = b"".join(f.read_bytes() for f in (run.path / "tensorboard").iterdir())
    assert events.count(b"loss") >= 3


def test_relative_paths_and_a_smaller_footprint_after_a_start(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(recipe.model.base)
    monkeypatch.chdir(base.parent)
    recipe = recipe.override({"model.base": base.name, "optim.epochs": 1})
    run = Run(recipe.run_dir)
    run.initialise(recipe.override({"train.zero_stage": 3}), {})
    train.fit(recipe)
    assert run.recipe().train.zero_stage == 0
    smaller = recipe.override({"train.tokens_per_micro_batch": 256})
    assert len(train.fit(smaller).steps()) == 3


@pytest.mark.slow
def test_elastic_runs_take_the_workers_there_are(recipe: Recipe) -> None:
    point = {"cluster.workers": 6, "cluster.min_workers": 2, "optim.epochs": 1}
    run = train.fit(recipe.override(point))
    start = next(m for m in run.metrics() if m["kind"] == "start")
    assert 2 <= start["workers"] <= 4
    assert len(run.steps()) == 3


@pytest.mark.slow
def test_a_killed_driver_resumes_with_another_number_of_workers(
    recipe: Recipe, tmp_path: Path
) -> None:
    recipe = recipe.override(
        {
            "cluster.workers": 2,
            "optim.epochs": 6,
            "checkpoint.state_every_steps": 2,
            "model.residual_dropout": 0.0,
        }
    )
    whole = train.fit(recipe.model_copy(update={"name": "whole"}))
    recipe = recipe.model_copy(update={"name": "driver"})
    recipe.save(tmp_path / "driver.yaml")
    command = [sys.executable, "-m", "lima_ray.train", str(tmp_path / "driver.yaml")]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    run = Run(recipe.run_dir)
    wait_for(run, "step", 7)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(5)
    subprocess.run([*command, "--cluster.workers", "1"], env=environment, check=True)
    ours = [s["loss"] for s in run.steps()]
    np.testing.assert_allclose(ours, [s["loss"] for s in whole.steps()], rtol=1e-4)
