"""What a sweep trains: each point with each seed, checked, and named by what decides its result.

A training's run stands in `runs/trials/ID`, where ID is a hash of recipe, rows and base: sweeps
that share a point share its training, and an edited dataset makes another.
"""

import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from lima_ray import train
from lima_ray.config.differences import hashed_sampling, hashed_select
from lima_ray.config.errors import UserError, join_names
from lima_ray.config.loading import with_absolute_paths
from lima_ray.config.paths import absolute_reference, stored_path
from lima_ray.config.recipe import Recipe, validate_recipe
from lima_ray.config.sections import Model, Train
from lima_ray.config.storage import whole_folders
from lima_ray.config.storage.changing_files import forget
from lima_ray.config.storage.whole_folders import names_of_whole, read_manifest
from lima_ray.config.storage.working_copy import location, reference
from lima_ray.data import training_data
from lima_ray.data.examples import read_examples, read_prompts
from lima_ray.judging import preflight
from lima_ray.judging.registry import check_judge_answers
from lima_ray.model.families import check_base_model, context_length, load_config
from lima_ray.records.files import HeldLock, acquire_lock
from lima_ray.records.run import Run
from tune.measurement import (
    Measurement,
    compared,
    digest,
    measured_by_loss,
    read_measurement,
    reference_hash,
)
from tune.space import Point, Sweep

ID_DIGITS = 12
WAIT = "wait for it, then go on with --resume"
PreparedTraining = tuple["Training", train.PreparedRun]
"""A training and its checked input."""


@dataclass(frozen=True)
class Training:
    """One training and its measurement, as plain values that travel between processes."""

    id: str
    point: int
    seed: int
    recipe: dict[str, Any]
    lineage: dict[str, str]
    prompts: str
    """File that measures, as processes elsewhere find it."""
    samples: int
    key: str
    """Tells measurements by other prompts, samples, sampling or judges apart."""
    keep: Literal["all", "chosen", "none"]
    """Weights kept once it is measured: every epoch's, the chosen one's, or none."""
    by_loss: bool = False
    """Measured by the loss on dialogues, not by judged replies."""
    max_tokens: int = 0
    """Where a dialogue whose loss measures is cut."""
    compared_with: str | None = None
    """Replies of a reference, where the recipe's own do not measure."""

    @property
    def run(self) -> Run:
        return Run(stored_path(self.recipe["runs_dir"]) / self.id)

    def look(self) -> Run:
        """Return the run to look at how far it is; of one in a bucket the readers' copy, fetched.

        Workers and judges on this machine may be writing the files of `run`.
        """
        seen = self.run.reading_copy()
        seen.refresh()
        return seen

    @property
    def measured(self) -> Path:
        """Directory of the replies and verdicts."""
        return self.run.path / "measured" / self.key

    @property
    def verdicts_file(self) -> Path:
        """Verdicts of the measurement; there once it is complete."""
        return self.measured / "verdicts.jsonl"

    def is_measured(self) -> bool:
        """Return whether nothing is left to do."""
        return (self.look().path / "measured" / self.key / self.verdicts_file.name).exists()

    def needs_judge(self) -> bool:
        """Return whether what is left needs a judge; points that a searcher will propose do."""
        judged = self.by_loss and self.is_trained()
        return self.point < 0 or not (self.is_measured() or judged)

    def heldout(self) -> Recipe:
        """Return the recipe with the dialogues whose loss measures as its held-out ones."""
        return measured_by_loss(validate_recipe(self.recipe), self.prompts, self.max_tokens)

    def is_trained(self) -> bool:
        """Return whether the chosen epoch is exported."""
        export = self.look().export_dir
        if location(export):
            made = read_manifest(export) or {"files": []}
            return any(name.endswith(".safetensors") for name in made["files"])
        return any(export.glob("*.safetensors"))

    def drop_weights(self) -> None:
        """Remove resume state and the weights that are not kept; the export has its own links."""
        if self.keep == "all":
            return
        run = self.run
        for parent in (run.state_dir, run.epochs_dir):
            for name in names_of_whole(parent) if location(parent) else []:
                whole_folders.remove(parent / name)
            shutil.rmtree(parent, ignore_errors=True)
        if self.keep == "none" and run.has_export():
            about = {"lineage": run.lineage(run.export_dir)}
            for weights in whole_folders.fetch(run.export_dir).glob("*.safetensors"):
                weights.unlink()
            whole_folders.publish(run.export_dir, about)


def prepare(sweep: Sweep, base: Recipe, points: list[Point]) -> list[PreparedTraining]:
    """Check and encode every training and write nothing; refuse, naming every wrong point."""
    measurement = read_measurement(sweep, base)
    trainings, problems = list[PreparedTraining](), dict[str, list[str]]()
    for point in points:
        for seed in sweep.seeds:
            try:
                trainings.append(prepare_one(sweep, base, measurement, point, seed))
            except UserError as error:
                problems.setdefault(str(error), []).append(f"{point.name} (seed {seed})")
    if problems:
        lines = [f"{', '.join(where)}: {error}" for error, where in problems.items()]
        count = sum(map(len, problems.values()))
        raise UserError(
            f"{count} of {len(points) * len(sweep.seeds)} trainings cannot run:\n  "
            + "\n  ".join(lines)
        )
    try_judges([training for training, _ in trainings])
    return trainings


def try_judges(trainings: list[Training]) -> None:
    """Ask each judge of what is left for one small verdict; refuse one that gives none."""
    left = [(validate_recipe(one.recipe), one) for one in trainings if one.needs_judge()]
    selects = [recipe.select for recipe, _ in left]
    selects += [compared(recipe, one.compared_with).select for recipe, one in left]
    for select in {str(select): select for select in selects}.values():
        check_judge_answers(select)


def prepare_one(
    sweep: Sweep, base: Recipe, measurement: Measurement, point: Point, seed: int
) -> PreparedTraining:
    """Check and encode one training as `prepare` does; its judge is not asked."""
    folder = stored_path(base.runs_dir) / "trials"
    recipe = base.override(point.values | {"seed": seed, "runs_dir": reference(folder)})
    if recipe.data.added_rows == 0:  # the same training as one that names no rows to add
        recipe = recipe.override({"data.added": None, "data.added_rows": None})
    if not recipe.is_resolved():
        raise UserError(
            f"{', '.join(recipe.unresolved())} is auto, which a sweep resolves for the ZeRO stage "
            "alone; python -m lima_ray.plan tells what to write"
        )
    found = encoded(rows_of(recipe))
    if leaked := training_data.find_leaks(found[1], measurement.rows):
        raise UserError(
            f"{len(leaked)} training prompts are among the prompts that measure "
            f"({measurement.reference}): {join_names([row.id for row, _ in leaked])}; remove them"
        )
    prepared = train.check_inputs(recipe, found)
    preflight.check_dev_prompts(recipe, prepared.tokenizer)
    if measurement.by_loss:
        heldout = measured_by_loss(recipe, measurement.reference, measurement.max_tokens)
        check_base_model(heldout)
        preflight.encode_heldout(heldout, prepared.tokenizer)
    else:
        context = context_length(load_config(recipe.model.base))
        preflight.check_named_prompts(
            measurement.rows, measurement.reference, prepared.tokenizer, context, recipe
        )
    decides = [recipe.identity(), prepared.lineage["data"], prepared.lineage["base"]]
    judged = [contents(recipe.data.dev), contents(recipe.data.heldout)]
    select = hashed_select(recipe.select, dev_reference(recipe))
    chooses = [judged, select, hashed_sampling(recipe.sampling)]
    id = digest([*decides, *chooses, recipe.checkpoint.weights_from_epoch])[:ID_DIGITS]
    recipe = recipe.override({"name": id})
    card = prepared.data_card | {"recipe": {"from": sweep.recipe, "hash": recipe.hash()}}
    prepared = train.PreparedRun(recipe, card, prepared.tokenizer, prepared.rows)
    training = Training(
        id=id,
        point=point.number,
        seed=seed,
        recipe=with_absolute_paths(recipe).model_dump(),
        lineage=prepared.lineage,
        prompts=absolute_reference(measurement.reference),
        samples=measurement.samples,
        key=measurement.key(recipe),
        keep=sweep.keep,
        by_loss=measurement.by_loss,
        max_tokens=measurement.max_tokens,
        compared_with=measurement.compared_with and absolute_reference(measurement.compared_with),
    )
    return training, prepared


def reserve(training: Training, prepared: train.PreparedRun) -> HeldLock:
    """Lock a training against other sweeps, and write its directory unless it has been trained.

    The lock is for as long as this sweep trains or measures it; refuse where another has it.
    """
    busy = f"another sweep is at the training {training.id}; {WAIT}"
    held = acquire_lock(training.run.path.with_suffix(".lock"), busy, everywhere=True)
    if not (training.is_trained() or training.is_measured()):
        training.run.refresh()
        run = prepared.initialise()
        prepared.write()
        if run.latest_state() is None:  # grades of weights that are gone
            forget(run.path / "dev")
    return held


def dev_reference(recipe: Recipe) -> str:
    """Return a hash of the replies that choose the epoch by comparison; empty where none do."""
    dev, select = recipe.data.dev, recipe.select
    return reference_hash(select, read_prompts(dev, "dev"), select.samples) if dev else ""


def contents(reference: str | None) -> str:
    """Return the hash of the rows of a file, or of a dataset; empty where there is none."""
    if reference is None:
        return ""
    return digest([row.to_line() for row in read_examples(reference, "dev", dialogues=False)])


def rows_of(recipe: Recipe) -> str:
    """Return what decides a recipe's encoded rows, as JSON; the seed only where it draws rows."""
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
def encoded(rows: str) -> training_data.TrainingData:
    """Encode the rows of a recipe, given as JSON, once for all points that share them."""
    return training_data.load(Recipe.model_validate_json(rows))
