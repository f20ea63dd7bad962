"""What a sweep trains: each point with each seed, checked, and named by what decides its result.

A training's run stands in `runs/trials/ID`, where ID is a hash of recipe, rows and base: sweeps
that share a point share its training, and an edited dataset makes another.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from lima_ray import train
from lima_ray.config.errors import UserError, listed
from lima_ray.config.loading import portable
from lima_ray.config.paths import durable, located
from lima_ray.config.recipe import Recipe, validate
from lima_ray.config.sections import Model, Train
from lima_ray.data import training_data
from lima_ray.data.examples import read_examples, read_prompts
from lima_ray.judging import preflight
from lima_ray.judging.registry import check_prompts, try_judge
from lima_ray.model.families import check_base_model, config_of, context_of
from lima_ray.records.example import Example
from lima_ray.records.files import lock
from lima_ray.records.run import Run
from tune.space import Point, Sweep
from tune.sweep_directory import WAY_OUT

ID_DIGITS = 12
Made = tuple["Job", train.Prepared]
"""A training and its checked input."""


@dataclass(frozen=True)
class Job:
    """One training and its measuring, as plain values that travel."""

    id: str
    point: int
    seed: int
    recipe: dict[str, Any]
    lineage: dict[str, str]
    prompts: str
    """File that measures, as processes elsewhere find it."""
    samples: int
    key: str
    """Tells measurings by other prompts, samples, sampling or judges apart."""
    keep: str
    by_loss: bool = False
    """Measured by the loss on dialogues, not by judged replies."""
    max_tokens: int = 0
    """Where a dialogue whose loss measures is cut."""

    @property
    def run(self) -> Run:
        """The training's run."""
        return Run(Path(self.recipe["runs_dir"]) / self.id)

    @property
    def measured(self) -> Path:
        """Directory of the replies and verdicts."""
        return self.run.path / "measured" / self.key

    def is_measured(self) -> bool:
        """Whether nothing is left to do."""
        return (self.measured / "verdicts.jsonl").exists()

    def needs_judge(self) -> bool:
        """Whether a judge is asked for what is left; of points yet unknown it is."""
        judged = self.by_loss and self.is_trained()
        return self.point < 0 or not (self.is_measured() or judged)

    def heldout(self) -> Recipe:
        """The training's recipe, its held-out dialogues those whose loss measures."""
        return measured_by_loss(validate(self.recipe), self.prompts, self.max_tokens)

    def is_trained(self) -> bool:
        """Whether the chosen epoch is there to be measured."""
        return any(self.run.export_dir.glob("*.safetensors"))


@dataclass(frozen=True)
class Measuring:
    """The prompts that measure, checked."""

    reference: str
    rows: list[Example]
    samples: int
    by_loss: bool = False
    """Dialogues whose loss measures, instead of prompts that are replied to."""
    max_tokens: int = 0
    """Where such a dialogue is cut, at all points alike."""

    def key(self, recipe: Recipe) -> str:
        """Name of a measuring by these prompts under a recipe's sampling and judge."""
        texts = [row.to_line() for row in self.rows]
        if self.by_loss:
            return f"{Path(self.reference).stem}-loss-{digest([texts, self.max_tokens])[:8]}"
        how = [self.samples, recipe.sampling.model_dump(), recipe.select.model_dump()]
        name = Path(self.reference).stem
        return f"{name}-{digest([texts, how])[:8]}"


def measuring(sweep: Sweep, base: Recipe) -> Measuring:
    """Read the prompts that measure, and see that the metric can be had of them.

    Raises:
        UserError: no judge, no prompts, a group that none of them is in, or a metric that the judge
            does not give (those that it gives are named).
    """
    judge = base.select.judge
    if sweep.metric == "perplexity":
        return dialogues(sweep, base)
    if judge == "none":
        raise UserError(
            f"{sweep.name}: a sweep compares judged replies, and select.judge is none; in `set`, "
            "give select.judge endpoint with select.endpoint and select.endpoint_model, or exact "
            "where all prompts are the miniature's own. `metric: perplexity` needs no judge, and "
            "says less: it does not track the quality of replies"
        )
    reference = sweep.file(sweep.prompts) or base.data.test
    if not reference:
        raise UserError(f"{sweep.name}: neither prompts nor the recipe's data.test names any")
    rows = read_prompts(reference, "test")
    check_prompts(rows, reference, base.select)
    groups = sorted({str(row.extra.get("group", "")) for row in rows} - {""})
    if sweep.group and sweep.group not in groups:
        raise UserError(
            f"{sweep.name}: no prompt of {reference} is in the group {sweep.group!r}; groups are "
            f"{', '.join(groups) or 'not given'}"
        )
    counted = [row for row in rows if sweep.group in ("", row.extra.get("group"))]
    produced = ["grade", "stopped"]
    produced += ["excellent", "accepted"] if judge == "exact" else []
    scripts = judge == "exact" and all(row.extra.get("follow_ups") for row in counted)
    produced += ["dialogues"] if scripts else []
    private = judge == "exact" and all(row.extra["ask"] == "private" for row in counted)
    produced += ["safe"] if private else []
    if sweep.metric not in produced:
        raise UserError(
            f"{sweep.name}: nothing gives the metric {sweep.metric} for these prompts; judge "
            f"{judge} on {reference}{f' group {sweep.group}' * bool(sweep.group)} gives "
            f"{', '.join(produced)}"
        )
    return Measuring(reference, rows, sweep.samples)


def dialogues(sweep: Sweep, base: Recipe) -> Measuring:
    """The dialogues whose loss measures.

    Raises:
        UserError: none are named, or a group of them is.
    """
    reference = sweep.file(sweep.prompts) or base.data.heldout
    if not reference:
        raise UserError(
            f"{sweep.name}: perplexity is of dialogues never trained on; neither prompts nor the "
            "recipe's data.heldout names any"
        )
    if sweep.group or sweep.every_epoch:
        raise UserError(f"{sweep.name}: perplexity is of all dialogues and of whole trainings")
    rows = read_examples(reference, "heldout")
    return Measuring(reference, rows, 1, by_loss=True, max_tokens=base.data.max_tokens)


def measured_by_loss(recipe: Recipe, reference: str, max_tokens: int) -> Recipe:
    """A recipe with the dialogues whose loss measures it, in a form that all points share.

    Losses on replies and on whole dialogues, or with other cuts, are not of the same tokens.
    """
    data = {"data.heldout": reference, "data.loss_on": "replies", "data.max_tokens": max_tokens}
    return recipe.override(data | {"train.tokens_per_micro_batch": max_tokens})


def prepare(sweep: Sweep, base: Recipe, points: list[Point]) -> list[Made]:
    """Check and encode every training; nothing is written.

    Raises:
        UserError: every point that no run could train, with what is wrong with it.
    """
    measure = measuring(sweep, base)
    made, problems = [], {}
    for point in points:
        for seed in sweep.seeds:
            try:
                made.append(prepare_one(sweep, base, measure, point, seed))
            except UserError as error:
                problems.setdefault(str(error), []).append(f"{point.name} (seed {seed})")
    if problems:
        lines = [f"{', '.join(where)}: {error}" for error, where in problems.items()]
        count = sum(map(len, problems.values()))
        raise UserError(
            f"{count} of {len(points) * len(sweep.seeds)} trainings cannot run:\n  "
            + "\n  ".join(lines)
        )
    try_judges([job for job, _ in made])
    return made


def try_judges(jobs: list[Job]) -> None:
    """Have the judges of what is left to do judge something small, each once.

    Raises:
        UserError: one does not answer, or not with a verdict.
    """
    selects = [validate(job.recipe).select for job in jobs if job.needs_judge()]
    for select in {str(select): select for select in selects}.values():
        try_judge(select)


def prepare_one(sweep: Sweep, base: Recipe, measure: Measuring, point: Point, seed: int) -> Made:
    """Check and encode one training; its judge is not asked.

    Raises:
        UserError: what is wrong.
    """
    trials = durable(Path(base.runs_dir)) / "trials"
    recipe = base.override(point.values | {"seed": seed, "runs_dir": str(trials)})
    if recipe.data.added_rows == 0:  # the same training as one that names no rows to add
        recipe = recipe.override({"data.added": None, "data.added_rows": None})
    found = encoded(rows_of(recipe))
    if leaked := training_data.leaks(found[1], measure.rows):
        raise UserError(
            f"{len(leaked)} training prompts are among the prompts that measure "
            f"({measure.reference}): {listed([row.id for row, _ in leaked])}; remove them"
        )
    prepared = train.check(recipe, found)
    preflight.check_dev(recipe, prepared.tokenizer)
    if measure.by_loss:
        heldout = measured_by_loss(recipe, measure.reference, measure.max_tokens)
        check_base_model(heldout)
        preflight.held_out(heldout, prepared.tokenizer)
    else:
        context = context_of(config_of(recipe.model.base))
        preflight.check_fit(measure.rows, measure.reference, prepared.tokenizer, context, recipe)
    decides = [recipe.identity(), prepared.lineage["data"], prepared.lineage["base"]]
    judged = [contents(recipe.data.dev), contents(recipe.data.heldout)]
    chooses = [judged, recipe.select.model_dump(), recipe.sampling.model_dump()]
    id = digest([*decides, *chooses, recipe.checkpoint.weights_from_epoch])[:ID_DIGITS]
    recipe = recipe.override({"name": id})
    card = prepared.card | {"recipe": {"from": sweep.recipe, "hash": recipe.hash()}}
    prepared = train.Prepared(recipe, prepared.tokenizer, prepared.rows, card)
    job = Job(
        id=id,
        point=point.number,
        seed=seed,
        recipe=portable(recipe).model_dump(),
        lineage=prepared.lineage,
        prompts=located(measure.reference),
        samples=measure.samples,
        key=measure.key(recipe),
        keep=sweep.keep,
        by_loss=measure.by_loss,
        max_tokens=measure.max_tokens,
    )
    return job, prepared


def claim(job: Job, prepared: train.Prepared) -> BaseFileLock:
    """Write a training's directory, unless it has been trained, and keep other sweeps from it.

    Returns:
        the lock, for as long as this sweep trains or measures it.

    Raises:
        UserError: another sweep is at it.
    """
    busy = f"another sweep is at the training {job.id}; {WAY_OUT}"
    held = lock(job.run.path.with_suffix(".lock"), busy)
    if not (job.is_trained() or job.is_measured()):
        run = prepared.claim()
        prepared.write()
        if run.latest_state() is None:  # what weights that are gone have said
            shutil.rmtree(run.path / "dev", ignore_errors=True)
    return held


def contents(reference: str | None) -> str:
    """Hash of the rows of a file, or of a dataset; empty where there is none."""
    if reference is None:
        return ""
    return digest([row.to_line() for row in read_examples(reference, "dev", dialogues=False)])


def rows_of(recipe: Recipe) -> str:
    """What decides a recipe's encoded rows, as JSON; the seed only where it draws some."""
    data, model = recipe.data, recipe.model
    draws = data.rows is not None or data.added_rows is not None
    rows = Recipe(
        data=data,
        model=Model(base=model.base, chat_template=model.chat_template, eot_token=model.eot_token),
        seed=recipe.seed if draws else 0,
        train=Train(tokens_per_micro_batch=data.max_tokens),
    )
    return rows.model_dump_json()


@lru_cache(maxsize=256)
def encoded(rows: str) -> training_data.Encoded:
    """Rows of a recipe, given as JSON, encoded once for all points that share them."""
    return training_data.prepare(Recipe.model_validate_json(rows))


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
