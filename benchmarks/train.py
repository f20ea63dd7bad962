"""Training speed against TRL's SFTTrainer: same base, rows, steps, precision and optimizer.

    python -m benchmarks.train [--lima rows.json] [--rounds 3] [--steps 4] [--out DIR]
    python -m benchmarks.train --precisions fp32 mixed --hidden 384 --layers 8 --vocab 8192

The contenders run in turn, round after round, each as a whole process; TRL in an environment of
its own, made on the first call (`--trl_python` names one that exists). Prints supervised tokens a
second, peak memory, ratios and the largest difference of the losses, and draws the loss curves.
Rows are LIMA's where `--lima` names them; otherwise lengths are drawn from the paper's Table 1.
"""

import os
import subprocess
import sys
import time
from json import dumps, loads
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import torch
import tyro
import yaml

from benchmarks.page.result import OURS, Figure, Recording
from lima_ray import base
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.data import packing, training_data
from lima_ray.data.examples import read_examples, write_examples
from lima_ray.data.rows import Rows
from lima_ray.model.loading import load_model
from lima_ray.records.example import Example
from lima_ray.records.run import Run
from lima_ray.results.published.lima import TABLE_1
from lima_ray.training.schedule import Schedule

mpl.use("Agg")

from matplotlib import pyplot as plt

TRL = ("trl==1.16.0", "transformers==5.23.0", "torch==2.13.0")
TRL_FORMS: dict[str, dict[str, Any]] = {
    "padded": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4},
    "sorted": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4},
    "padding_free": {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 8,
        "padding_free": True,
    },
    "single": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 32},
}
"""Ways to run TRL on the same steps: padded as it comes; rows of a step sorted by length first;
packed without padding; one row at a time, which pads nothing."""
TITLES = {
    "padded": "padded",
    "sorted": "padded, sorted by length",
    "padding_free": "packed",
    "single": "one row at a time",
}
BATCH = 32
Contender = tuple[str, str]
"""`ours` or a form of TRL, and its precision."""


def main(
    lima: str = "",
    out: Path = Path("runs/benchmark_train"),
    rounds: int = 3,
    steps: int = 4,
    hidden: int = 256,
    layers: int = 4,
    vocab: int = 4096,
    workers: int = 0,
    tokens_per_micro_batch: int = 2048,
    forms: tuple[str, ...] = tuple(TRL_FORMS),
    precisions: tuple[Literal["fp32", "mixed"], ...] = ("fp32",),
    trl_python: str = "",
    json: Path | None = None,
) -> None:
    """Compare, print and draw.

    Args:
        lima: LIMA's rows, in any form `lima_ray.example` reads; empty draws lengths from Table 1.
        out: where bases, runs and the picture go.
        rounds: rounds; each contender runs once in each.
        steps: optimizer steps of 32 examples in a run.
        hidden: width of the random base.
        layers: layers of the random base.
        vocab: tokens of the random base.
        workers: our workers; 0 makes one for each core, one thread each. TRL is one process that
            uses all cores.
        tokens_per_micro_batch: our token budget.
        forms: which of TRL's forms to run.
        precisions: of both sides; mixed keeps weights in fp32 and multiplies in bf16, TRL's `bf16`.
        trl_python: a Python that has TRL; empty makes an environment.
        json: file for the figures, such as docs/benchmarks/train.json.
    """
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    recording = Recording("train")
    try:
        python = trl_python or make_environment(out)
    except subprocess.CalledProcessError as error:
        recording.notes.append(f"TRL was not run, as its environment could not be made: {error}")
        python, forms = "", ()
    cores = len(os.sched_getaffinity(0))
    examples = read_examples(lima) if lima else drawn_examples()
    recipe = prepare(
        examples, out, steps, hidden, layers, vocab, workers or cores, tokens_per_micro_batch
    )
    tokenizer, _, rows = training_data.load(recipe)
    plan = packing.plan_epoch(
        rows.lengths_R,
        seed=recipe.seed,
        epoch=0,
        workers=1,
        batch_examples=BATCH,
        tokens_per_micro_batch=tokens_per_micro_batch,
    )
    start = out / "start"
    load_model(recipe, tokenizer, torch.device("cpu")).float().save_pretrained(start)
    tokenizer.save_pretrained(start)
    supervised = [int(rows.supervised_R[s.rows].sum()) for s in plan]
    contenders = [(form, precision) for precision in precisions for form in ("ours", *forms)]
    results: dict[Contender, list[dict[str, Any]]] = {contender: [] for contender in contenders}
    for number in range(rounds):
        for form, precision in contenders:
            same = recipe.override({"train.precision": precision})
            results[form, precision].append(
                run_ours(same, out, number)
                if form == "ours"
                else run_trl(python, form, same, rows, plan, out, cores)
            )
        print(
            f"round {number + 1}: "
            + ", ".join(
                f"{' '.join(name)} {speed(r[-1], supervised):,.0f}/s" for name, r in results.items()
            ),
            flush=True,
        )
    report(results, supervised, out)
    record(recording, results, supervised)
    recording.save(json)


def drawn_examples(seed: int = 0) -> list[Example]:
    """Rows whose lengths have Table 1's means, in words of about one token each."""
    generator = np.random.default_rng(seed)
    words = [f"w{n}" for n in range(500)]
    rows = []
    for source, of in TABLE_1.items():
        for number in range(of.rows):
            means = (of.prompt_tokens, of.reply_tokens)
            sizes = [max(2, int(generator.gamma(2.0, mean / 2.0))) for mean in means]
            turns = tuple(" ".join(generator.choice(words, size)) for size in sizes)
            rows.append(Example(turns, id=f"{source}-{number}", source=source))
    return rows


def prepare(
    examples: list[Example],
    out: Path,
    steps: int,
    hidden: int,
    layers: int,
    vocab: int,
    workers: int,
    tokens: int,
) -> Recipe:
    """Choose the rows of all steps, make the random base, and return the recipe both sides use."""
    chosen = np.random.default_rng(0).permutation(len(examples))
    kept = [examples[i] for i in chosen if len(examples[i].turns) == 2][: steps * BATCH]
    write_examples(kept, out / "train.jsonl")
    write_examples(examples, out / "all.jsonl")
    base.build(str(out / "all.jsonl"), out / "base", hidden=hidden, layers=layers, vocab=vocab)
    return validate_recipe(
        {
            "name": "ours",
            "runs_dir": str(out / "runs"),
            "data": {"train": str(out / "train.jsonl"), "invalid": "drop"},
            "model": {"base": str(out / "base"), "residual_dropout": 0.0},
            "optim": {"epochs": 1, "batch_examples": BATCH, "learning_rate": 1e-3},
            "train": {"tokens_per_micro_batch": tokens, "precision": "fp32", "zero_stage": 0},
            "cluster": {"workers": workers, "cpus_per_worker": 1, "device": "cpu"},
        }
    )


def run_ours(recipe: Recipe, out: Path, number: int) -> dict[str, Any]:
    recipe = recipe.model_copy(update={"name": f"ours-{number}-{int(time.time())}"})
    file = out / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump()))
    subprocess.run(
        [sys.executable, "-m", "lima_ray.train", str(file)], check=True, stdout=subprocess.DEVNULL
    )
    steps = Run(recipe.run_dir).steps()
    return {
        "seconds": [s["seconds"] for s in steps],
        "losses": [s["loss"] for s in steps],
        "peak_gib": steps[-1]["peak_memory_gib"] * recipe.cluster.workers,
    }


def run_trl(
    python: str,
    form: str,
    recipe: Recipe,
    rows: Rows,
    plan: list[packing.Step],
    out: Path,
    threads: int,
) -> dict[str, Any]:
    """One run of TRL on the same rows in the same steps."""
    ordered = [r for step in plan for r in arranged(step.rows, rows, sort=form == "sorted")]
    encoded = [{"ids": ids.tolist(), "mask": mask.tolist()} for ids, mask in map(rows.row, ordered)]
    (out / "rows.json").write_text(dumps(encoded))
    optim, schedule = recipe.optim, Schedule.of(recipe, len(rows))
    config = {
        "bf16": recipe.train.precision == "mixed",
        "rows": str(out / "rows.json"),
        "base": str(out / "start"),
        "out": str(out / "trl"),
        "threads": threads,
        "clip_norm": optim.clip_norm,
        "sft": TRL_FORMS[form],
        "rates": [schedule.learning_rate(n) for n in range(len(plan))],
        "adamw": {
            "betas": [optim.beta1, optim.beta2],
            "eps": optim.eps,
            "weight_decay": optim.weight_decay,
            "lr": optim.learning_rate,
        },
    }
    (out / "trl.json").write_text(dumps(config))
    script = Path(__file__).with_name("trl_sft.py")
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(
        [python, str(script), str(out / "trl.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"TRL ({form}) failed:\n{done.stderr[-3000:]}")
    return loads(lines[0].removeprefix("RESULT "))


def arranged(step_rows: list[int], rows: Rows, sort: bool) -> list[int]:
    """A step's rows in a fixed random order, or by length."""
    if sort:
        return sorted(step_rows, key=lambda r: int(rows.lengths_R[r]))
    return [step_rows[i] for i in np.random.default_rng(len(step_rows)).permutation(len(step_rows))]


def speed(result: dict[str, Any], supervised: list[int]) -> float:
    """Supervised tokens a second, the first step (warming up) left out."""
    return sum(supervised[1:]) / sum(result["seconds"][1:])


def report(
    results: dict[Contender, list[dict[str, Any]]], supervised: list[int], out: Path
) -> None:
    """Print medians and ratios, and draw the loss curves."""
    speeds = {name: [speed(r, supervised) for r in runs] for name, runs in results.items()}
    print(f"\n{'':20}{'supervised tok/s':>18}{'peak GiB':>10}{'ours is':>10}  (each round)")
    for (form, precision), values in speeds.items():
        of_same = speeds["ours", precision]
        ratios = [ours / theirs for ours, theirs in zip(of_same, values, strict=True)]
        peak = max(r["peak_gib"] for r in results[form, precision])
        each = ", ".join(f"{r:.2f}" for r in ratios)
        print(
            f"{f'{form} {precision}':20}{np.median(values):18,.0f}{peak:10.2f}"
            f"{np.median(ratios):9.2f}x  ({each})"
        )
    first, *others = dict.fromkeys(precision for _, precision in results)
    for other in others:
        pairs = zip(speeds["ours", other], speeds["ours", first], strict=True)
        ratios = [one / another for one, another in pairs]
        print(f"ours in {other} is {np.median(ratios):.2f}x ours in {first}")
    ours = np.array(results["ours", first][0]["losses"])
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, runs in results.items():
        losses, said = np.array(runs[0]["losses"]), " ".join(name)
        apart = np.abs(losses - ours).max()
        print(f"losses of {said}: largest difference to ours in {first} {apart:.2e}")
        axis.plot(range(1, len(losses) + 1), losses, "o-", alpha=0.7, label=said)
    axis.set(
        xlabel="optimizer step",
        ylabel="nats per supervised token",
        title="the same steps through lima_ray and TRL",
    )
    axis.legend(frameon=False)
    figure.savefig(out / "losses.png", dpi=150)
    print(f"loss curves: {out / 'losses.png'}")


def record(
    recording: Recording, results: dict[Contender, list[dict[str, Any]]], supervised: list[int]
) -> None:
    """Add speed, memory and how far losses are apart, by precision and contender."""
    for (form, precision), runs in results.items():
        who = OURS if form == "ours" else f"{TRL[0].replace('==', ' ').upper()}, {TITLES[form]}"
        speeds = tuple(speed(r, supervised) for r in runs)
        peaks = tuple(r["peak_gib"] for r in runs)
        recording.figures += [
            Figure("training speed", precision, who, "supervised tokens/s", speeds, "higher"),
            Figure("peak memory of all processes", precision, who, "GiB", peaks, "lower"),
        ]
        ours = np.array(results["ours", precision][0]["losses"])
        if form != "ours":
            apart = np.abs(np.array(runs[0]["losses"]) - ours).max()
            recording.notes.append(
                f"losses in {precision}, TRL {TITLES[form]}: at most {apart:.1e} from ours"
            )


def make_environment(out: Path) -> str:
    folder = out / "trl_environment"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *TRL], check=True)
        (folder / "ready").touch()
    return str(python)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.train", description=__doc__, use_underscores=True)
