"""Peak memory of a worker by ZeRO stage, beside the formula.

    python -m benchmarks.memory [--hidden 768] [--layers 12] [--workers 2]

Each stage runs in processes of its own: a random base, two steps on short rows, in fp32 on CPU.
What a process had before it loaded the model is taken off its peak.
"""

import os
import resource
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import tyro

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from conftest import dialogues
from process_group import in_process_group

from lima_ray import base
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.data import training_data
from lima_ray.data.examples import write_examples
from lima_ray.data.rows import Rows
from lima_ray.data.tokenizer import load_tokenizer
from lima_ray.training.loop import build_engine, train_step
from lima_ray.training.schedule import plan_epoch

GIB = 2**30


def main(hidden: int = 768, layers: int = 12, vocab: int = 4096, workers: int = 2) -> None:
    """Print measured and calculated memory of one worker for ZeRO 0 to 3.

    Args:
        hidden: width of the random base.
        layers: its layers.
        vocab: its tokens.
        workers: processes, one thread each.
    """
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_examples(dialogues(16), root / "train.jsonl")
        base.build(str(root / "train.jsonl"), root / "base", hidden, layers, vocab=vocab)
        recipe = validate_recipe(
            {
                "data": {"train": str(root / "train.jsonl"), "max_tokens": 256},
                "model": {"base": str(root / "base")},
                "optim": {"batch_examples": 4},
                "train": {"precision": "fp32", "tokens_per_micro_batch": 256},
                "cluster": {"workers": workers},
            }
        )
        training_data.load(recipe)[2].save(root / "rows")
        print(f"{'ZeRO':>4}{'states GiB':>12}{'peak GiB':>10}{'peak/states':>13}")
        for stage in (0, 1, 2, 3):
            results = in_process_group(
                workers, measure, recipe.override({"train.zero_stage": stage}), root / "rows"
            )
            parameters, peak = results[0]
            states = state_bytes(parameters, stage, workers) / GIB
            print(f"{stage:4}{states:12.2f}{peak:10.2f}{peak / states:13.2f}", flush=True)


def state_bytes(parameters: int, stage: int, workers: int) -> float:
    """Bytes of weights, gradients and AdamW's state of one worker in fp32.

    From stage 1 on DeepSpeed keeps an fp32 copy of the weights in its part of the optimizer.
    """
    weights = 4 / workers if stage == 3 else 4
    gradients = 4 / workers if stage >= 2 else 4
    optimizer = 12 / workers if stage else 8
    return parameters * (weights + gradients + optimizer)


def measure(recipe: Recipe, rows_file: Path) -> tuple[int, float]:
    """In a process group: parameters, and peak GiB over what the process had before."""
    rows, tokenizer = Rows.load(rows_file), load_tokenizer(recipe.model.base)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    engine = build_engine(recipe, tokenizer, torch.device("cpu"))
    for step in plan_epoch(recipe, rows, 0, torch.distributed.get_world_size())[:2]:
        train_step(engine, step, rows, 1e-5)
    parameters = sum(getattr(p, "ds_numel", p.numel()) for p in engine.module.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return parameters, (peak - before) / GIB


if __name__ == "__main__":
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    tyro.cli(main, prog="python -m benchmarks.memory", description=__doc__, use_underscores=True)
