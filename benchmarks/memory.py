"""Peak memory of a worker beside what `lima_ray.plan` says of it.

    python -m benchmarks.memory [--hidden 768] [--layers 12] [--vocab 8192] [--cases zero,mixed]
    python -m benchmarks.memory --gpu docs/benchmarks/gpu-training.json

Each case runs in processes of its own on the CPU, with the environment of a training's workers: a
random base, two steps of full micro-batches, one thread each (AdamW's averages are there from the
second on). The planned figure is of tensors; what a process had before it loaded the model (its
fixed cost) is told apart and taken off its peak. `--gpu` compares with peaks of a GPU that
`benchmarks.gpu` recorded, of the settings that a recipe can name.
"""

import os
import sys
from collections.abc import Iterator
from json import loads
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import tyro

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from process_group import in_process_group

from benchmarks.gpu.training import REPEATS, lima_rows
from benchmarks.page.gpu import gpu_machine
from benchmarks.page.result import OURS, Figure, Recording
from lima_ray import base
from lima_ray.config.cluster import training_environment
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.data import training_data
from lima_ray.data.examples import write_examples
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import load_tokenizer
from lima_ray.planning.measurement import import_libraries, peak_bytes, reset_peak
from lima_ray.planning.memory import Load, plan_memory
from lima_ray.planning.sizes import ModelShape, base_config, load_of_steps, read_shape, shape_of
from lima_ray.records.example import Example
from lima_ray.training.loop import build_engine, train_step
from lima_ray.training.schedule import plan_epoch

GIB = 2**30
STEPS = 2
ON, LORA = "train.activation_checkpointing", "model.lora_rank"
CASES: dict[str, list[dict[str, Any]]] = {
    "zero": [{"train.zero_stage": stage} for stage in range(4)],
    "workers": [{"train.zero_stage": stage, "cluster.workers": 2} for stage in range(4)],
    "checkpointing": [
        {"train.zero_stage": 0, ON: True},
        {"train.zero_stage": 2, ON: True, "cluster.workers": 2},
        {"train.zero_stage": 3, ON: True, "cluster.workers": 2},
    ],
    "dropout": [{"train.zero_stage": 0, "model.residual_dropout": 0.3}],
    "adapters": [
        {"train.zero_stage": 0, LORA: 16},
        {"train.zero_stage": 0, LORA: 16, "train.precision": "mixed"},
    ],
    "lora": [
        {"train.zero_stage": 0, LORA: 16, ON: True},
        {"train.zero_stage": 2, LORA: 16, "cluster.workers": 2},
    ],
    "mixed": [
        {"train.zero_stage": 0, "train.precision": "mixed"},
        {"train.zero_stage": 0, "train.precision": "mixed", ON: True},
        {"train.zero_stage": 2, "train.precision": "mixed", "cluster.workers": 2},
        {"train.zero_stage": 3, "train.precision": "mixed", "cluster.workers": 2},
    ],
    "bf16": [{"train.zero_stage": stage, "train.precision": "bf16"} for stage in (1, 2, 3)],
}


def main(
    hidden: int = 768,
    layers: int = 12,
    vocab: int = 8192,
    tokens: int = 256,
    cases: str = ",".join(CASES),
    gpu: str = "",
    json: Path | None = None,
) -> None:
    """Print planned and measured memory of one worker, and their ratio.

    Args:
        hidden: width of the random base.
        layers: its layers.
        vocab: its tokens.
        tokens: of a micro-batch; a step has two.
        cases: which groups of cases to run, with commas between.
        gpu: a file of `benchmarks.gpu training` to compare with instead.
        json: file for the figures, such as docs/benchmarks/memory.json.
    """
    print(f"{'':64}{'planned':>9}{'measured':>10}{'ratio':>7}   fixed")
    recording = Recording("memory-gpu" if gpu else "memory")
    if gpu:
        recorded = loads(Path(gpu).read_text())
        for name, planned, measured in recorded_on_gpu(recorded):
            show(name, planned, measured)
            record(recording, name, planned, measured)
        recording.save(json, gpu_machine(recorded))
        return
    with TemporaryDirectory() as folder:
        root = Path(folder)
        recipe = prepare(root, hidden, layers, vocab, tokens)
        os.environ.update(training_environment(False, 1, recipe.model.base))  # of processes to come
        for group in cases.split(","):
            for case in CASES[group]:
                tried = recipe.override(case)
                workers = tried.cluster.workers
                results = in_process_group(workers, measure, tried, root / "rows")
                load, peak, fixed = max(results, key=lambda r: r[1])
                precision = tried.train.precision
                planned = plan_memory(tried, read_shape(tried), load, False, precision)
                name = ", ".join(f"{k.partition('.')[2]} {v}" for k, v in case.items())
                show(name, planned.peak, peak, f"{fixed / GIB:6.2f}")
                record(recording, name, planned.peak, peak)
        recording.save(json)


def show(name: str, planned: float, measured: float, fixed: str = "") -> None:
    ratio = planned / measured
    print(f"{name:64}{planned / GIB:9.2f}{measured / GIB:10.2f}{ratio:7.2f}  {fixed}", flush=True)


def record(recording: Recording, case: str, planned: float, measured: float) -> None:
    """Add a case's planned and measured memory, and their ratio."""
    for what, unit, value in (
        ("planned", "GiB", planned / GIB),
        ("measured", "GiB", measured / GIB),
        ("planned/measured", "", planned / measured),
    ):
        recording.figures.append(Figure(what, case, OURS, unit, (value,), axis="a worker's peak"))


def prepare(root: Path, hidden: int, layers: int, vocab: int, tokens: int) -> Recipe:
    """Make a random base whose vocabulary is full, and rows that fill micro-batches."""
    generator = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    words = ["".join(generator.choice(letters, 6)) for _ in range(2 * vocab)]
    (root / "words.txt").write_text("\n".join(words))
    base.build(str(root / "words.txt"), root / "base", hidden, layers, vocab=vocab)
    rows = []
    for number in range(8):
        text = " ".join(generator.choice(words, 200))
        rows.append(Example((text[:100], text[100:]), id=str(number)))
    write_examples(rows, root / "train.jsonl")
    recipe = validate_recipe(
        {
            "data": {"train": str(root / "train.jsonl"), "max_tokens": tokens // 2},
            "model": {"base": str(root / "base"), "residual_dropout": 0.0},
            "optim": {"batch_examples": 4},
            "train": {"precision": "fp32", "tokens_per_micro_batch": tokens},
        }
    )
    training_data.load(recipe)[2].save(root / "rows")
    shape = read_shape(recipe)
    print(f"{shape.parameters / 1e6:.0f}M parameters, {shape.config.vocab_size} tokens, GiB")
    return recipe


def measure(recipe: Recipe, rows_file: Path) -> tuple[Load, float, float]:
    """In a process group: the largest micro-batch, the peak over the fixed cost, and that."""
    import_libraries()
    rows, tokenizer = Rows.load(rows_file), load_tokenizer(recipe.model.base)
    workers, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    plan = (plan_epoch(recipe, rows, 0, workers) * STEPS)[:STEPS]
    device = torch.device("cpu")
    before = reset_peak(device)
    engine = build_engine(recipe, tokenizer, device)
    for step in plan:
        train_step(engine, step, rows, 1e-5)
    return load_of_steps(plan, rows, rank), peak_bytes(device) - before, before


def recorded_on_gpu(recorded: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Yield name, planned and measured bytes of recorded whole steps of LLaMA 7B."""
    rows = lima_rows(32000, False)
    for case in recorded["results"]:
        if case["what"] != "lima" or "peak_gib" not in case:
            continue
        recipe = validate_recipe(
            {
                "model": {
                    "base": "huggyllama/llama-7b",
                    "residual_dropout": case["dropout"],
                    "lora_rank": case["lora"],
                    "liger": case["liger"],
                },
                "train": {
                    "tokens_per_micro_batch": case["tokens"],
                    "activation_checkpointing": case["checkpointing"],
                    "precision": "bf16",
                    "zero_stage": 2,
                },
            }
        )
        shape: ModelShape = shape_of(base_config(recipe.model.base), recipe.model.lora_rank)
        steps = [step for epoch in range(4) for step in plan_epoch(recipe, rows, epoch, 1)]
        load = load_of_steps(steps[1 : REPEATS + 1], rows, 0)
        planned = plan_memory(recipe, shape, load, True, "bf16").peak
        settings = ("attention", "checkpointing", "tokens", "dropout", "lora")
        name = ", ".join(f"{key} {case[key]}" for key in settings)
        yield name, planned, case["peak_gib"] * GIB


if __name__ == "__main__":
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    tyro.cli(main, prog="python -m benchmarks.memory", description=__doc__, use_underscores=True)
