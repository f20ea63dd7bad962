"""The verdict that an annotator's answer to an item becomes, and the key that names it.

    anna = Annotator("anna")
    verdict = record_verdict(item, anna, "A")
    Journal(out / "verdicts.jsonl").append(verdict.to_json())
    latest(read_verdicts(out / "verdicts.jsonl"))    # an answer that was changed counts once

A verdict's `key` is a hash of the question, the annotator with its snapshot, the wording and the
sampling: giving one again replaces it. `extra` holds

    asked       the same without the snapshot, which is not known before a model has answered
    content     hash of what each model said in the dialogue, in the order of `models`
    wording     hash of what everybody is told (`Wording.version`)
    protocol    hash of the form and the sampling with which a model was asked
    lengths     characters of what is judged, in the order of `models`
    annotator_kind, snapshot, contradicts, usage     where there is something to say
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lima_ray.judging.questions.item import Item, Side, digest, item_key, show
from lima_ray.judging.questions.wording import load_wording
from lima_ray.records.verdict import Status, Verdict

AnnotatorKind = Literal["person", "endpoint", "exact"]


@dataclass(frozen=True)
class Annotator:
    """Who judges."""

    name: str
    kind: AnnotatorKind = "person"
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """How a model decodes its judgements."""


def record_verdict(
    item: Item,
    annotator: Annotator,
    choice: object,
    *,
    status: Status = "read",
    explanation: str = "",
    snapshot: str = "",
    **extra: Any,
) -> Verdict:
    """Return the verdict on an item, the same record whoever judges.

    Args:
        choice: one of `load_wording(item.kind).levels`, about the sides as they were shown; none
            where `status` is not `read`.
        explanation: reasoning or comment; the whole answer where it was unreadable.
        snapshot: which version of a model judged, as its server tells it.
        extra: further keys of the line; those without a value are left out.

    Raises:
        UserError: a choice that is not among the levels.
    """
    wording = load_wording(item.kind, item.whole)
    verdict = wording.check(choice) if status == "read" else None
    stopped = [all(reply.stopped for reply in replies) for replies in item.replies]
    asked = question_key(item, annotator)
    told = {
        "asked": asked,
        "content": list(item.content),
        "wording": wording.version,
        "protocol": protocol(item, annotator) if annotator.kind == "endpoint" else "",
        "lengths": [judged_length(show(replies)) for replies in item.replies],
        "annotator_kind": annotator.kind,
        "snapshot": snapshot,
    } | extra
    return Verdict(
        id=item.id,
        kind=item.kind,
        annotator=annotator.name,
        verdict=verdict,
        status=status,
        models=item.models,
        order=item.order if len(item.models) > 1 else (),
        grade=verdict if isinstance(verdict, int) else None,
        explanation=explanation,
        sample=item.sample,
        turn=item.turn,
        stopped=tuple(stopped) if len(stopped) > 1 else stopped[0],
        group=item.replies[0][0].extra.get("group", ""),
        key=digest([asked, snapshot]),
        extra={name: value for name, value in told.items() if value not in (None, "")},
    )


def question_key(item: Item, annotator: Annotator) -> str:
    """Return a hash of all that decides a verdict before it is asked for: not the snapshot."""
    asked = annotator.name, annotator.kind, protocol(item, annotator)
    return digest([item.key, *asked])


def protocol(item: Item, annotator: Annotator) -> str:
    """Return a hash of how an annotator is asked: the words, for a model its form and sampling."""
    wording = load_wording(item.kind, item.whole)
    version = wording.model_version if annotator.kind == "endpoint" else wording.version
    return digest([version, dict(annotator.sampling)])


def judged_item(verdict: Verdict) -> str:
    """Return the key of the item that a verdict is about; empty where it does not tell."""
    content = verdict.extra.get("content", ())
    if len(content) != len(verdict.models) or not content:
        return ""
    about = verdict.kind, verdict.id, verdict.sample, verdict.turn
    return item_key(about, verdict.models, content, verdict.order or range(len(content)))


def judged_length(side: Side) -> int:
    """Return the characters of the replies that are judged."""
    return sum(len(side.turns[place]) for place in side.judged)


def latest(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return verdicts without those that a later one of the same question and annotator replaces.

    The chat page's votes and verdicts of earlier versions count by what they are about.
    """
    return list({_identity(verdict): verdict for verdict in verdicts}.values())


def _identity(verdict: Verdict) -> object:
    if asked := verdict.extra.get("asked"):
        return asked
    if verdict.key:
        return verdict.annotator, verdict.key
    about = verdict.id, verdict.sample, verdict.turn, verdict.models, verdict.order
    return verdict.kind, verdict.annotator, about
