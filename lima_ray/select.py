"""Choose a run's epoch by what its models say, since perplexity does not track quality.

    python -m lima_ray.select runs/NAME [--select.judge exact] [--select.first_epoch 5]

Each kept epoch answers the dev prompts; a judge grades the replies (`select.judge`), and the best
epoch of the allowed range becomes `export/` (LIMA section 3 and appendix B). Training does the same
by itself, beside the next epoch's steps, where its recipe names a judge; this step does it for a
finished run, or again with another judge or range. What is assessed already is kept.

    runs/NAME/dev/NN/   replies.jsonl, verdicts.jsonl and quality.json of epoch NN
    runs/NAME/epochs.png
"""

import math
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np

from lima_ray import checks, cluster, stats
from lima_ray.config import Recipe, Sampling, Section, Select, read_flags, validate
from lima_ray.errors import UserError
from lima_ray.generate import generate, identity, name_of, read_prompts
from lima_ray.judges import JUDGES, grade_of, judge_name
from lima_ray.replies import ASKED, Generation, Record
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
    weights = run.lineage(model).get("weights", "")
    if outdated(run, epoch, recipe):
        shutil.rmtree(folder)
    replies, verdicts = judged(model, dev_prompts(recipe), folder, recipe)
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
    problem_file(run, epoch).unlink(missing_ok=True)
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
) -> tuple[list[Record], list[Record]]:
    """Have a model reply in this process, and the recipe's judge judge it.

    Args:
        model: directory of the model.
        prompts: what it is asked.
        out: directory for `replies.jsonl` and `verdicts.jsonl`.
        recipe: its `sampling` and `select`.

    Returns:
        replies and verdicts, in the same order.
    """
    job = asking(model, prompts, out, recipe)
    replies = generate(job, in_process=True)
    verdicts = JUDGES[recipe.select.judge].judge(replies, recipe.select)
    write_jsonl(verdicts, out / "verdicts.jsonl")
    return replies, verdicts


def asking(model: Path, prompts: Prompts, out: Path, recipe: Recipe) -> Generation:
    """The job of having a model reply to prompts."""
    return Generation(
        model=str(model),
        name=name_of(model),
        prompts=prompts.reference,
        split=prompts.split,
        out=out,
        samples=prompts.samples,
        sampling=recipe.sampling,
    )


def dev_prompts(recipe: Recipe) -> Prompts:
    """What chooses the epoch."""
    assert recipe.data.dev
    return Prompts(recipe.data.dev, "dev", recipe.select.samples)


def outdated(run: Run, epoch: int, recipe: Recipe) -> bool:
    """Whether an epoch's dev replies are to other prompts, by another sampling or other weights."""
    model, folder = run.epoch_dir(epoch), run.dev_dir(epoch)
    asked = run.read_json(folder / ASKED)
    if asked is None or not model.exists():
        return False
    job = asking(model, dev_prompts(recipe), folder, recipe)
    now = identity(job, model, read_prompts(job.prompts, job.split))
    return asked != now


def perplexity(model: Path, recipe: Recipe) -> float:
    """Perplexity of the held-out dialogues' supervised tokens under an epoch's weights."""
    losses_B, tokens_B = dialogue_losses(model, recipe, packed=True)
    return math.exp(losses_B.sum() / tokens_B.sum())


def dialogue_losses(
    model: Path, recipe: Recipe, packed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Summed loss of the held-out dialogues' supervised tokens, and how many these are.

    Args:
        model: directory of the weights.
        recipe: its `data` and micro-batches.
        packed: for each micro-batch, which is faster, instead of each dialogue.

    Returns:
        losses in nats, and counts, of the same shape.
    """
    import torch
    from transformers import AutoTokenizer

    from lima_ray import microbatch
    from lima_ray.loss import forward, load_packed

    assert recipe.data.heldout
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    rows = checks.held_out(recipe, tokenizer)
    weights, _ = load_packed(model, "auto" if torch.cuda.is_available() else torch.float32)
    batches = [(row,) for row in range(len(rows))]
    if packed:
        budget = recipe.train.tokens_per_micro_batch
        (batches,) = microbatch.pack(np.arange(len(rows)), rows.lengths_R, 1, budget).ranks
    with torch.inference_mode():
        losses = [float(forward(weights, batch, rows)[0]) for batch in batches]
    tokens = [int(rows.supervised_R[list(batch)].sum()) for batch in batches]
    return np.array(losses), np.array(tokens)


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


def choose(run: Run, recipe: Recipe, say: Callable[[str], None] = print) -> int:
    """Assess what is not assessed yet, export the best epoch of the range, and draw them all.

    Args:
        run: a finished run.
        recipe: the run's, with the `select` section to use.
        say: told of each epoch that is assessed here.

    Returns:
        the epoch chosen: of the highest mean grade; of equals the one more of whose replies
        stopped, then the earliest.

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
        ignored = f"; data.dev {recipe.data.dev} is judged where --select.judge names a judge"
        say(
            f"exported epoch {kept[-1]}, the last: no judge (select.judge none)"
            f"{ignored if recipe.data.dev else ''}"
        )
        return kept[-1]
    done = {
        epoch: quality
        for epoch, quality in assessed(run, recipe.select).items()
        if not outdated(run, epoch, recipe)
    }
    for epoch in kept:
        if epoch not in done:
            try:
                done[epoch] = assess_remotely(run, epoch, recipe)
            except UserError as error:
                raise UserError(unjudged(run, epoch, error)) from error
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
    best = max(allowed, key=lambda q: (q.grade, q.stopped, -q.epoch))
    run.export(best.epoch)
    say(chosen(best, allowed))
    epoch_curves(run, sorted(done.values(), key=lambda q: q.epoch), best.epoch)
    return best.epoch


def describe(quality: Quality) -> str:
    """One line about an epoch."""
    perplexity = "" if quality.perplexity is None else f", perplexity {quality.perplexity:.3f}"
    interval = f"[{quality.low:.2f}, {quality.high:.2f}]"
    unread = f", {quality.invalid} verdicts not readable" if quality.invalid else ""
    return (
        f"epoch {quality.epoch}: grade {quality.grade:.2f} {interval}, "
        f"{quality.stopped:.0%} stop{perplexity}{unread}"
    )


def chosen(best: Quality, allowed: list[Quality]) -> str:
    """Which epoch is exported, and what decided between equal grades."""
    numbers = sorted(q.epoch for q in allowed)
    said = f"exported epoch {best.epoch}, of the best grade among {numbers[0]} to {numbers[-1]}"
    equal = [q for q in allowed if q.grade == best.grade and q is not best]
    if not equal:
        return said
    others = ", ".join(f"{q.epoch} ({q.stopped:.0%} stop)" for q in equal)
    why = "more of its replies stop"
    if any(q.stopped == best.stopped for q in equal):
        why = "it is the earliest of which as many stop"
    return f"{said}; equal grades of {others}, and {why}"


def unjudged(run: Run, epoch: int, error: UserError) -> str:
    """What to do where training is done and an epoch cannot be judged."""
    return (
        f"epoch {epoch} cannot be judged: {error}\n"
        f"  Training is done and the weights stand in {run.epochs_dir}. Once that is mended, the "
        "same command goes on with judging; with --select.judge none it exports the last epoch"
    )


def assess_beside(checkpoint: Any, **kwargs: Any) -> dict[str, float]:
    """Ray Train's asynchronous validation: `assess` as a Ray task while training goes on.

    Args:
        checkpoint: not read; the weights stand in the run.
        kwargs: `run` (path), `recipe` (plain values), `epoch`.
    """
    run, recipe, epoch = Run(Path(kwargs["run"])), validate(kwargs["recipe"]), kwargs["epoch"]
    try:
        quality = assess(run, epoch, recipe)
    except Exception as error:
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        run.dev_dir(epoch).mkdir(parents=True, exist_ok=True)
        write_json(problem_file(run, epoch), {"epoch": epoch, "error": said})
        if not isinstance(error, UserError):
            raise
        return {}
    return {"grade": quality.grade, "stopped": quality.stopped}


def problem_file(run: Run, epoch: int) -> Path:
    """Why an epoch could not be judged beside the training; not there once it is judged."""
    return run.dev_dir(epoch) / "problem.json"


def problems(run: Run) -> dict[int, str]:
    """Why epochs could not be judged, by epoch."""
    found = [run.read_json(file) for file in run.path.glob("dev/*/problem.json")]
    return {one["epoch"]: one["error"] for one in found if one}


def assess_remotely(run: Run, epoch: int, recipe: Recipe) -> Quality:
    """Assess as a Ray task, on a GPU where the cluster has one."""
    from lima_ray import train

    return cluster.remotely(assess, recipe, run, epoch, train.portable(recipe))


def check_export(run: Run, recipe: Recipe) -> str:
    """See that the export is the model that was trained; see `lima_ray.probe.check_export`.

    On a cluster with GPUs that takes a task with one, elsewhere this process.
    """
    import ray

    from lima_ray import probe

    dtype = recipe.checkpoint.weights_dtype
    if ray.is_initialized() and cluster.wants_gpus(recipe.cluster):
        return cluster.remotely(probe.check_export, recipe, run, dtype)
    return probe.check_export(run, dtype)


class Prompted(Section):
    """Data that the choice needs, where it is not the run's own."""

    dev: str | None = None
    """Prompts that choose the epoch; none of them may be in the training rows."""
    heldout: str | None = None
    """Dialogues never trained on, whose perplexity is drawn beside the grade."""


class Choice(Section):
    """What may differ from the run's own recipe when the epoch is chosen again."""

    select: Select = Select()
    sampling: Sampling = Sampling()
    data: Prompted = Prompted()

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """As a recipe has it."""
        data = Prompted(dev=recipe.data.dev, heldout=recipe.data.heldout)
        return cls(select=recipe.select, sampling=recipe.sampling, data=data)

    def within(self, recipe: Recipe) -> Recipe:
        """A run's recipe with this choice in the place of its own."""
        data = {"data.dev": self.data.dev, "data.heldout": self.data.heldout}
        own = {"select": self.select, "sampling": self.sampling}
        return recipe.model_copy(update=own).override(data)


def again(run: Run, recipe: Recipe) -> int:
    """Choose a finished run's epoch again.

    Args:
        run: a finished run.
        recipe: the run's, with the choice to make.

    Returns:
        the epoch chosen.

    Raises:
        UserError: no judge, or anything that it lacks; nothing has changed then.
    """
    from transformers import AutoTokenizer

    if recipe.select.judge == "none":
        raise UserError("the run's recipe names no judge: --select.judge exact, or endpoint")
    if not (kept := run.kept_epochs()):
        raise UserError(
            f"{run.path} holds no weights to choose from; train it first: python -m lima_ray.train"
        )
    checks.check(recipe)
    if recipe.data.dev != (own := run.recipe()).data.dev:
        checks.check_leaks(own, read_prompts(str(recipe.data.dev), "dev"))
    tokenizer: Any = AutoTokenizer.from_pretrained(run.tokenizer_dir, trust_remote_code=False)
    checks.try_out(recipe, tokenizer, run.epoch_dir(kept[-1]))
    return choose(run, recipe)


def main(argv: list[str] | None = None) -> None:
    """`python -m lima_ray.select RUN [--select.field value ...]`."""
    args = list(sys.argv[1:] if argv is None else argv)
    folder = Path(args.pop(0)) if args and not args[0].startswith("-") else None
    if folder and not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run: it holds no recipe.yaml")
    recipe = Run(folder.absolute()).recipe() if folder else Recipe()
    prog = "python -m lima_ray.select RUN"
    choice = read_flags(Choice, Choice.of(recipe), prog, __doc__, args)
    if folder is None:
        raise UserError("which run? python -m lima_ray.select runs/NAME")
    run = Run(folder.absolute())
    with run.locked():
        best = again(run, choice.within(recipe))
        print(check_export(run, recipe))
    print(f"epoch {best} is now {run.export_dir}; all epochs: {run.epochs_figure}")


if __name__ == "__main__":
    from lima_ray.command_line import run as run_command

    run_command("select")
