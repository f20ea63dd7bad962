"""What each click of the study page does; each returns what is to be drawn.

Nothing of a window is kept here: the browser says which question it shows, and the database what
was answered. So a server that was restarted goes on, and several may serve one study.
"""

import logging
from dataclasses import dataclass, field, replace

import gradio as gr

from lima_ray.config.errors import UserError
from lima_ray.judging.study.queue import StudyQueue
from lima_ray.judging.study.store import Assignment
from lima_ray.web.annotation.names import NamePrompt
from lima_ray.web.annotation.place import Place
from lima_ray.web.annotation.rendering import clean
from lima_ray.web.database import DatabaseError
from lima_ray.web.sessions import Session

MAX_COMMENT_CHARACTERS = 1000
AWAY = "The server cannot keep answers at the moment; nothing new was saved. Try again."
log = logging.getLogger("lima_ray")


@dataclass(frozen=True)
class StudyPlace(Place):
    """The question that a window shows."""

    id: int = 0
    """Number of the question in the annotator's queue; 0 where none is left."""
    saved: int = 0
    """Question of which an answer was just saved, so that its draft has no more use."""
    serial: int = 0
    """Number of the server's answer, for which the browser waits."""

    @property
    def fits(self) -> bool:
        return all(type(one) is int and 0 <= one < 2**31 for one in vars(self).values())


@dataclass(frozen=True)
class Screen:
    """What a window is to show."""

    annotator: str = ""
    """Empty where a name is asked for."""
    place: StudyPlace = field(default_factory=StudyPlace)
    assignment: Assignment | None = None
    """None where all is answered."""
    notice: str = ""
    away: bool = False
    """The database is: what the window shows stays."""


class StudyHandlers:
    """Answers the events of the page."""

    def __init__(self, queue: StudyQueue, names: NamePrompt) -> None:
        self.queue, self.names = queue, names

    def load(self, request: gr.Request) -> Screen:
        """Show the question that the address names, else the first to answer."""
        asked = dict(request.query_params).get("n", "")
        number = int(asked) if asked.isdecimal() and len(asked) < 9 else 0
        return self.again(request, StudyPlace(number).to_text())

    def again(self, request: gr.Request, place: str) -> Screen:
        """Show how things stand, to a browser that missed an answer."""
        screen = self.screen(request, place)
        return self.show(screen, screen.place.id)

    def name(self, request: gr.Request, place: str, name: str) -> Screen:
        """Keep the annotator's name."""
        screen = self.screen(request, place)
        name, notice = self.names.give(session_of(request).owner, name)
        screen = replace(screen, annotator=name, notice=notice)
        return self.open(screen) if name else screen

    def rename(self, request: gr.Request, place: str) -> Screen:
        """Ask for another name."""
        return replace(self.screen(request, place), annotator="")

    def answer(self, request: gr.Request, place: str, comment: str, choice: str) -> Screen:
        """Keep an answer to what the browser showed, and go on."""
        screen = self.screen(request, place)
        comment = clean(comment)[:MAX_COMMENT_CHARACTERS].strip()
        number = screen.place.id
        if not screen.annotator or screen.away:
            return screen
        try:
            kept = self.queue.answer(screen.annotator, number, choice, comment)
        except DatabaseError as error:
            return away(screen, error)
        except UserError:
            return replace(screen, notice="That is no answer; nothing was saved.", away=True)
        return self.open(screen, saved=number if kept else 0)

    def undo(self, request: gr.Request, place: str) -> Screen:
        """Take the annotator's last answer back, and show its question."""
        screen = self.screen(request, place)
        if not screen.annotator or screen.away:
            return screen
        try:
            found = self.queue.take_back(screen.annotator)
        except DatabaseError as error:
            return away(screen, error)
        if found is None:
            nothing = "There is no answer of yours to take back."
            return self.show(replace(screen, notice=nothing), screen.place.id)
        return showing(replace(screen, notice="Your last answer is taken back."), found)

    def skip(self, request: gr.Request, place: str) -> Screen:
        """Leave a question for later."""
        screen = self.screen(request, place)
        number = screen.place.id
        if not screen.annotator or screen.away:
            return screen
        try:
            self.queue.skip(screen.annotator, number)
        except DatabaseError as error:
            return away(screen, error)
        return self.open(screen, after=number)

    def back(self, request: gr.Request, place: str) -> Screen:
        """Return to the question before."""
        return self.move(request, place, -1)

    def forward(self, request: gr.Request, place: str) -> Screen:
        """Go to the question after, of those that the annotator had."""
        return self.move(request, place, 1)

    def move(self, request: gr.Request, place: str, step: int) -> Screen:
        screen = self.screen(request, place)
        if not screen.annotator or screen.away:
            return screen
        # Where none is left, the one before is the last of all.
        number = screen.place.id or (2**31 if step < 0 else 0)
        try:
            found = self.queue.beside(screen.annotator, number, step)
        except DatabaseError as error:
            return away(screen, error)
        if found is not None:
            return showing(screen, found)
        if step > 0:
            return self.open(screen)
        return self.show(replace(screen, notice="This is the first one."), screen.place.id)

    def show(self, screen: Screen, number: int) -> Screen:
        """Show a question of the annotator's, or the first to answer where there is no such."""
        if not screen.annotator or screen.away:
            return screen
        try:
            found = self.queue.show(screen.annotator, number) if number else None
        except DatabaseError as error:
            return away(screen, error)
        return showing(screen, found) if found else self.open(screen)

    def open(self, screen: Screen, saved: int = 0, after: int = 0) -> Screen:
        """Show the first question to answer."""
        try:
            found = self.queue.open(screen.annotator, after)
        except DatabaseError as error:
            return away(screen, error)
        screen = showing(screen, found)
        screen = replace(screen, place=replace(screen.place, saved=saved))
        if after and screen.place.id == after:
            screen = replace(screen, notice="No other question is left to answer.")
        return screen

    def screen(self, request: gr.Request, place: str) -> Screen:
        """Return what the window showed, whose answer is the next."""
        said = StudyPlace.parse(place)
        said = replace(said, serial=said.serial + 1, saved=0)
        try:
            return Screen(self.names.name_of(session_of(request)), said)
        except DatabaseError as error:
            return away(Screen(place=said), error)


def session_of(request: gr.Request) -> Session:
    return request.state.session


def showing(screen: Screen, found: Assignment | None) -> Screen:
    place = replace(screen.place, id=found.number if found else 0)
    return replace(screen, place=place, assignment=found)


def away(screen: Screen, error: DatabaseError) -> Screen:
    """Say that nothing was saved; why not is for the log, since it may name files."""
    log.warning("the study's database: %s", error)
    return replace(screen, notice=AWAY, away=True)
