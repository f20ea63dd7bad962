"""What measures the trainings of a sweep: prompts that are replied to, or dialogues with a loss."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lima_ray.config.differences import hashed_sampling
from lima_ray.config.errors import UserError
from lima_ray.config.recipe import Recipe
from lima_ray.data.examples import read_examples, read_prompts
from lima_ray.judging.registry import check_prompts
from lima_ray.records.example import Example
from tune.space import Sweep


@dataclass(frozen=True)
class Measurement:
    """The prompts that measure, checked."""

    reference: str
    rows: list[Example]
    samples: int
    by_loss: bool = False
    """Dialogues whose loss measures, instead of prompts that are replied to."""
    max_tokens: int = 0
    """Where such a dialogue is cut, at all points alike."""

    def key(self, recipe: Recipe) -> str:
        """Name the measurement by these prompts under a recipe's sampling and judge."""
        texts = [row.to_line() for row in self.rows]
        if self.by_loss:
            return f"{Path(self.reference).stem}-loss-{digest([texts, self.max_tokens])[:8]}"
        how = [self.samples, hashed_sampling(recipe.sampling), recipe.select.model_dump()]
        name = Path(self.reference).stem
        return f"{name}-{digest([texts, how])[:8]}"


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
    return Measurement(reference, rows, sweep.samples)


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
