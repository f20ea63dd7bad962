"""Records of Argilla: `DatasetRecords.from_json` reads what is written, `to_json` what is read.

Fields are the parts of `material`; the questions are `verdict` (labels, for grades a rating) and
`comment` (text). People's verdicts are responses, a model's is the suggestion.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from lima_ray.config.errors import UserError
from lima_ray.judging.forms.tasks import KnownItems, is_person, verdicts_by_item
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.wording import material
from lima_ray.records.verdict import Verdict


def write_records(items: Sequence[Item], verdicts: Iterable[Verdict] = ()) -> list[dict[str, Any]]:
    """Return a record for each item, which names no model, with the verdicts that there are."""
    known = verdicts_by_item(items, verdicts)
    return [_record(item, known.get(item.key, [])) for item in items]


def _record(item: Item, verdicts: list[Verdict]) -> dict[str, Any]:
    people = [one for one in verdicts if is_person(one)]
    judges = [one for one in verdicts if not is_person(one)]
    responses: dict[str, list[dict[str, Any]]] = {}
    for one in people:
        user = user_id(one.annotator)
        responses.setdefault("verdict", []).append({"value": one.verdict, "user_id": user})
        if one.explanation:
            responses.setdefault("comment", []).append({"value": one.explanation, "user_id": user})
    suggestions = {}
    if judges:  # a question has one
        last = judges[-1]
        suggestions["verdict"] = {"value": last.verdict, "score": None, "agent": last.annotator}
    return {
        "id": item.key,
        "status": "completed" if people else "pending",
        "fields": material(item),
        # Users are ids there, so their names are kept beside.
        "metadata": {"annotators": [one.annotator for one in people]} if people else {},
        "suggestions": suggestions,
        "responses": responses,
        "vectors": {},
    }


def read_records(rows: Sequence[Any], items: Sequence[Item], where: str) -> list[Verdict]:
    """Return people's responses as verdicts.

    Args:
        items: with the replies that the records were made of, in the same orders.
        where: names the file in messages.

    Raises:
        UserError: a record of another item, or a value that is no verdict.
    """
    known, found = KnownItems(items), []
    for number, row in enumerate(rows):
        place = f"{where}[{number}]"
        try:
            responses = row.get("responses") or {}
            comments = {one["user_id"]: one["value"] for one in responses.get("comment") or []}
            given = [(one["user_id"], one["value"]) for one in responses.get("verdict") or []]
            names = (row.get("metadata") or {}).get("annotators") or []
            names = {user_id(name): name for name in names}
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{place} is no record of Argilla: {error!r}") from error
        if given:
            said = [(names.get(str(u), str(u)), value, comments.get(u) or "") for u, value in given]
            found += known.record(row.get("id"), said, place)
    return found


def user_id(annotator: str) -> str:
    """Return an id of Argilla's form for a name, the same every time."""
    return str(uuid5(NAMESPACE_URL, f"lima_ray/annotator/{annotator}"))
