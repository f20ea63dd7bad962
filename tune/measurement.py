"""What measures the trainings of a sweep: prompts that are replied to, or dialogues with a loss."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lima_ray.config.differences import hashed_sampling, hashed_select
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Select
from lima_ray.data.examples import read_examples, read_prompts
from lima_ray.judging.asking.reference import check_reference, expected_replies, hash_reference
from lima_ray.judging.registry import check_prompts
from lima_ray.records.example import Example
from tune.space import Sweep


@dataclass(frozen=True)
class Measurement:
    """The prompts that measure, checked."""

    reference: str
    rows: list[Example]
    samples: int
    compared_with: str | None = None
    """Replies of a reference, where they measure; none takes the recipe's own, if any."""
    by_loss: bool = False
    """Dialogues whose loss measures, instead of prompts that are replied to."""
    max_tokens: int = 0
    """Where such a dialogue is cut, at all points alike."""

    def key(self, recipe: Recipe) -> str:
        """Name the measurement by these prompts under a recipe's sampling and judge."""
        texts = [row.to_line() for row in self.rows]
        if self.by_loss:
            return f"{Path(self.reference).stem}-loss-{digest([texts, self.max_tokens])[:8]}"
        select = compared(recipe, self.compared_with).select
        said = reference_hash(select, self.rows, self.samples)
        how = [self.samples, hashed_sampling(recipe.sampling), hashed_select(select, said)]
        name = Path(self.reference).stem
        return f"{name}-{digest([texts, how])[:8]}"


def compared(recipe: Recipe, reference: str | None) -> Recipe:
    """Give a recipe the replies that the measured ones are compared with, where any are named."""
    return recipe.override({"select.reference": reference}) if reference else recipe


def reference_hash(select: Select, prompts: list[Example], samples: int) -> str:
    """Return a hash of what a reference replies to prompts; empty where there is none."""
    if not select.reference:
        return ""
    return hash_reference(select.reference, expected_replies(prompts, samples))


def read_measurement(sweep: Sweep, base: Recipe) -> Measurement:
    """Read the prompts that measure; refuse them where they cannot give the metric."""
    judge = base.select.judge
    if sweep.metric == "perplexity":
        return loss_measurement(sweep, base)
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
    compared_with = sweep.file(sweep.reference)
    select = compared(base, compared_with).select
    check_prompts(rows, reference, select)
    check_reference(select, rows, sweep.samples, reference)
    groups = sorted({str(row.extra.get("group", "")) for row in rows} - {""})
    if sweep.group and sweep.group not in groups:
        raise UserError(
            f"{sweep.name}: no prompt of {reference} is in the group {sweep.group!r}; groups are "
            f"{', '.join(groups) or 'not given'}"
        )
    counted = [row for row in rows if sweep.group in ("", row.extra.get("group"))]
    produced = [select.metric, "stopped"]
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
    return Measurement(reference, rows, sweep.samples, compared_with)


def loss_measurement(sweep: Sweep, base: Recipe) -> Measurement:
    """Read the dialogues whose loss measures; refuse a sweep that names none, or a group."""
    reference = sweep.file(sweep.prompts) or base.data.heldout
    if not reference:
        raise UserError(
            f"{sweep.name}: perplexity is of dialogues never trained on; neither prompts nor the "
            "recipe's data.heldout names any"
        )
    if sweep.group or sweep.every_epoch:
        raise UserError(f"{sweep.name}: perplexity is of all dialogues and of whole trainings")
    rows = read_examples(reference, "heldout")
    return Measurement(reference, rows, 1, by_loss=True, max_tokens=base.data.max_tokens)


def measured_by_loss(recipe: Recipe, reference: str, max_tokens: int) -> Recipe:
    """Give a recipe the dialogues whose loss measures it, in a form that all points share.

    Losses on replies and on whole dialogues, or with other cuts, are not of the same tokens.
    """
    data = {"data.heldout": reference, "data.loss_on": "replies", "data.max_tokens": max_tokens}
    return recipe.override(data | {"train.tokens_per_micro_batch": max_tokens})


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
