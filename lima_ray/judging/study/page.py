"""The study page: one question at a time, answered by keyboard, blind."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from lima_ray.judging.questions.item import Item, Side
from lima_ray.judging.study import rendering
from lima_ray.judging.study.handlers import MAX_COMMENT_CHARACTERS, Screen, StudyHandlers
from lima_ray.judging.study.queue import StudyQueue
from lima_ray.web.annotation import components
from lima_ray.web.annotation.components import LIVE
from lima_ray.web.annotation.names import NamePrompt
from lima_ray.web.annotation.rendering import messages, notice
from lima_ray.web.database import DatabaseError
from lima_ray.web.page import PageSettings, mount

FOLDER = Path(__file__).parent
Update = dict[Any, Any]
"""New values by component."""


def build_page(queue: StudyQueue, title: str, login_file: Path | None) -> FastAPI:
    """Make the page as an ASGI app.

    Args:
        title: of the page.
        login_file: of the annotators; none asks each browser for a name.

    Raises:
        UserError: the login file is missing or not readable.
    """
    view = StudyView(queue, title)
    handlers = StudyHandlers(queue, NamePrompt(queue.store, "answers"))
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        view.draw(bool(login_file))
        wire(view, handlers, page)
    settings = PageSettings(title=title, login_file=login_file)
    styles, scripts = FOLDER / "page.css", FOLDER / "page.js"
    return mount(page, queue.store, settings, [components.CSS, styles], [components.JS, scripts])


class StudyView:
    """Components as attributes, and what they show of a screen."""

    def __init__(self, queue: StudyQueue, title: str) -> None:
        self.queue, self.title = queue, title
        self.wording = queue.design.wording
        self.choices = rendering.CHOICES[queue.design.kind]
        self.pairs = queue.design.kind == "pairwise"

    def draw(self, logins: bool) -> None:
        """Draw the page."""
        self.progress = gr.HTML(elem_id="progress")
        self.gate = components.draw_gate("answers")
        # A grade's button says its own key.
        design = self.queue.design
        look = ["grades" if design.kind == "grade" else "levels"]
        look.append("whole" if design.whole else "last")
        with gr.Column(visible=False, elem_id="desk", elem_classes=look) as self.desk:
            with gr.Row(elem_id="line"):
                self.head = gr.HTML(elem_id="head")
                self.rename = components.draw_account(logins)
            gr.HTML(rendering.instructions(self.wording), elem_id="told")
            self.system = gr.HTML(elem_id="system")
            self.context = components.draw_dialogue("context", "Conversation")
            with gr.Row(elem_id="sides", equal_height=False):
                self.sides = [
                    self.draw_side(name) for name in (("A", "B") if self.pairs else ("",))
                ]
            self.draw_actions()
        self.notice = gr.HTML(elem_id="notice")
        self.hidden = components.draw_hidden()

    def draw_side(self, name: str) -> gr.Chatbot:
        """Draw what is judged."""
        with gr.Column(elem_classes="side", min_width=280):
            if name:
                gr.HTML(f"<h2>{name}</h2>")
            return components.draw_dialogue(f"side{name and '-'}{name.lower()}", f"Reply {name}")

    def draw_actions(self) -> None:
        """Draw the bar of buttons."""
        with gr.Row(elem_id="actions"):
            self.back = button("←", "back")
            with gr.Row(elem_id="choices"):
                self.answers = {
                    choice: button(label, f"choice-{number}")
                    for number, (choice, label) in enumerate(self.choices.items(), start=1)
                }
            self.undo, self.skip = button("Undo", "undo"), button("Skip", "skip")
            self.forward = button("→", "forward")
            self.note = components.draw_note("Comment", "c", MAX_COMMENT_CHARACTERS)

    def all_of(self, screen: Screen) -> Update:
        """Return what changes of the page for a screen."""
        told: Update = {
            self.hidden.place: screen.place.to_text(),
            self.notice: notice(screen.notice),
        }
        if screen.away:
            return told
        named = bool(screen.annotator)
        told |= {
            self.gate.column: gr.Column(visible=not named),
            self.desk: gr.Column(visible=named),
        }
        if not named:
            return told | {self.progress: ""}
        return told | self.of_progress(screen.annotator) | self.of_question(screen)

    def of_progress(self, annotator: str) -> Update:
        try:
            progress = self.queue.progress(annotator)
        except DatabaseError:
            return {}
        return {self.progress: rendering.bar(self.title, progress, annotator)}

    def of_question(self, screen: Screen) -> Update:
        """Return a question, and what was answered to it before."""
        found = screen.assignment
        choice = found.choice if found else None
        buttons: Update = {
            one: gr.Button(variant="primary" if name == choice else "secondary")
            for name, one in self.answers.items()
        }
        if found is None:
            done = f'<p class="done">{rendering.DONE}</p>'
            empty: Update = {one: [] for one in (self.context, *self.sides)}
            return buttons | empty | {self.head: done, self.system: "", self.note: ""}
        label = self.choices[choice] if choice else ""
        return (
            buttons
            | self.of_item(self.queue.item(found))
            | {
                self.head: rendering.head(found.number, choice, label),
                self.note: found.comment,
            }
        )

    def of_item(self, item: Item) -> Update:
        """Return the dialogues of a question; turns that both sides share stand once."""
        shown = item.shown
        one = shown[0]
        shared = all((s.system, s.context) == (one.system, one.context) for s in shown)
        begin = one.judged[0] if shared else 0
        sides: Update = {
            part: messages(side.turns[begin:], begin)
            for part, side in zip(self.sides, shown, strict=True)
        }
        return sides | {
            self.system: rendering.system_line(systems_of(shown)),
            self.context: messages(one.context) if shared else [],
        }


def systems_of(sides: tuple[Side, ...]) -> str:
    """Return the system messages of a question, the same ones once."""
    return "\n\n".join(dict.fromkeys(side.system for side in sides if side.system))


def button(label: str, elem_id: str) -> gr.Button:
    return gr.Button(label, variant="secondary", elem_id=elem_id, min_width=0, scale=0)


def wire(view: StudyView, handlers: StudyHandlers, page: gr.Blocks) -> None:
    """Say what each click does."""
    place = view.hidden.place
    whole = [
        view.progress, view.gate.column, view.desk, view.notice, place, view.head, view.system,
        view.context, view.note, *view.sides, *view.answers.values(),
    ]  # fmt: skip

    def drawn(step: Callable[..., Screen]) -> Callable[..., Update]:
        def handler(request: gr.Request, *fields: Any) -> Update:
            return view.all_of(step(request, *fields))

        return handler

    def shows(event: Any, step: Callable[..., Screen], fields: list[Any]) -> None:
        event(drawn(step), fields, whole, **LIVE)

    shows(page.load, handlers.load, [])
    for choice, one in view.answers.items():
        shows(one.click, partial(handlers.answer, choice=choice), [place, view.note])
    for one, step in (
        (view.undo, handlers.undo),
        (view.skip, handlers.skip),
        (view.back, handlers.back),
        (view.forward, handlers.forward),
        (view.hidden.again, handlers.again),
    ):
        shows(one.click, step, [place])
    shows(view.gate.begin.click, handlers.name, [place, view.gate.name])
    shows(view.gate.name.submit, handlers.name, [place, view.gate.name])
    if view.rename is not None:
        shows(view.rename.click, handlers.rename, [place])
    place.change(None, place, None, js=components.SHOWN, **LIVE)
