"""Training rows for a judge of one's own: what a model judge is sent, and what it should answer."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from lima_ray.judging.forms.tasks import verdicts_by_item
from lima_ray.judging.questions.item import Item, digest
from lima_ray.judging.questions.wording import load_wording
from lima_ray.records.example import Example
from lima_ray.records.verdict import Verdict


def write_judge_rows(
    items: Sequence[Item], verdicts: Iterable[Verdict], balanced: bool = False, seed: int = 0
) -> list[Example]:
    """Return a dialogue for each verdict that was read: the question, and reasoning with verdict.

    An explanation or comment stands for the reasoning; without one the verdict stands alone.

    Args:
        balanced: as many of each outcome, drawn by the seed: a win of either model and a tie, or
            each label of single replies.
    """
    known = verdicts_by_item(items, verdicts)
    pairs = [(item, verdict) for item in items for verdict in known.get(item.key, [])]
    if balanced:
        pairs = balance(pairs, seed)
    return [_row(item, verdict) for item, verdict in pairs]


def balance(pairs: Sequence[tuple[Item, Verdict]], seed: int) -> list[tuple[Item, Verdict]]:
    """Return as many pairs of each outcome as its rarest has, of the same models."""
    by_models: dict[object, dict[object, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, (item, verdict) in enumerate(pairs):
        sides = dict(zip("AB", item.order, strict=False)) if len(item.models) > 1 else {}
        outcome = sides.get(str(verdict.verdict), verdict.verdict)
        by_models[item.models][outcome].append(place)
    kept: set[int] = set()
    for outcomes in by_models.values():
        fewest = min(map(len, outcomes.values()))
        for places in outcomes.values():
            kept |= set(sorted(places, key=lambda place: digest([seed, place]))[:fewest])
    return [pair for place, pair in enumerate(pairs) if place in kept]


def _row(item: Item, verdict: Verdict) -> Example:
    prompt = load_wording(item.kind, item.whole).prompt(item)
    answer = "\n".join(filter(None, [verdict.explanation.strip(), str(verdict.verdict)]))
    id = f"{item.key}-{verdict.annotator}"
    return Example((prompt, answer), source=verdict.annotator, id=id)
