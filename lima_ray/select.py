"""Choose a run's epoch by what its models say, since perplexity does not track quality.

    python -m lima_ray.select runs/NAME [--select.judge exact] [--select.first_epoch 5]

Each kept epoch answers the dev prompts; a judge grades the replies (`select.judge`), and the best
epoch of the allowed range becomes `export/` (LIMA section 3 and appendix B). Training does the same
by itself, beside the next epoch's steps, where its recipe names a judge; this step does it for a
finished run, or again with another judge or range. What is assessed already is kept.

    runs/NAME/dev/NN/   replies.jsonl, verdicts.jsonl and quality.json of epoch NN
    runs/NAME/epochs.png
"""

import gc
import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from lima_ray import example, stats
from lima_ray.config import Recipe, Sampling, Section, Select, read_flags, validate
from lima_ray.errors import UserError, plain_errors
from lima_ray.lineage import hash_base
from lima_ray.run import Run, write_json, write_jsonl


@dataclass(frozen=True)
class Quality:
    """What the dev prompts showed of one epoch."""

    epoch: int
    grade: float
    """Mean grade, 1 to 6, over replies that have one."""
    low: float
    """Ends of its 95 % interval, over prompts."""
    high: float
    stopped: float
    """Share of replies that EOT ended."""
    replies: int
    invalid: int
    """Replies whose verdict could not be read; they have no grade."""
    perplexity: float | None
    """Of `data.heldout`; none where the recipe names no such rows."""
    judge: str
    seconds: float
    weights: str = ""
    """Hash of the weights that replied; a grade counts for these alone."""


def judge_exactly(replies: list[dict[str, Any]], _: Select) -> list[dict[str, Any]]:
    """Verdicts by the miniature's rules."""
    from lima_ray.miniature.judge import judge

    return judge(replies)


def judge_by_endpoint(replies: list[dict[str, Any]], select: Select) -> list[dict[str, Any]]:
    """Verdicts by a model behind an OpenAI-compatible endpoint."""
    from lima_ray.grader import grade

    return grade(replies, select.endpoint, select.endpoint_model)


JUDGES: dict[str, Callable[[list[dict[str, Any]], Select], list[dict[str, Any]]]] = {
    "exact": judge_exactly,
    "endpoint": judge_by_endpoint,
}


def assess(run: Run, epoch: int, recipe: Recipe) -> Quality:
    """Answer the dev prompts with an epoch's weights, have them judged, and write it all down.

    Args:
        run: the run.
        epoch: one whose weights are kept.
        recipe: the run's, with the `select` and `sampling` sections to use.

    Raises:
        UserError: no weights, no dev prompts, or a judge that does not answer.
    """
    started = time.perf_counter()
    folder = run.dev_dir(epoch)
    model = run.epoch_dir(epoch)
    if not model.exists():
        raise UserError(f"{run.path} holds no weights of epoch {epoch}")
    assert recipe.data.dev
    weights = run.lineage(model).get("weights", "")
    said = run.read_json(folder / "generate.json")
    if said and said.get("model_hash") != hash_base(str(model)):
        shutil.rmtree(folder)  # what other weights of this epoch have said
    prompts = Prompts(recipe.data.dev, "dev", recipe.select.samples)
    replies, verdicts = judged(model, prompts, folder, recipe)
    graded = [(v["id"], grade) for v in verdicts if (grade := grade_of(v)) is not None]
    if not graded:
        raise UserError(f"the judge gave no readable verdict on the {len(verdicts)} replies")
    prompts, grades = zip(*graded, strict=True)
    low, high = stats.mean_interval(grades, prompts)
    quality = Quality(
        epoch=epoch,
        grade=float(np.mean(grades)),
        low=low,
        high=high,
        stopped=float(np.mean([r["stopped"] for r in replies])),
        replies=len(replies),
        invalid=len(verdicts) - len(graded),
        perplexity=perplexity(model, recipe) if recipe.data.heldout else None,
        judge=judge_name(recipe.select),
        seconds=time.perf_counter() - started,
        weights=weights,
    )
    write_json(folder / "quality.json", asdict(quality))
    return quality


@dataclass(frozen=True)
class Prompts:
    """What a model is asked."""

    reference: str
    """A file, a directory or a dataset of the hub."""
    split: str = "test"
    samples: int = 1
    """Replies to each prompt."""


def judged(
    model: Path, prompts: Prompts, out: Path, recipe: Recipe
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Have a model reply in this process, and the recipe's judge judge it.

    Args:
        model: directory of the model.
        prompts: what it is asked.
        out: directory for `replies.jsonl` and `verdicts.jsonl`.
        recipe: its `sampling` and `select`.

    Returns:
        replies and verdicts, in the same order.
    """
    from lima_ray.generate import Generation, generate

    job = Generation(
        model=str(model),
        prompts=prompts.reference,
        split=prompts.split,
        out=out,
        samples=prompts.samples,
        sampling=recipe.sampling,
    )
    replies = generate(job, in_process=True)
    verdicts = JUDGES[recipe.select.judge](replies, recipe.select)
    write_jsonl(verdicts, out / "verdicts.jsonl")
    return replies, verdicts


def grade_of(verdict: dict[str, Any]) -> float | None:
    """The grade of an audit or of a grader's verdict; none where it could not be read."""
    grade = verdict.get("grade", verdict["verdict"])
    return None if grade == "invalid" else float(grade)


def judge_name(select: Select) -> str:
    """Who judges, so that verdicts of different judges are never mixed."""
    return select.endpoint_model if select.judge == "endpoint" else select.judge


def perplexity(model: Path, recipe: Recipe) -> float:
    """Perplexity of the held-out dialogues' supervised tokens under an epoch's weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from lima_ray import attention, encode, microbatch
    from lima_ray.loss import forward

    assert recipe.data.heldout
    gc.collect()
    attention.register()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    rows = encode.encode(example.read(recipe.data.heldout, "heldout"), tokenizer, recipe.data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader: Any = AutoModelForCausalLM
    weights = loader.from_pretrained(
        model,
        dtype="auto" if device.type == "cuda" else torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation=attention.PACKED,
    ).to(device)
    budget = recipe.train.tokens_per_micro_batch
    (batches,) = microbatch.pack(np.arange(len(rows)), rows.lengths_R, 1, budget).ranks
    with torch.inference_mode():
        total = sum(float(forward(weights.eval(), batch, rows)[0]) for batch in batches)
    return math.exp(total / int(rows.supervised_R.sum()))


def assessed(run: Run, select: Select) -> dict[int, Quality]:
    """Qualities by epoch that this judge has given already to the weights that stand there.

    Weights that a sweep has dropped keep theirs.
    """
    found = {}
    for file in run.path.glob("dev/*/quality.json"):
        read = run.read_json(file)
        if read is None or set(read) != {field.name for field in fields(Quality)}:
            continue  # cut off by a full disk; the epoch is judged again
        quality = Quality(**read)
        now = run.lineage(run.epoch_dir(quality.epoch)).get("weights", quality.weights)
        if quality.judge == judge_name(select) and quality.weights == now:
            found[quality.epoch] = quality
    return found


def check(recipe: Recipe) -> None:
    """Refuse a selection that no run could make, before anything starts.

    Raises:
        UserError: no dev prompts, no endpoint, or a range that holds no kept epoch.
    """
    select = recipe.select
    if select.judge == "none":
        return
    if not recipe.data.dev:
        raise UserError(
            f"select.judge is {select.judge}, but data.dev names no prompts to judge replies to"
        )
    if select.judge == "endpoint" and not (select.endpoint and select.endpoint_model):
        raise UserError(
            "select.judge endpoint needs --select.endpoint http://HOST:PORT/v1 and "
            "--select.endpoint_model NAME"
        )
    example.read(recipe.data.dev, "dev", dialogues=False)
    if recipe.data.heldout:
        example.read(recipe.data.heldout, "heldout")
    epochs = recipe.optim.epochs
    first_kept = min(recipe.checkpoint.weights_from_epoch, epochs)
    first, last = max(select.first_epoch, first_kept), min(select.last_epoch, epochs)
    if first > last:
        raise UserError(
            f"select.first_epoch {select.first_epoch} to select.last_epoch {select.last_epoch} "
            f"holds no epoch to choose: the run keeps the weights of {first_kept} to {epochs} "
            "(checkpoint.weights_from_epoch, optim.epochs)"
        )


def choose(run: Run, recipe: Recipe, say: Callable[[str], None] = print) -> int:
    """Assess what is not assessed yet, export the best epoch of the range, and draw them all.

    Args:
        run: a finished run.
        recipe: the run's, with the `select` section to use.
        say: told of each epoch that is assessed here.

    Returns:
        the epoch chosen: of the highest mean grade, the earliest of equals.

    Raises:
        UserError: no weights at all, or none in the range.
    """
    from lima_ray.figure import epoch_curves

    kept = run.kept_epochs()
    if not kept:
        raise UserError(
            f"{run.path} holds no weights to choose from; train it first: python -m lima_ray.train"
        )
    if recipe.select.judge == "none":
        run.export(kept[-1])
        return kept[-1]
    done = assessed(run, recipe.select)
    for epoch in kept:
        if epoch not in done:
            done[epoch] = assess_remotely(run, epoch, recipe)
            say(describe(done[epoch]))
    allowed = [
        q for q in done.values() if recipe.select.first_epoch <= q.epoch <= recipe.select.last_epoch
    ]
    if not allowed:
        raise UserError(
            f"{run.path} keeps the weights of epochs {', '.join(map(str, kept))}; none lies in "
            f"select.first_epoch {recipe.select.first_epoch} to select.last_epoch "
            f"{recipe.select.last_epoch}"
        )
    best = max(allowed, key=lambda q: (q.grade, -q.epoch))
    run.export(best.epoch)
    epoch_curves(run, sorted(done.values(), key=lambda q: q.epoch), best.epoch)
    return best.epoch


def describe(quality: Quality) -> str:
    """One line about an epoch."""
    perplexity = "" if quality.perplexity is None else f", perplexity {quality.perplexity:.3f}"
    interval = f"[{quality.low:.2f}, {quality.high:.2f}]"
    return (
        f"epoch {quality.epoch}: grade {quality.grade:.2f} {interval}, "
        f"{quality.stopped:.0%} stop{perplexity}"
    )


def assess_beside(checkpoint: Any, **kwargs: Any) -> dict[str, float]:
    """Ray Train's asynchronous validation: `assess` as a Ray task while training goes on.

    Args:
        checkpoint: not read; the weights stand in the run.
        kwargs: `run` (path), `recipe` (plain values), `epoch`.
    """
    run, recipe = Run(Path(kwargs["run"])), validate(kwargs["recipe"])
    quality = assess(run, kwargs["epoch"], recipe)
    return {"grade": quality.grade, "stopped": quality.stopped}


def resources(gpus: bool, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """What an assessment asks of Ray; without a GPU, nothing, so it starts beside a training.

    Args:
        gpus: whether it has one; without, it sees none either.
        environment: variables that it needs.
    """
    from lima_ray.train import NO_GPU

    variables = (environment or {}) | ({} if gpus else NO_GPU)
    return {"num_cpus": int(gpus), "num_gpus": int(gpus), "runtime_env": {"env_vars": variables}}


def assess_remotely(run: Run, epoch: int, recipe: Recipe) -> Quality:
    """Assess as a Ray task, on a GPU where the cluster has one."""
    from lima_ray import train

    return remotely(assess, recipe, run, epoch, train.portable(recipe))


def check_export(run: Run, recipe: Recipe) -> str:
    """See that the export is the model that was trained; see `lima_ray.probe.check_export`.

    On a cluster with GPUs that takes a task with one, elsewhere this process.
    """
    import ray

    from lima_ray import probe, train

    dtype = recipe.checkpoint.weights_dtype
    if ray.is_initialized() and train.wants_gpus(recipe.cluster):
        return remotely(probe.check_export, recipe, run, dtype)
    return probe.check_export(run, dtype)


def remotely(function: Callable[..., Any], recipe: Recipe, *args: Any) -> Any:
    """Call a function as a Ray task, on a GPU where the cluster has one.

    Raises:
        UserError: the function's own.
    """
    import ray
    from ray.exceptions import RayTaskError

    from lima_ray import train

    train.connect()
    task = ray.remote(function).options(**resources(train.wants_gpus(recipe.cluster)))
    try:
        return ray.get(task.remote(*args))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise


class Choice(Section):
    """What may differ from the run's own recipe when the epoch is chosen again."""

    select: Select = Select()
    sampling: Sampling = Sampling()


def main() -> None:
    """`python -m lima_ray.select RUN [--select.field value ...]`."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1][0] != "-" else None
    if folder and not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run: it holds no recipe.yaml")
    recipe = Run(folder.absolute()).recipe() if folder else Recipe()
    choice = read_flags(
        Choice,
        Choice(select=recipe.select, sampling=recipe.sampling),
        "python -m lima_ray.select RUN",
        __doc__,
        sys.argv[2 if folder else 1 :],
    )
    if folder is None:
        raise UserError("which run? python -m lima_ray.select runs/NAME")
    recipe = recipe.model_copy(update={"select": choice.select, "sampling": choice.sampling})
    if recipe.select.judge == "none":
        raise UserError("the run's recipe names no judge: --select.judge exact, or endpoint")
    check(recipe)
    run = Run(folder.absolute())
    with run.locked():
        best = choose(run, recipe)
        print(check_export(run, recipe))
    print(f"epoch {best} is now {run.export_dir}; all epochs: {run.epochs_figure}")


if __name__ == "__main__":
    with plain_errors():
        main()
