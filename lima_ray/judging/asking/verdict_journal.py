"""The journal of a study's verdicts, by what was asked: each is paid for and kept once.

with VerdictJournal(out / "verdicts.jsonl") as journal:
    journal.check(items)
    journal.add(record_verdict(item, annotator, "A"))
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from lima_ray.config.errors import SHOWN_ERRORS, UserError, join_names
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.verdicts import Annotator, latest, question_key
from lima_ray.records.files import acquire_lock, explain_write_errors
from lima_ray.records.journal import Journal
from lima_ray.records.verdict import Status, Verdict


class VerdictJournal(AbstractContextManager["VerdictJournal"]):
    """Verdicts in a file, locked while the context lasts."""

    def __init__(self, file: Path, place: str = "--out") -> None:
        """Name the file; `place` is what the caller calls its place, for messages."""
        self.file, self.place = file, place
        self.journal = Journal(file)
        self.by_question: dict[str, Verdict] = {}

    def __enter__(self) -> "VerdictJournal":
        with explain_write_errors(self.file, self.place):
            busy = f"another process is writing to {self.file}; wait for it"
            self.lock = acquire_lock(self.file.with_name(f".{self.file.name}.lock"), busy)
            self.journal.repair()
        self.load()
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def load(self) -> None:
        """Read what stands in the file, without a lock for those who only look."""
        self.by_question.clear()
        for verdict in latest(read_journal(self.file)):
            self._keep(verdict)

    @property
    def verdicts(self) -> list[Verdict]:
        return list(self.by_question.values())

    def check(self, items: Iterable[Item]) -> None:
        """Refuse to judge other replies under a model's name than the verdicts here are about."""
        if told := other_replies(self.verdicts, items):
            raise UserError(
                f"{self.file} holds verdicts on other replies of {told}; give the model another "
                "name (NAME=PATH), or the verdicts an --out of their own"
            )

    def open_questions(
        self, items: Iterable[Item], annotator: Annotator, again: Sequence[Status]
    ) -> list[Item]:
        """Return the items that an annotator has not judged.

        Args:
            again: statuses of verdicts that do not count, so that their question is asked again.
        """
        done = {key for key, one in self.by_question.items() if one.status not in again}
        return [item for item in items if question_key(item, annotator) not in done]

    def add(self, verdict: Verdict) -> None:
        """Write a verdict so that it survives a kill."""
        with explain_write_errors(self.file, self.place):
            self.journal.append(verdict.to_json())
        self._keep(verdict)

    def find(self, item: Item, annotator: Annotator) -> Verdict | None:
        """Return an annotator's verdict on an item; none where there is none yet."""
        return self.by_question.get(question_key(item, annotator))

    def _keep(self, verdict: Verdict) -> None:
        # Votes and imported verdicts say nothing of what was asked.
        self.by_question[verdict.extra.get("asked") or f"other {len(self.by_question)}"] = verdict


def other_replies(verdicts: Iterable[Verdict], items: Iterable[Item]) -> str:
    """Return the models, and on which prompts, whose replies in verdicts are not those of items."""
    contents: dict[object, str] = {}
    for verdict in verdicts:
        for model, content in zip(verdict.models, verdict.extra.get("content", []), strict=False):
            contents[model, verdict.id, verdict.sample, verdict.turn] = content
    changed: dict[str, set[str]] = {}
    for item in items:
        for model, content in zip(item.models, item.content, strict=True):
            place = model, item.id, item.sample, item.turn
            if contents.get(place, content) != content:
                changed.setdefault(model, set()).add(item.id)
    return "; ".join(
        f"{model} on {join_names(sorted(ids), SHOWN_ERRORS)}" for model, ids in changed.items()
    )


def read_journal(file: Path) -> list[Verdict]:
    """Return all whole records, the earlier ones that a later one replaces among them."""
    rows = enumerate(Journal(file).records(), start=1)
    return [Verdict.from_json(row, f"{file}:{number}") for number, row in rows]
