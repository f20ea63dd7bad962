"""A browser window of the review: what it shows, what it showed, and what comes next."""

from dataclasses import dataclass, field, replace
from typing import get_args

from lima_ray.curation.review.decisions import Decision
from lima_ray.curation.review.queue import ReviewQueue, View
from lima_ray.web.annotation.place import Place

VIEWS: dict[str, View] = {
    "To decide": "open",
    "Second opinion": "second",
    "Disagreements": "disagreements",
    "Kept": "kept",
    "Dropped": "dropped",
    "All": "all",
}


@dataclass(frozen=True)
class ReviewPlace(Place):
    """The candidate that a window shows, and by which filters."""

    id: str = ""
    """Of the candidate; empty where none is left."""
    seen: str = ""
    """`at` of the reviewer's decision as shown."""
    source: str = ""
    """Filter, a source's name; empty for all."""
    view: View = "open"
    saved: str = ""
    """Candidate of which a decision was just saved, so that its draft has no more use."""
    serial: int = 0
    """Number of the answer, for which the browser waits."""

    @property
    def fits(self) -> bool:
        texts = (self.id, self.seen, self.source, self.saved)
        strings = all(isinstance(one, str) for one in texts)
        return strings and isinstance(self.serial, int) and self.view in get_args(View)


@dataclass
class Window:
    """A window."""

    queue: ReviewQueue
    name: str
    """Gradio's name of it."""
    owner: str
    """Of its session."""
    reviewer: str
    place: ReviewPlace = field(default_factory=ReviewPlace)
    trail: list[str] = field(default_factory=list)
    """Candidates shown, in order."""
    at: int = -1
    """ReviewPlace in the trail."""
    skipped: list[str] = field(default_factory=list)
    notice: str = ""

    @property
    def own(self) -> Decision | None:
        """Return the reviewer's decision on what is shown."""
        return self.queue.own(self.place.id, self.reviewer)

    def edit_shown(self) -> Decision | None:
        """Return the edit that is shown: the reviewer's own, or of kept ones the outcome's."""
        outcome = self.queue.outcomes.get(self.place.id)
        if self.own is not None:
            return self.own if self.own.turns else None
        if self.place.view != "kept" or outcome is None or outcome.verdict != "edit":
            return None
        return next(d for d in outcome.decisions if d.turns == outcome.turns)

    def edit_to_begin_with(self) -> Decision | None:
        """Return the edit that the text areas hold: the one shown, else the last that others made.

        An edit of others is theirs alone until the reviewer has decided.
        """
        outcome = self.queue.outcomes.get(self.place.id)
        if (shown := self.edit_shown()) or not outcome:
            return shown
        if self.own is None and not outcome.disagreement:
            return None
        edits = [decision for decision in outcome.decisions if decision.turns]
        return max(edits, key=lambda decision: decision.at, default=None)

    def choose(self, view: str, source: str) -> None:
        """Take up another view and source, where there are such."""
        known: View = next((one for one in get_args(View) if one == view), "open")
        fits = source if source in self.queue.rows else ""
        self.place = replace(self.place, view=known, source=fits)

    def begin(self, id: str = "") -> None:
        """Show a candidate, or the first of the view."""
        self.trail, self.at = [], -1
        if id in self.queue.items:
            self.show_new(id)
        else:
            self.forward()

    def show_new(self, id: str | None) -> None:
        """Show a candidate behind those of the trail; none says that none is left."""
        if id is not None and self.trail[-1:] != [id]:
            self.trail.append(id)
        self.at = len(self.trail) - 1
        self.show(id)

    def show(self, id: str | None, saved: str = "") -> None:
        """Show a candidate, which others then do not see first."""
        self.queue.claim(id, self.name)
        own = self.queue.own(id or "", self.reviewer)
        self.place = replace(
            self.place,
            id=id or "",
            seen=own.at if own else "",
            saved=saved,
        )

    def forward(self) -> None:
        """Go on: in the trail, and at its end to the next candidate of the view."""
        if self.place.id and self.at < len(self.trail) - 1:
            self.at += 1
            self.show(self.trail[self.at])
            return
        view, source = self.place.view, self.place.source
        if view == "open":
            found = self.queue.next(self.name, self.reviewer, view, source, self.skipped)
        else:
            here = self.queue.place.get(self.place.id, -1) if self.trail else -1
            later = self.queue.ids(view, self.reviewer, source)
            found = next((id for id in later if self.queue.place[id] > here), None)
        self.show_new(found)

    def skip(self) -> None:
        """Leave a candidate for later."""
        here = self.place.id
        if here and self.place.view == "open" and self.at == len(self.trail) - 1:
            self.skipped = [id for id in self.skipped if id != here] + [here]
        self.forward()
        if here and self.place.id == here:
            self.notice = "No other candidate is left to decide here."

    def back(self) -> None:
        """Return to the candidate shown before, or to the one before in the order of the view."""
        if not self.place.id and self.trail:
            self.show(self.trail[self.at])
        elif self.at > 0:
            self.at -= 1
            self.show(self.trail[self.at])
        else:
            here = self.queue.place.get(self.place.id, 0)
            before = self.queue.ids(self.place.view, self.reviewer, self.place.source)
            ids = [id for id in before if self.queue.place[id] < here]
            if ids:
                self.trail.insert(0, ids[-1])
                self.at = 0
                self.show(ids[-1])
            else:
                self.notice = "This is the first one."
                self.show(self.place.id or None)

    def go_to(self, id: str, notice: str = "") -> None:
        """Return to a candidate of which something changed."""
        self.notice = notice
        if id in self.trail:
            self.at = len(self.trail) - 1 - self.trail[::-1].index(id)
            self.show(id)
        else:
            self.show_new(id)
