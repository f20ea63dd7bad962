"""What a sweep will take, known before anything starts: operations, hours, bytes, judges' calls."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from lima_ray.config.recipe import Recipe
from lima_ray.config.sections import Select
from lima_ray.data.examples import read_prompts
from lima_ray.judging.asking.budget import Estimate, estimate
from lima_ray.judging.asking.forecast import assumed_replies
from lima_ray.judging.asking.judges import selecting_judge
from lima_ray.judging.assessment import dev_prompts
from lima_ray.judging.endpoint import questions
from lima_ray.model.flops import named_peak
from lima_ray.planning.cost import UTILISATION, core_flops, plan_disk, training_flops
from lima_ray.planning.sizes import ModelShape, base_config, shape_of
from lima_ray.results.units import format_duration
from lima_ray.training.schedule import kept_epochs
from tune.measurement import compared
from tune.training import PreparedTraining


@dataclass(frozen=True)
class Cost:
    """Of the trainings that are left."""

    trainings: int
    flops: float
    dev_replies: int
    """Replies to dev prompts, over all epochs that are judged."""
    replies: int
    """Replies that measure."""
    kept_bytes: float
    """Weights left in the end."""
    most_bytes: float
    """Weights and resume states at any time."""

    def times(self, count: int) -> "Cost":
        most = self.most_bytes + self.kept_bytes * (count - 1)
        return Cost(
            self.trainings * count,
            self.flops * count,
            self.dev_replies * count,
            self.replies * count,
            self.kept_bytes * count,
            most,
        )


def remaining_cost(trainings: list[PreparedTraining], at_once: int) -> Cost:
    """Add up what is left of a sweep's trainings, so many at a time."""
    left = {one.id: (one, inputs) for one, inputs in trainings if not one.is_trained()}
    flops = kept = running = 0.0
    dev_replies = replies = 0
    for training, prepared in left.values():
        recipe = prepared.recipe
        shape = base_shape(str(training.recipe["model"]["base"]), recipe.model.lora_rank)
        flops += training_flops(recipe, shape, prepared.rows)
        disk = plan_disk(recipe, shape, trains_in_bf16(recipe))
        if recipe.select.judge != "none":
            dev_replies += disk.epochs * reply_count(recipe.data.dev, "dev") * recipe.select.samples
        if not training.by_loss:
            replies += reply_count(training.prompts, "test") * training.samples
        kept += {"all": disk.kept, "chosen": disk.weights, "none": 0}[training.keep]
        running = max(running, disk.most)
    return Cost(len(left), flops, dev_replies, replies, kept, kept + running * at_once)


def trains_in_bf16(recipe: Recipe) -> bool:
    """Return whether weights are in bf16; fp32, which is larger, where the cluster decides it."""
    asked = recipe.train.precision
    return asked == "bf16" or (asked == "auto" and recipe.cluster.device == "gpu")


@lru_cache(maxsize=16)
def base_shape(base: str, lora_rank: int) -> ModelShape:
    """Count a base's weights, once for all points that share it."""
    return shape_of(base_config(base), lora_rank)


@lru_cache(maxsize=16)
def reply_count(reference: str | None, split: str) -> int:
    """Count the replies that prompts ask for, one sample of each."""
    rows = read_prompts(reference, split) if reference else []
    return sum(1 + len(row.extra.get("follow_ups", [])) for row in rows)


def arithmetic(cost: Cost, gpu: str | None) -> str:
    """Describe what training alone takes, in GPU hours, or core hours of this machine.

    Args:
        gpu: name of the cluster's GPUs; none where it trains on CPUs.
    """
    if gpu is None:
        speed = core_flops()
        return (
            f"the arithmetic alone is {format_duration(cost.flops / speed)} of one CPU core at "
            f"{speed / 1e9:,.0f} GFLOP/s"
        )
    peak = named_peak(gpu)
    if peak is None:
        return f"no peak of {gpu} is listed"
    share = UTILISATION[False]
    spent = cost.flops / (peak * share) / 3600
    return f"training alone is {spent:,.2f} GPU hours at {share:.0%} of {gpu}'s peak"


def judging_estimates(trainings: Iterable[PreparedTraining], times: int = 1) -> list[Estimate]:
    """Return what judging what is left takes, for each judge behind an endpoint.

    Args:
        times: how often all of it is done, by a searcher that proposes the points.
    """
    totals: dict[str, Estimate] = {}
    for training, prepared in {one.id: (one, inputs) for one, inputs in trainings}.values():
        recipe = prepared.recipe
        if recipe.select.judge != "endpoint" or training.is_measured():
            continue
        parts = list[Estimate]()
        if not training.is_trained():
            dev = dev_prompts(recipe)
            one = estimate_prompts(
                recipe.select.model_dump_json(), dev.reference, dev.split, dev.samples
            )
            parts.append(one.times(kept_epochs(recipe)))
        if not training.by_loss:
            select = compared(recipe, training.compared_with).select.model_dump_json()
            parts.append(estimate_prompts(select, training.prompts, "test", training.samples))
        for part in parts:
            name = part.judge.annotator.name
            totals[name] = totals[name].plus(part) if name in totals else part
    return [total.times(times) for total in totals.values()]


@lru_cache(maxsize=64)
def estimate_prompts(given: str, reference: str, split: str, samples: int) -> Estimate:
    """Estimate what judging replies to prompts takes, once for all points that share them.

    Args:
        given: Select as JSON.
    """
    select = Select.model_validate_json(given)
    replies = assumed_replies(read_prompts(reference, split), samples)
    return estimate(selecting_judge(select), questions(replies, select), [])
