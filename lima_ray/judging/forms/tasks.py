"""What the forms of annotation tools share: items by key, and the verdicts on them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from lima_ray.config.errors import UserError
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.verdicts import Annotator, judged_item, latest, record_verdict
from lima_ray.records.verdict import Verdict

PERSON = "person"


def verdicts_by_item(
    items: Sequence[Item], verdicts: Iterable[Verdict]
) -> dict[str, list[Verdict]]:
    """Return the read verdicts on each item, by its key; others are left out."""
    keys = {item.key for item in items}
    found: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in latest(verdicts):
        if verdict.was_read and (key := judged_item(verdict)) in keys:
            found[key].append(verdict)
    return found


def is_person(verdict: Verdict) -> bool:
    return verdict.extra.get("annotator_kind", PERSON) == PERSON


class KnownItems:
    """Items by the key that a task of theirs carries."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.by_key = {item.key: item for item in items}

    def find(self, key: object, where: str) -> Item:
        """Return the item of a task; refuse one that these replies do not make."""
        if item := self.by_key.get(str(key)):
            return item
        raise UserError(
            f"{where} is about {key!r}, no question on these replies; give the models, kind and "
            "orders that the tasks were written with, and the same replies"
        )

    def record(
        self, key: object, given: Iterable[tuple[str, object, str]], where: str
    ) -> list[Verdict]:
        """Return the verdicts that people gave on the item of a task.

        Args:
            given: annotator, choice and comment of each.
            where: names the task in messages.

        Raises:
            UserError: a task of another item, or a choice that is no verdict.
        """
        item = self.find(key, where)
        try:
            return [
                record_verdict(item, Annotator(name), choice, explanation=comment)
                for name, choice, comment in given
            ]
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
