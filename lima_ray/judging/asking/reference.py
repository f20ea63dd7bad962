"""Replies that others are compared with: `select.reference`, and `reference` of a sweep.

replies = read_reference("replies/other", asked)          # one for each that is compared
check_reference(select, prompts, samples, "data.dev")     # before anything is trained
"""

from collections.abc import Iterable, Iterator, Sequence

from lima_ray.config.errors import SHOWN_ERRORS, UserError, join_names
from lima_ray.config.sections import Sampling, Select
from lima_ray.generation.scripts import Script
from lima_ray.judging.asking.judges import selecting_judge
from lima_ray.judging.asking.relatives import check_not_judged, find_judged
from lima_ray.judging.questions.design import (
    check_same_prompts,
    describe_place,
    design_items,
    group,
)
from lima_ray.judging.questions.item import Item, digest
from lima_ray.judging.questions.replies import asked as prompt_of
from lima_ray.judging.questions.replies import read_models
from lima_ray.records.example import Example
from lima_ray.records.reply import Reply

REFERENCE = "the reference"
"""What verdicts call it; no run can have this name."""


def read_reference(path: str, asked: Sequence[Reply]) -> list[Reply]:
    """Return the reference's reply in the place of each of these replies.

    Raises:
        UserError: no replies there, some are missing (named), or they answer other prompts.
    """
    prompts = {reply.id: prompt_of(reply) for reply in asked if reply.turn == 0}
    named = f"{REFERENCE}={path}"
    (replies,) = read_models([named], list(prompts.values()), others="keep").values()
    there, places = group(replies, whole=False), group(asked, whole=False)
    if lacking := [describe_place(place) for place in places if place not in there]:
        raise UserError(
            f"the reference {path} lacks {len(lacking)} of {len(places)} replies: "
            f"{join_names(lacking, SHOWN_ERRORS)}; each prompt and sample is compared with its own "
            "(python -m lima_ray.generate MODEL PROMPTS --samples N)"
        )
    check_same_prompts({REFERENCE: there, "the prompts": places}, list(places))
    return [there[place][0] for place in places]


def pair(replies: Sequence[Reply], reference: Sequence[Reply]) -> list[Item]:
    """Return the questions whether replies are better than the reference's, in both orders."""
    return design_items("pairwise", {replies[0].model: replies, REFERENCE: reference})


def hash_reference(path: str, asked: Iterable[Reply]) -> str:
    """Return a hash of what a reference says in the place of each of these replies."""
    return digest([reply.reply for reply in read_reference(path, list(asked))])


def expected_replies(prompts: Iterable[Example], samples: int, text: str = "") -> Iterator[Reply]:
    """Yield a reply of this text wherever a model will reply."""
    for script in (Script(row, sample) for row in prompts for sample in range(samples)):
        while not script.finished:
            yield script.record_reply(text, Sampling(), "", stopped=True, n_tokens=None)


def check_reference(select: Select, prompts: Sequence[Example], samples: int, field: str) -> None:
    """Refuse a reference that lacks replies to prompts, or whose model would be the judge.

    Args:
        field: where the prompts are named, for messages.
    """
    check_compared(select)
    if not select.reference:
        return
    try:
        replies = read_reference(select.reference, list(expected_replies(prompts, samples)))
    except UserError as error:
        raise UserError(f"{field}: {error}") from error
    judged = find_judged([select.reference], {REFERENCE: replies})
    check_not_judged([selecting_judge(select)], judged, way_out="")


def check_compared(select: Select) -> None:
    """Refuse a reference without a model that compares with it."""
    if select.reference and select.judge != "endpoint":
        raise UserError(
            f"replies are compared with a reference ({select.reference}) by a model behind an "
            f"endpoint, and select.judge is {select.judge}: --select.judge endpoint with "
            "--select.endpoint and --select.endpoint_model, or no reference"
        )
