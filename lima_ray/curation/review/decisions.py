"""Decisions: what reviewers said of candidates, and what comes of several.

The journal `decisions.jsonl` only grows. A reviewer's last decision on a candidate stands, and an
`undo` takes it back, so that the one before stands again. `resolve` makes outcomes of all of them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from lima_ray.config.errors import UserError
from lima_ray.records.files import check_keys
from lima_ray.records.journal import Journal

Verdict = Literal["keep", "edit", "drop", "undo"]
JOURNAL = "decisions.jsonl"
NEEDED = ("id", "verdict", "reviewer", "at")
Standing = dict[str, dict[str, list["Decision"]]]
"""Decisions that are not taken back, by candidate and reviewer; the last of each stands."""


@dataclass(frozen=True)
class Decision:
    """What a reviewer said of a candidate."""

    id: str
    """Of the candidate."""
    verdict: Verdict
    reviewer: str
    at: str
    """When, in UTC, such as 2026-11-26T21:08:05.123456+00:00."""
    turns: tuple[str, ...] | None = None
    """The edited turns; none but for an edit."""
    note: str = ""

    @property
    def choice(self) -> tuple[str, tuple[str, ...] | None]:
        """Return what two reviewers who agree have in common."""
        return self.verdict, self.turns

    def to_json(self) -> dict[str, Any]:
        """Return its line of the journal."""
        row = {"id": self.id, "verdict": self.verdict, "reviewer": self.reviewer, "at": self.at}
        edited = {} if self.turns is None else {"turns": list(self.turns)}
        return row | edited | ({"note": self.note} if self.note else {})

    @classmethod
    def from_json(cls, row: dict[str, Any], where: str) -> Self:
        """Read a line of the journal.

        Args:
            row: the line as parsed.
            where: it stands, for the error.

        Raises:
            UserError: it is no decision.
        """
        check_keys(row, NEEDED, where, "decision")
        needed = {key: row[key] for key in NEEDED}
        turns, note = row.get("turns"), row.get("note", "")
        texts = [*needed.values(), note]
        if turns is not None:
            texts += turns if isinstance(turns, list) and turns else [None]
        known = needed["verdict"] in get_args(Verdict)
        if not known or (needed["verdict"] == "edit") != (turns is not None):
            raise UserError(f"{where}: the verdict {needed['verdict']!r} is none, or lacks turns")
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f"{where}: a decision holds texts alone, and turns are a list of them")
        if empty := [n for n, turn in enumerate(turns or (), start=1) if not turn.strip()]:
            raise UserError(
                f"{where}: edited turn {empty[0]} is empty; drop the row, or give it text"
            )
        return cls(**needed, turns=None if turns is None else tuple(turns), note=note)


@dataclass(frozen=True)
class Outcome:
    """What comes of all reviewers' decisions on a candidate."""

    verdict: Literal["keep", "edit", "drop", "undecided"]
    decisions: tuple[Decision, ...]
    """The standing one of each reviewer."""
    turns: tuple[str, ...] | None = None
    """The edited turns, of an edit."""

    @property
    def disagreement(self) -> bool:
        """Whether two reviewers decided differently."""
        return len({decision.choice for decision in self.decisions}) > 1

    def describe(self) -> str:
        """Return who decided what, such as `anna drop, ben keep`."""
        return ", ".join(f"{said.reviewer} {said.verdict}" for said in self.decisions)


def read_decisions(folder: Path) -> list[Decision]:
    """Return the decisions of a review's folder in their order; none where nobody decided.

    A last line that a kill cut off does not count.

    Raises:
        UserError: a line is no decision.
    """
    file = folder / JOURNAL
    rows = enumerate(Journal(file).records(), start=1)
    return [Decision.from_json(row, f"{file}:{number}") for number, row in rows]


def resolve(decisions: Iterable[Decision], lead: str = "") -> dict[str, Outcome]:
    """Return what comes of decisions, by candidate; one that nobody decided is absent.

    First the majority says whether a candidate is in (kept or edited) or dropped; then the majority
    of those who want it in says with which turns. Where reviewers are equally divided, the lead's
    decision stands; without one the candidate is undecided.

    Args:
        decisions: of all reviewers, in their order.
        lead: name of the reviewer who decides ties.
    """
    return {id: outcome_of(by, lead) for id, by in standing(decisions).items()}


def reviewers_of(outcomes: Mapping[str, Outcome]) -> dict[str, int]:
    """Return the reviewers with the number of candidates that each decided on."""
    names = (decision.reviewer for one in outcomes.values() for decision in one.decisions)
    return dict(sorted(Counter(names).items()))


def standing(decisions: Iterable[Decision]) -> Standing:
    """Return the decisions that are not taken back."""
    found: Standing = {}
    for decision in decisions:
        add(found, decision)
    return found


def add(found: Standing, decision: Decision) -> None:
    """Add a decision, or take back the one before where it is an `undo`."""
    by = found.setdefault(decision.id, {})
    own = by.setdefault(decision.reviewer, [])
    if decision.verdict != "undo":
        own.append(decision)
        return
    del own[-1:]
    if not own:
        del by[decision.reviewer]
    if not by:
        del found[decision.id]


def outcome_of(by: dict[str, list[Decision]], lead: str = "") -> Outcome:
    """Return what comes of the decisions on one candidate, by reviewer."""
    votes = tuple(own[-1] for own in by.values())
    head = by[lead][-1] if lead in by else None
    sides = Counter(vote.verdict == "drop" for vote in votes)
    dropped = most_of(sides, head and head.verdict == "drop")
    if dropped is None:
        return Outcome("undecided", votes)
    if dropped:
        return Outcome("drop", votes)
    versions = Counter(vote.choice for vote in votes if vote.verdict != "drop")
    chosen = most_of(versions, head and head.choice)
    if chosen is None:
        return Outcome("undecided", votes)
    return Outcome("keep" if chosen[1] is None else "edit", votes, chosen[1])


def most_of(counts: Counter[Any], tie: Any) -> Any:
    """Return what has most votes; of several the one that `tie` names, else none."""
    most = max(counts.values())
    first = [choice for choice, count in counts.items() if count == most]
    if len(first) == 1:
        return first[0]
    return tie if tie in first else None
