"""The verdict of a judge on a model's reply, or of two models' replies: a line of `verdicts.jsonl`.

The exact judge, a model behind an endpoint, and people on the chat page all write this record.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lima_ray.records.files import build_record, check_keys, read_jsonl

Kind = Literal["audit", "grade", "pairwise", "safety", "thumbs", "loss"]
Status = Literal["read", "unreadable", "unanswered"]
NEEDED = ("id", "kind", "annotator", "verdict")
EARLIER_INVALID = "invalid"
EARLIER_NO_ANSWER = "no answer: "
"""How verdicts and explanations of earlier versions tell that there is no verdict."""


@dataclass(frozen=True)
class Verdict:
    id: str
    """Of the prompt; for the chat page's see `prompt_id`."""
    kind: Kind
    """`audit` says excellent, pass or fail; `grade` a number from 1 to 6; `pairwise` A, B or
    neither; `safety` safe or unsafe; `thumbs` up or down; `loss` is measured, of a
    held-out dialogue, in nats a token."""
    annotator: str
    """Who judges: a person's name, a model's, or `exact`."""
    verdict: str | float | None
    """The verdict itself; none where it was not read."""
    status: Status = "read"
    """`unreadable` where the judge's answer holds no verdict, `unanswered` where none came. Such a
    verdict is counted, and is neither a tie nor a grade."""
    models: tuple[str, ...] = ()
    """Who is judged."""
    order: tuple[int, ...] = ()
    """In which models were shown: `models[order[0]]` as A."""
    grade: float | None = None
    """1 to 6, of an audit and of a grade that was read."""
    explanation: str = ""
    """The judge's reasoning, its whole answer if unreadable, or why there was none."""
    sample: int | None = None
    turn: int | None = None
    stopped: bool | tuple[bool, ...] | None = None
    """Whether EOT ended the reply; of several, each."""
    group: str = ""
    """Where the prompt belongs."""
    key: str = ""
    """Names the verdict itself where it can be changed or taken back."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Other keys of the line, such as what the exact judge found and the texts of a vote."""

    @property
    def was_read(self) -> bool:
        return self.status == "read"

    def to_json(self) -> dict[str, Any]:
        """Return its line of `verdicts.jsonl`; what holds nothing is absent, but `verdict`."""
        row = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if name == "verdict" or (name != "extra" and value not in (None, "", ()))
        }
        return row | self.extra

    @classmethod
    def from_json(cls, row: dict[str, Any], where: str) -> "Verdict":
        """Read a line, of any version; a `UserError` tells what is wrong `where`."""
        check_keys(row, NEEDED, where, "verdict")
        return build_record(cls, row if "status" in row else _upgrade(row))


def _upgrade(row: dict[str, Any]) -> dict[str, Any]:
    """Return a line of a version without `status` as it is written today."""
    said, now = row.get("explanation", ""), row | {"status": "read"}
    if row["verdict"] == EARLIER_INVALID:
        status = "unanswered" if said.startswith(EARLIER_NO_ANSWER) else "unreadable"
        explanation = said.removeprefix(EARLIER_NO_ANSWER)
        now |= {"verdict": None, "status": status, "explanation": explanation}
    elif row["kind"] == "grade":
        now["grade"] = row["verdict"]
    if row["kind"] in ("thumbs", "pairwise"):  # whose id named the verdict
        prompt = prompt_id(row.get("conversations", ()), row.get("system"))
        now |= {"key": row["id"], "id": prompt}
    return now


def prompt_id(conversations: Sequence[str], system: str | None) -> str:
    """Return the id of a prompt that no file names: the same for the same turns, whoever asks."""
    text = json.dumps([system or "", *conversations])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_verdicts(file: Path) -> list[Verdict]:
    """Read a `verdicts.jsonl`, in its order; refuse a line that is no verdict."""
    return [Verdict.from_json(row, where) for row, where in read_jsonl(file)]
