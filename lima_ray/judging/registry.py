"""Who judges replies: the miniature's exact rules, or a model behind an endpoint.

check_prompts(prompts, "data.dev", recipe.select)   # before anything is trained
try_judge(recipe.select)
verdicts = JUDGES[recipe.select.judge].judge(replies, recipe.select)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Select
from lima_ray.judging import grade
from lima_ray.miniature import judge as miniature
from lima_ray.records.example import Example
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict


@dataclass(frozen=True)
class Judge:
    """Who gives verdicts on replies, and how it is known beforehand that it can."""

    judge: Callable[[list[Reply], Select], list[Verdict]]
    """Verdicts on replies, in their order."""
    check_prompts: Callable[[list[Example]], None]
    """Raises `UserError` where it cannot judge replies to these prompts."""
    try_out: Callable[[str, str], None]
    """Given endpoint and model, raises `UserError` where it does not answer."""


def judge_exactly(replies: list[Reply], _: Select) -> list[Verdict]:
    """Verdicts by the miniature's rules."""
    return miniature.judge(replies)


def judge_by_endpoint(replies: list[Reply], select: Select) -> list[Verdict]:
    """Verdicts by a model behind an OpenAI-compatible endpoint."""
    return grade.grade(replies, select.endpoint, select.endpoint_model)


JUDGES = {
    "exact": Judge(judge_exactly, miniature.check, lambda *_: None),
    "endpoint": Judge(judge_by_endpoint, lambda _: None, grade.try_out),
}


def check_prompts(prompts: list[Example], field: str, select: Select) -> None:
    """Refuse prompts that the judge cannot judge replies to.

    Args:
        prompts: what models will be asked.
        field: where they are named, for the error.
        select: with the judge.

    Raises:
        UserError: the first such prompt.
    """
    try:
        JUDGES[select.judge].check_prompts(prompts)
    except UserError as error:
        raise UserError(f"{field}: {error}") from error


def try_judge(select: Select) -> None:
    """Have the judge judge something small.

    Raises:
        UserError: it does not answer, or not with a verdict.
    """
    if select.judge != "none":
        _try_out(select.judge, select.endpoint, select.endpoint_model)


@lru_cache
def _try_out(judge: str, endpoint: str, model: str) -> None:
    """Try a judge out once for all trainings of a sweep; one that failed is tried again."""
    JUDGES[judge].try_out(endpoint, model)
