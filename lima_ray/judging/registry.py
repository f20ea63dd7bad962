"""Who judges replies: the miniature's exact rules, or a model behind an endpoint.

check_prompts(prompts, "data.dev", recipe.select)   # before anything is trained
check_judge_answers(recipe.select)
verdicts = load_judge(recipe.select.judge).judge(replies, recipe.select, journal_file)
verdict = decide_exactly(item)
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Metric, Select
from lima_ray.judging.questions.item import Item
from lima_ray.records.example import Example
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict


@dataclass(frozen=True)
class Judge:
    """Who gives verdicts on replies, and how it is known beforehand that it can."""

    judge: Callable[[list[Reply], Select, Path], list[Verdict]]
    """Verdicts on replies, in their order; a judge that is paid keeps them in the journal too."""
    check_prompts: Callable[[list[Example]], None]
    """Raises `UserError` where it cannot judge replies to these prompts."""
    check_answers: Callable[[str, str, Metric], None]
    """Given endpoint, model and metric, raises `UserError` where it does not answer."""
    decide: Callable[[Item], Verdict] | None = None
    """The verdict of rules on an item of any kind; none where a model is asked."""


JUDGES = {
    "exact": "lima_ray.miniature.judge:JUDGE",
    "endpoint": "lima_ray.judging.endpoint:JUDGE",
}
"""Where each judge stands, by the name that `select.judge` has for it."""


def load_judge(name: str) -> Judge:
    module, _, attribute = JUDGES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def decide_exactly(item: Item) -> Verdict:
    """Return the exact judge's verdict on an item."""
    decide = load_judge("exact").decide
    assert decide
    return decide(item)


def check_prompts(prompts: list[Example], field: str, select: Select) -> None:
    """Refuse prompts that the judge cannot judge replies to."""
    try:
        load_judge(select.judge).check_prompts(prompts)
    except UserError as error:
        raise UserError(f"{field}: {error}") from error


def check_judge_answers(select: Select) -> None:
    """Refuse a judge that gives no verdict on something small."""
    if select.judge != "none":
        _check_answers(select.judge, select.endpoint, select.endpoint_model, select.metric)


@lru_cache
def _check_answers(judge: str, endpoint: str, model: str, metric: Metric) -> None:
    """Check a judge once for all trainings of a sweep; one that failed is checked again."""
    load_judge(judge).check_answers(endpoint, model, metric)
