"""Whether a GPU computes what is promised: steps, resume, the engine's replies, the miniature.

- Steps of our engine (packing, each attention kernel, ZeRO 0 to 3) against plain PyTorch from the
  same weights. In fp32 the bounds are those of test_training_step. In bf16 the gradient may be no
  farther from the fp32 one than 1.2 times what plain PyTorch in bf16 is.
- A run that is stopped and resumed against one that is not, and that one against itself.
- `pytest -m gpu`.
- `python -m lima_ray.miniature.demo` whole, by Ray Train and DeepSpeed.
"""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.gpu.process_group import process_group
from benchmarks.gpu.record import Record
from benchmarks.gpu.reference import (
    AdamState,
    clipped,
    distance,
    full_weights,
    plain_gradients,
    step_errors,
)
from lima_ray import base
from lima_ray.config.loading import load_recipe
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.data import training_data
from lima_ray.data.examples import write_examples
from lima_ray.data.rows import Rows
from lima_ray.records.example import Example
from lima_ray.records.phases import Phases
from lima_ray.records.run import Run
from lima_ray.training.loop import build_engine, train, train_step
from lima_ray.training.schedule import Schedule, plan_epoch

STEPS = 3
FP32_BOUNDS = {"loss": 1e-5, "gradient": 1e-4, "update": 1e-3}
BF16_RATIO = 1.2
"""Largest error of our bf16 gradient, as a multiple of plain PyTorch's in bf16."""
CASES = [
    {"train.precision": "fp32", "train.zero_stage": stage, "model.attention": "auto"}
    for stage in (0, 2, 3)
] + [
    {"train.precision": "bf16", "train.zero_stage": stage, "model.attention": kind}
    for stage, kind in ((2, "packed"), (1, "varlen"), (2, "varlen"), (3, "varlen"))
]


class Interrupted(Exception):
    """Ends a training loop as abruptly as a kill, at a known step."""


def run(record: Record) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    with TemporaryDirectory() as folder, process_group(record.device):
        recipe = tiny_recipe(Path(folder), record.smoke)
        compare_steps(record, recipe)
        compare_resume(record, Path(folder))
    run_tests(record)
    align_miniature(record)


def tiny_recipe(folder: Path, smoke: bool) -> Recipe:
    """Rows of drawn lengths and a random Llama with grouped-query attention."""
    generator = np.random.default_rng(0)
    words = [f"w{n}" for n in range(300)]
    sizes = generator.gamma(2.0, 20 if smoke else 120, (24, 2)).astype(int) + 2
    rows = [
        Example(tuple(" ".join(generator.choice(words, n)) for n in pair), id=f"row-{i}")
        for i, pair in enumerate(sizes)
    ]
    write_examples(rows, folder / "train.jsonl")
    shape = (64, 2, 4) if smoke else (512, 4, 8)
    base.build(
        str(folder / "train.jsonl"),
        folder / "base",
        *shape,
        kv_heads=2,
        vocab=1024,
        dtype="float32",
    )
    return validate_recipe(
        {
            "name": "steps",
            "runs_dir": str(folder),
            "data": {"train": str(folder / "train.jsonl"), "invalid": "drop"},
            "model": {"base": str(folder / "base"), "residual_dropout": 0.0, "liger": False},
            "optim": {"epochs": 1, "batch_examples": 8, "learning_rate": 1e-4},
            "train": {"tokens_per_micro_batch": 2048},
        }
    )


def compare_steps(record: Record, recipe: Recipe) -> None:
    """Our steps beside plain PyTorch's, for every precision, stage and kernel."""
    tokenizer, _, rows = training_data.load(recipe)
    loader: Any = AutoModelForCausalLM
    plain = {
        dtype: loader.from_pretrained(
            recipe.model.base, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False
        ).to(record.device)
        for dtype in (torch.float32, torch.bfloat16)
    }
    for model in plain.values():
        model.resize_token_embeddings(len(tokenizer))
    for case in CASES:
        if record.smoke and case["model.attention"] == "varlen":
            continue  # a kernel of GPUs alone
        with record.attempt("steps", **case):
            compare_case(record, recipe.override(case), case, tokenizer, rows, plain)


def compare_case(
    record: Record, ours: Recipe, case: dict[str, Any], tokenizer: Any, rows: Rows, plain: Any
) -> None:
    """The largest errors of a few steps of one setting."""
    engine = build_engine(ours, tokenizer, record.device)
    schedule, worst = Schedule.of(ours, len(rows)), {}
    before = AdamState.of(engine, steps=0)
    clip = ours.optim.clip_norm
    for number, step in enumerate(plan_epoch(ours, rows, 0, 1)[:STEPS]):
        used = full_weights(engine.module)
        plain[torch.float32].load_state_dict(used, strict=False)
        gradients, loss = plain_gradients(plain[torch.float32], rows, step)
        rate = schedule.learning_rate(number)
        result = train_step(engine, step, rows, rate)
        after = AdamState.of(engine, number + 1)
        wanted = after.expected(before, ours.optim, number + 1, rate)
        found = step_errors(result, after, before, wanted, gradients, loss, ours.optim)
        errors = {what: found[what]["all"] for what in FP32_BOUNDS}
        if ours.train.precision == "bf16":
            plain[torch.bfloat16].load_state_dict(used, strict=False)
            rough, rough_loss = plain_gradients(plain[torch.bfloat16], rows, step)
            errors["plain_loss"] = abs(rough_loss - loss) / loss
            errors["plain_gradient"] = distance(clipped(rough, clip), clipped(gradients, clip))[
                "all"
            ]
        worst = {name: max(e, worst.get(name, 0.0)) for name, e in errors.items()}
        before = after
    engine.destroy()
    bounds = dict(FP32_BOUNDS)
    if ours.train.precision == "bf16":
        bounds = {"gradient": BF16_RATIO * worst["plain_gradient"], "update": 1e-3}
    holds = all(worst[name] <= bound for name, bound in bounds.items())
    record.add("steps", **case, **worst, holds=holds)


def compare_resume(record: Record, folder: Path) -> None:
    """Losses of a run stopped in mid-epoch and gone on with, beside those of whole runs."""
    recipe = load_recipe().override(
        {
            "runs_dir": str(folder),
            "data.rows": 64 if record.smoke else 256,
            "optim.epochs": 2 if record.smoke else 3,
            "optim.batch_examples": 32,
            "select.judge": "none",
            "checkpoint.weights_from_epoch": 2,
            "model.residual_dropout": 0.2,
        }
    )
    tokenizer, _, rows = training_data.load(recipe)
    steps = Schedule.of(recipe, len(rows)).steps
    killed = steps // 2 + 1
    for precision in ("fp32",) if record.smoke else ("fp32", "bf16"):
        losses: dict[str, list[float]] = {}
        with record.attempt("resume", precision=precision):
            for name in ("whole", "again", "stopped"):
                ours = recipe.override(
                    {"name": f"{precision}-{name}", "train.precision": precision}
                )
                run = Run(ours.run_dir)
                run.path.mkdir(parents=True)
                rows.save(run.rows_file)
                tokenizer.save_pretrained(run.tokenizer_dir, save_jinja_files=False)
                go = partial(train, ours, run, record.device)
                if name == "stopped":
                    with suppress(Interrupted):
                        go(Phases(time.time()), {}, lambda _: None, after_step=kill_at(killed))
                go(Phases(time.time()), {}, lambda _: None)
                losses[name] = [s["loss"] for s in run.steps()]
            record.add(
                "resume",
                precision=precision,
                steps=steps,
                stopped_after=killed,
                largest_difference_of_two_whole_runs=apart(losses["whole"], losses["again"]),
                largest_difference_of_the_resumed_run=apart(losses["whole"], losses["stopped"]),
                losses=losses["whole"],
            )


def kill_at(step: int) -> Any:
    def end(done: int) -> None:
        if done == step:
            raise Interrupted

    return end


def apart(a: list[float], b: list[float]) -> float:
    """The largest difference of two runs' losses; as many steps are promised."""
    assert len(a) == len(b), (len(a), len(b))
    return float(np.abs(np.array(a) - np.array(b)).max())


def run_tests(record: Record) -> None:
    with record.attempt("pytest -m gpu"):
        visible = {} if record.smoke else {"CUDA_VISIBLE_DEVICES": "0"}
        tests = ["tests/test_engine_gpu.py", "tests/test_model_attention.py"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *tests],
            env=os.environ | visible,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        print(done.stdout[-3000:], flush=True)
        lines = done.stdout.strip().splitlines() or [""]
        record.add("pytest -m gpu", exit=done.returncode, said=lines[-1])


def align_miniature(record: Record) -> None:
    """The demo's command; its table is kept as text, its steps' and choice's figures as numbers."""
    with record.attempt("miniature"), TemporaryDirectory() as folder:
        device = "cpu" if record.smoke else "gpu"
        command = [sys.executable, "-m", "lima_ray.miniature.demo", "--runs_dir", folder]
        command += ["--cluster.device", device, "--cluster.workers", "1", "--name", "miniature"]
        if record.smoke:
            command += ["--optim.epochs", "5", "--data.rows", "64"]
        started = time.perf_counter()
        log = Path(folder) / "log"
        with log.open("w") as out:
            done = subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, timeout=240, check=False
            )
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", log.read_text())
        print(text[-6000:], flush=True)
        if done.returncode:
            raise RuntimeError(text[-300:])
        run = Run(Path(folder) / "miniature")
        steps = run.steps()
        quality = [json.loads(f.read_text()) for f in sorted(run.path.glob("dev/*/quality.json"))]
        record.add(
            "miniature",
            seconds=time.perf_counter() - started,
            start=next(m for m in run.metrics() if m["kind"] == "start"),
            steps=len(steps),
            step_ms=1e3 * float(np.median([s["seconds"] for s in steps])),
            supervised_tokens_per_s=float(np.median([s["supervised_tokens_per_s"] for s in steps])),
            first_loss=steps[0]["loss"],
            last_loss=steps[-1]["loss"],
            chosen_epoch=run.export_epoch(),
            quality=quality,
            table=text[text.rfind("Replies to prompts") :],
        )
