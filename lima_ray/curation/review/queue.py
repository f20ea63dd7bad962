"""The queue: which candidate a reviewer sees next, and what stands of those decided.

What the selector picked comes first, in its order. Where a picked row is dropped, the next one of
its group takes its place and is to be decided too. A candidate that one window shows is kept from
others for some minutes, so that two reviewers at once see different ones.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lima_ray.curation.candidate import Candidate
from lima_ray.curation.review.decisions import (
    JOURNAL,
    Decision,
    Outcome,
    Standing,
    Verdict,
    add,
    outcome_of,
    read_decisions,
)
from lima_ray.records.journal import Journal

CLAIM_S = 600.0
"""For how long a candidate that is shown is kept from other windows."""
View = Literal["open", "second", "disagreements", "kept", "dropped", "all"]
"""Which candidates a window goes through: those nobody decided, those others decided and this
reviewer did not, those decided differently, and those of an outcome."""


@dataclass(frozen=True)
class ReviewItem:
    """A candidate, and what the selector made of it."""

    candidate: Candidate
    source: str
    """Name of its source in the recipe."""
    picked: bool
    """Whether it is in the dataset unless a reviewer drops it."""
    rank: int
    """Its place in the selector's order, from 1; the first of a group that is not picked takes the
    place of one that is dropped."""


@dataclass(frozen=True)
class Progress:
    """How far the review of a source is, in candidates."""

    asked: int
    kept: int
    dropped: int
    undecided: int
    """Reviewers are equally divided."""
    open: int
    """Nobody decided yet, the next in the place of dropped ones included."""
    disagreements: int

    @property
    def decided(self) -> int:
        """Return how many somebody decided."""
        return self.kept + self.dropped + self.undecided


class ChangedError(Exception):
    """The reviewer decided on this candidate elsewhere since it was shown; nothing was written."""

    def __init__(self, current: Decision | None) -> None:
        super().__init__("decided elsewhere")
        self.current = current


class ReviewQueue:
    """Candidates, their decisions and claims; any thread may call."""

    def __init__(
        self,
        items: Sequence[ReviewItem],
        folder: Path,
        rows: Mapping[str, int] | None = None,
        lead: str = "",
    ) -> None:
        """Take up a review where it stands.

        Args:
            items: candidates of each source.
            folder: of the journal.
            rows: asked of each source; without it as many as are picked.
            lead: name of the reviewer who decides ties.

        Raises:
            UserError: a line of the journal is no decision.
        """
        sources = list(dict.fromkeys(item.source for item in items))
        place = {source: number for number, source in enumerate(sources)}
        ordered = sorted(items, key=lambda i: (place[i.source], not i.picked, i.rank))
        self.items = {item.candidate.id: item for item in ordered}
        self.place = {id: number for number, id in enumerate(self.items)}
        picked = Counter(item.source for item in ordered if item.picked)
        self.places = Counter((i.source, i.candidate.group) for i in ordered if i.picked)
        """Rows that the selector gave each source's groups."""
        self.rows = {source: (rows or {}).get(source, picked[source]) for source in sources}
        self.lead, self.lock = lead, threading.RLock()
        self.claims: dict[str, tuple[str, float]] = {}
        self.journal = Journal(folder / JOURNAL, durable=True)
        self.journal.repair()
        self.standing: Standing = {}
        self.outcomes: dict[str, Outcome] = {}
        self.latest: dict[str, list[str]] = {}
        """Ids that each reviewer decided, in order, for undo."""
        for decision in read_decisions(folder):
            self._take(decision)
        self.running = self._running()

    def decide(
        self,
        id: str,
        verdict: Verdict,
        reviewer: str,
        seen: str = "",
        turns: tuple[str, ...] | None = None,
        note: str = "",
    ) -> Decision:
        """Write a decision to the disk, and return it; one that changes nothing is not written.

        Args:
            id: of the candidate.
            verdict: an edit that leaves the turns as they are is a keep.
            reviewer: their name.
            seen: `at` of the reviewer's decision as it was shown; empty where there was none.
            turns: of an edit.
            note: of the reviewer.

        Raises:
            KeyError: no such candidate.
            ChangedError: the reviewer decided otherwise in another window since.
            OSError: it cannot be written.
        """
        if verdict == "edit" and turns == self.items[id].candidate.turns:
            verdict = "keep"
        if verdict != "edit":
            turns = None
        with self.lock:
            at = datetime.now(UTC).isoformat()
            made = Decision(self.items[id].candidate.id, verdict, reviewer, at, turns, note)
            own = self.own(id, reviewer)
            if own and (own.choice, own.note) == (made.choice, made.note):
                return own
            if (own.at if own else "") != seen:
                raise ChangedError(own)
            self._write(made)
            return made

    def undo(self, reviewer: str) -> str | None:
        """Take the reviewer's last decision back, and return of which candidate; none is left.

        Raises:
            OSError: it cannot be written.
        """
        with self.lock:
            known = [id for id in self.latest.get(reviewer, []) if id in self.items]
            if not known:
                return None
            self._write(Decision(known[-1], "undo", reviewer, datetime.now(UTC).isoformat()))
            return known[-1]

    def own(self, id: str, reviewer: str) -> Decision | None:
        """Return a reviewer's standing decision."""
        decisions = self.standing.get(id, {}).get(reviewer)
        return decisions[-1] if decisions else None

    def claim(self, id: str | None, window: str) -> None:
        """Keep a candidate from other windows, and let go of what this one showed before."""
        with self.lock:
            self.claims = {i: held for i, held in self.claims.items() if held[0] != window}
            if id is not None and not self._claimed(id, window):
                self.claims[id] = (window, time.monotonic() + CLAIM_S)

    def next(
        self,
        window: str,
        reviewer: str,
        view: View = "open",
        source: str = "",
        skipped: Sequence[str] = (),
    ) -> str | None:
        """Return the next candidate of nobody, and claim it.

        Skipped ones come after the others, the longest skipped first, and what other windows show
        comes last.
        """
        with self.lock:
            late = {id: number for number, id in enumerate(skipped, start=1)}
            found = min(
                self.ids(view, reviewer, source),
                key=lambda id: (self._claimed(id, window), late.get(id, 0), self.place[id]),
                default=None,
            )
            self.claim(found, window)
            return found

    def ids(self, view: View, reviewer: str, source: str = "") -> list[str]:
        """Return the candidates of a view, in order."""
        ids = sorted(self.outcomes.keys() & self.items.keys(), key=self.place.__getitem__)
        if view in ("open", "all"):
            ids = list(self.items)
        return [
            id
            for id in ids
            if (not source or self.items[id].source == source) and self._in_view(id, view, reviewer)
        ]

    def progress(self) -> dict[str, Progress]:
        """Return how far the review of each source is."""
        with self.lock:
            counts = {source: Counter[str]() for source in self.rows}
            for id, outcome in self.outcomes.items():
                if id in self.items:
                    count = counts[self.items[id].source]
                    count[outcome.verdict] += 1
                    count["disagreements"] += outcome.disagreement
            for id in self.running - self.outcomes.keys():
                counts[self.items[id].source]["open"] += 1
            return {
                source: Progress(
                    self.rows[source],
                    count["keep"] + count["edit"],
                    count["drop"],
                    count["undecided"],
                    count["open"],
                    count["disagreements"],
                )
                for source, count in counts.items()
            }

    def _in_view(self, id: str, view: View, reviewer: str) -> bool:
        outcome = self.outcomes.get(id)
        if view == "all" or outcome is None:
            return view == "all" or (view == "open" and id in self.running)
        return {
            "open": False,
            "second": reviewer not in self.standing[id],
            "disagreements": outcome.disagreement,
            "kept": outcome.verdict in ("keep", "edit"),
            "dropped": outcome.verdict == "drop",
        }[view]

    def _claimed(self, id: str, window: str) -> bool:
        held = self.claims.get(id)
        return held is not None and held[0] != window and held[1] > time.monotonic()

    def _write(self, decision: Decision) -> None:
        self.journal.append(decision.to_json())
        self._take(decision)
        self.running = self._running()

    def _take(self, decision: Decision) -> None:
        add(self.standing, decision)
        ids = self.latest.setdefault(decision.reviewer, [])
        if decision.verdict != "undo":
            ids.append(decision.id)
        elif decision.id in ids:
            del ids[len(ids) - 1 - ids[::-1].index(decision.id)]
        by = self.standing.get(decision.id)
        if by:
            self.outcomes[decision.id] = outcome_of(by, self.lead)
        else:
            self.outcomes.pop(decision.id, None)

    def _running(self) -> set[str]:
        """Return the candidates that the dataset has now.

        As in the dataset, the next of the same group takes the place of one that is dropped, and
        where the group has no more, the next of the source.
        """
        left, running, later = dict(self.rows), set[str](), list[ReviewItem]()
        places = self.places.copy()
        for id, item in self.items.items():
            outcome = self.outcomes.get(id)
            if outcome and outcome.verdict == "drop":
                continue
            group = item.source, item.candidate.group
            if places[group] <= 0:
                later.append(item)
                continue
            places[group] -= 1
            left[item.source] -= 1
            running.add(id)
        for item in later:
            if left[item.source] > 0:
                left[item.source] -= 1
                running.add(item.candidate.id)
        return running
