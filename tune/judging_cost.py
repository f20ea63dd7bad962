"""What a sweep's judges will be asked: calls, tokens and money, told before anything is trained."""

from collections.abc import Iterable
from functools import lru_cache

from lima_ray.config.sections import Select
from lima_ray.data.examples import read_prompts
from lima_ray.judging.asking.budget import Estimate, estimate
from lima_ray.judging.asking.forecast import assumed_replies
from lima_ray.judging.asking.judges import selecting_judge
from lima_ray.judging.assessment import dev_prompts
from lima_ray.judging.endpoint import questions
from tune.measurement import compared
from tune.training import PreparedTraining


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
            first = min(recipe.checkpoint.weights_from_epoch, recipe.optim.epochs)
            dev = dev_prompts(recipe)
            one = estimate_prompts(
                recipe.select.model_dump_json(), dev.reference, dev.split, dev.samples
            )
            parts.append(one.times(recipe.optim.epochs - first + 1))
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
