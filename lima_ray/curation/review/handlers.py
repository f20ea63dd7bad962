"""What each click of the review page does; each returns the window to be drawn."""

from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace

import gradio as gr

from lima_ray.curation.review.decisions import Decision, Verdict
from lima_ray.curation.review.queue import ChangedError, ReviewQueue
from lima_ray.curation.review.rendering import SAID
from lima_ray.curation.review.window import ReviewPlace, Window
from lima_ray.web.annotation.names import NamedSessionStore, NamePrompt
from lima_ray.web.annotation.rendering import clean
from lima_ray.web.database import DatabaseError
from lima_ray.web.sessions import Session

MAX_WINDOWS = 10_000
MAX_NOTE_CHARACTERS = 1000


class ReviewHandlers:
    """Answers the events of the page."""

    def __init__(self, queue: ReviewQueue, store: NamedSessionStore) -> None:
        self.queue, self.names = queue, NamePrompt(store, "decisions")
        self.windows: OrderedDict[str, Window] = OrderedDict()

    def window_of(self, request: gr.Request, place: str) -> Window:
        """Return the window of a request; a server that does not know it makes it anew."""
        session: Session = request.state.session
        name = request.session_hash or ""
        window = self.windows.get(name)
        if window is None or window.owner != session.owner:
            said = ReviewPlace.parse(place)
            window = Window(self.queue, name, session.owner, self.reviewer(session), said)
            if said.id in self.queue.items:
                window.trail, window.at = [said.id], 0
            self.windows[name] = window
            if len(self.windows) > MAX_WINDOWS:
                self.windows.popitem(last=False)
        window.notice = ""
        return window

    def reviewer(self, session: Session) -> str:
        """Return the reviewer's name; empty where it is to be asked."""
        with suppress(DatabaseError):
            return self.names.name_of(session)
        return ""

    def load(self, request: gr.Request) -> Window:
        """Show the candidate and the filters that the address names, else the first to decide."""
        asked = dict(request.query_params)
        window = self.window_of(request, "")
        window.choose(asked.get("view", ""), asked.get("source", ""))
        if window.reviewer:
            window.begin(asked.get("c", ""))
        return window

    def again(self, request: gr.Request, place: str) -> Window:
        """Show how things stand, to a browser that missed an answer."""
        window = self.window_of(request, place)
        window.show(window.place.id or None, window.place.saved)
        return window

    def name(self, request: gr.Request, place: str, name: str) -> Window:
        """Keep the reviewer's name."""
        window = self.window_of(request, place)
        window.reviewer, window.notice = self.names.give(window.owner, name)
        if window.reviewer:
            window.begin(window.place.id)
        return window

    def rename(self, request: gr.Request, place: str) -> Window:
        """Ask for another name."""
        window = self.window_of(request, place)
        window.reviewer = ""
        window.show(window.place.id or None)
        return window

    def keep(self, request: gr.Request, place: str, note: str) -> Window:
        """Keep the candidate as shown; the reviewer's own edit stays one."""
        window = self.window_of(request, place)
        own = self.queue.own(ReviewPlace.parse(place).id, window.reviewer)
        edited = own.turns if own and own.verdict == "edit" else None
        return self.decide(window, place, "edit" if edited else "keep", note, edited)

    def drop(self, request: gr.Request, place: str, note: str) -> Window:
        """Drop the candidate."""
        return self.decide(self.window_of(request, place), place, "drop", note)

    def save(self, request: gr.Request, place: str, note: str, *texts: str) -> Window:
        """Keep the candidate with the turns as edited."""
        window = self.window_of(request, place)
        item = self.queue.items.get(ReviewPlace.parse(place).id)
        if item is None:
            return self.decide(window, place, "edit", note)
        before = item.candidate.turns
        # A text area has no CR; a turn that is the same otherwise was not edited.
        turns = tuple(
            old if new == clean(old) else new
            for old, new in zip(before, map(clean, texts), strict=False)
        )
        if empty := [n for n, turn in enumerate(turns, start=1) if not turn.strip()]:
            window.notice = f"Not saved: turn {empty[0]} is empty. Write it, or drop the candidate."
            return window
        return self.decide(window, place, "edit", note, turns)

    def decide(
        self,
        window: Window,
        place: str,
        verdict: Verdict,
        note: str,
        turns: tuple[str, ...] | None = None,
    ) -> Window:
        """Write a decision on what the browser showed, and go on."""
        said, note = ReviewPlace.parse(place), clean(note)[:MAX_NOTE_CHARACTERS].strip()
        if not window.reviewer or said.id not in self.queue.items:
            window.notice = "" if window.reviewer else "Give your name first; nothing was saved."
            return window
        try:
            made = self.queue.decide(said.id, verdict, window.reviewer, said.seen, turns, note)
        except ChangedError as changed:
            now = f"{SAID[changed.current.verdict]} it" if changed.current else "took that back"
            window.go_to(
                said.id,
                f"Not saved: in another window you {now} in the meantime. This is how it stands; "
                "decide again to change it.",
            )
            return window
        except OSError as error:
            window.go_to(said.id, f"Not saved: {error.strerror}. The candidate stays; try again.")
            return window
        if window.place.id == said.id:
            window.forward()
        window.place = replace(window.place, saved=said.id)
        window.notice = self.difference(made)
        return window

    def difference(self, made: Decision) -> str:
        """Return what others decided otherwise on a candidate; empty where nobody did."""
        outcome = self.queue.outcomes.get(made.id)
        votes = outcome.decisions if outcome else ()
        differ = [d for d in votes if d.reviewer != made.reviewer and d.choice != made.choice]
        if not differ:
            return ""
        others = " and ".join(f"{d.reviewer} {SAID[d.verdict]}" for d in differ)
        return f"You {SAID[made.verdict]} {made.id}, which {others}: a disagreement."

    def undo(self, request: gr.Request, place: str) -> Window:
        """Take the reviewer's last decision back, and show its candidate."""
        window = self.window_of(request, place)
        if not window.reviewer:
            return window
        try:
            id = self.queue.undo(window.reviewer)
        except OSError as error:
            window.notice = f"Not undone: {error.strerror}. Try again."
            return window
        if id is None:
            window.notice = "There is no decision of yours to take back."
        else:
            window.go_to(id, "Your last decision is taken back.")
        return window

    def skip(self, request: gr.Request, place: str) -> Window:
        """Go on without a decision."""
        window = self.window_of(request, place)
        window.skip()
        return window

    def back(self, request: gr.Request, place: str) -> Window:
        """Return to the candidate before."""
        window = self.window_of(request, place)
        window.back()
        return window

    def choose(self, request: gr.Request, place: str, view: str, source: str) -> Window:
        """Show the first candidate of another view or source."""
        window = self.window_of(request, place)
        window.choose(view, source)
        window.begin()
        return window

    def unload(self, request: gr.Request) -> None:
        """Let go of a closed window."""
        if window := self.windows.pop(request.session_hash or "", None):
            self.queue.claim(None, window.name)
