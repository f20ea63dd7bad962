"""Tasks of Label Studio, with annotations and predictions, and the labelling configuration.

People's verdicts are annotations, models' are predictions. Read are annotations with our
configuration's choices, and those of a `<Pairwise>` or `<Rating>` tag.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from lima_ray.config.errors import UserError
from lima_ray.judging.forms.tasks import KnownItems, is_person, verdicts_by_item
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.wording import load_wording, material
from lima_ray.records.verdict import Verdict

SIDES = {"left": "A", "right": "B"}


def write_configuration(items: Sequence[Item]) -> str:
    """Return the labelling configuration for items of one kind, with the instructions of ours."""
    kind, whole = items[0].kind, items[0].whole
    wording, names = load_wording(kind, whole), _fields(items)
    lines = ["<View>", f"  <Header value={quoteattr(wording.instructions)}/>"]
    for name in names:
        lines.append(f"  <Header value={quoteattr(name.replace('_', ' '))}/>")
        lines.append(f'  <Text name="{name}" value="${name}"/>')
    lines.append(f'  <Choices name="verdict" toName="{names[0]}" choice="single" required="true">')
    for name, text in wording.levels.items():
        shown = f"{name}: {text}"
        lines.append(f"    <Choice value={quoteattr(shown)} alias={quoteattr(name)}/>")
    lines += ["  </Choices>", f'  <TextArea name="comment" toName="{names[0]}"/>', "</View>"]
    return "\n".join(lines) + "\n"


def _fields(items: Sequence[Item]) -> list[str]:
    """Return the names of all parts that items have; one without a part has it empty."""
    return list(dict.fromkeys(name for item in items for name in material(item)))


def write_tasks(items: Sequence[Item], verdicts: Iterable[Verdict] = ()) -> list[dict[str, Any]]:
    """Return a task for each item, which names no model, with the verdicts that there are."""
    known, names = verdicts_by_item(items, verdicts), _fields(items)
    tasks = []
    for item in items:
        data = dict.fromkeys(names, "") | material(item) | {"key": item.key}
        given = known.get(item.key, [])
        annotations = [
            {"completed_by": {"email": one.annotator}, "result": _result(one, names[0])}
            for one in given
            if is_person(one)
        ]
        predictions = [
            {"model_version": one.annotator, "result": _result(one, names[0])}
            for one in given
            if not is_person(one)
        ]
        tasks.append({"data": data, "annotations": annotations, "predictions": predictions})
    return tasks


def _result(verdict: Verdict, to_name: str) -> list[dict[str, Any]]:
    chosen = {"choices": [str(verdict.verdict)]}
    parts = [{"from_name": "verdict", "type": "choices", "value": chosen}]
    if verdict.explanation:
        said = {"text": [verdict.explanation]}
        parts.append({"from_name": "comment", "type": "textarea", "value": said})
    return [{"to_name": to_name} | part for part in parts]


def read_tasks(rows: Sequence[Any], items: Sequence[Item], where: str) -> list[Verdict]:
    """Return people's annotations as verdicts; cancelled ones are none.

    Args:
        items: with the replies that the tasks were made of, in the same orders.
        where: names the file in messages.

    Raises:
        UserError: a task of another item, or an annotation that is no verdict.
    """
    known, found = KnownItems(items), []
    for number, row in enumerate(rows):
        place = f"{where}[{number}]"
        try:
            given = [
                (_name(one), _choice(one["result"], place), _comment(one["result"]))
                for one in row.get("annotations") or []
                if not one.get("was_cancelled")
            ]
            key = row["data"].get("key")
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise UserError(f"{place} is no task of Label Studio: {error!r}") from error
        if given:
            found += known.record(key, given, place)
    return found


def _name(annotation: dict[str, Any]) -> str:
    by = annotation.get("completed_by")
    return str(by.get("email") or by["id"]) if isinstance(by, dict) else f"user {by}"


def _choice(result: list[dict[str, Any]], place: str) -> object:
    for one in result:
        value = one["value"]
        if one["type"] == "choices":
            return value["choices"][0]
        if one["type"] == "pairwise":
            return SIDES.get(value["selected"], value["selected"])
        if one["type"] == "rating":
            return value["rating"]
    raise UserError(f"{place} has an annotation without a choice; give it a verdict, or cancel it")


def _comment(result: list[dict[str, Any]]) -> str:
    said = [one["value"]["text"] for one in result if one["type"] == "textarea"]
    return "\n".join(t for one in said for t in ([one] if isinstance(one, str) else one))
