"""The review page: one candidate at a time, to keep, edit or drop by keyboard."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from lima_ray.curation.review import rendering
from lima_ray.curation.review.handlers import MAX_NOTE_CHARACTERS, ReviewHandlers
from lima_ray.curation.review.queue import ReviewQueue
from lima_ray.curation.review.similarity import Neighbours
from lima_ray.curation.review.window import VIEWS, Window
from lima_ray.web.annotation import components
from lima_ray.web.annotation.components import LIVE
from lima_ray.web.annotation.names import NamedSessionStore
from lima_ray.web.annotation.rendering import messages, notice
from lima_ray.web.page import PageSettings, mount

FOLDER = Path(__file__).parent
Update = dict[Any, Any]
"""New values by component."""
BUTTONS = {
    "back": ("←", "secondary"),
    "keep": ("Keep", "primary"),
    "edit": ("Edit", "secondary"),
    "drop": ("Drop", "secondary"),
    "undo": ("Undo", "secondary"),
    "skip": ("Skip", "secondary"),
    "save": ("Save", "primary"),
    "cancel": ("Cancel", "secondary"),
    "restore": ("Original text", "secondary"),
}
"""Label and look of each action, the last three while a text is edited; `page.js` has their keys,
and does alone what needs no server: edit, cancel, restore."""


def build_page(
    queue: ReviewQueue,
    neighbours: Neighbours,
    store: NamedSessionStore,
    title: str,
    login_file: Path | None,
) -> FastAPI:
    """Make the page as an ASGI app.

    Args:
        queue: candidates and decisions.
        neighbours: of the queue's candidates, in its order.
        store: of sessions and the reviewers' names.
        title: of the page.
        login_file: of the reviewers; none asks each browser for a name.

    Raises:
        UserError: the login file is missing or not readable.
    """
    view = ReviewView(queue, neighbours, title)
    handlers = ReviewHandlers(queue, store)
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        view.draw(bool(login_file))
        wire(view, handlers, page)
    settings = PageSettings(title=title, login_file=login_file)
    return mount(
        page,
        store,
        settings,
        [components.CSS, FOLDER / "page.css"],
        [components.JS, FOLDER / "page.js"],
    )


class ReviewView:
    """Components as attributes, and what they show of a window."""

    def __init__(self, queue: ReviewQueue, neighbours: Neighbours, title: str) -> None:
        self.queue, self.neighbours, self.title = queue, neighbours, title
        self.ids = list(queue.items)
        self.most_turns = max(len(item.candidate.turns) for item in queue.items.values())

    def draw(self, logins: bool) -> None:
        """Draw the page."""
        self.progress = gr.HTML(elem_id="progress")
        self.gate = components.draw_gate("decisions")
        with gr.Column(visible=False, elem_id="desk") as self.desk:
            self.draw_filters(logins)
            with gr.Row(elem_id="sheet", equal_height=False):
                with gr.Column(scale=3, elem_id="left"):
                    self.draw_candidate()
                with gr.Column(scale=1, min_width=260, elem_id="right"):
                    self.others, self.details, self.alike = gr.HTML(), gr.HTML(), gr.HTML()
            self.draw_actions()
        self.notice = gr.HTML(elem_id="notice")
        self.hidden = components.draw_hidden()
        self.original = gr.Textbox(visible="hidden", elem_id="original")

    def draw_filters(self, logins: bool) -> None:
        """Draw what chooses the candidates to see."""
        sources = [("All sources", ""), *((name, name) for name in self.queue.rows)]
        with gr.Row(elem_id="filters"):
            self.view = gr.Dropdown(
                list(VIEWS.items()), value="open", label="Show", container=False, elem_id="view"
            )
            self.source = gr.Dropdown(
                sources, value="", label="Source", container=False, elem_id="source"
            )
            self.rename = components.draw_account(logins)

    def draw_candidate(self) -> None:
        """Draw the candidate, and the text areas that edit it."""
        self.head = gr.HTML(elem_id="head")
        self.chat = components.draw_dialogue("candidate", "Candidate")
        with gr.Column(elem_id="editor"):
            self.origin = gr.HTML(elem_id="origin")
            self.turns = [
                gr.Textbox(
                    label="Reply" if number % 2 else "Prompt",
                    lines=2,
                    max_lines=1000,
                    visible=number < 2,
                )
                for number in range(self.most_turns)
            ]

    def draw_actions(self) -> None:
        """Draw the bar of buttons."""
        with gr.Row(elem_id="actions"):
            self.buttons = {
                name: gr.Button(label, variant=look, elem_id=name, min_width=0, scale=0)  # pyright: ignore
                for name, (label, look) in BUTTONS.items()
            }
            self.note = components.draw_note("Note", "n", MAX_NOTE_CHARACTERS)

    def all_of(self, window: Window) -> Update:
        """Return the whole page for a window."""
        item = self.queue.items.get(window.place.id)
        named = bool(window.reviewer)
        window.place = replace(window.place, serial=window.place.serial + 1)
        general = {
            self.progress: rendering.progress(self.title, self.queue.progress(), window.reviewer),
            self.gate.column: gr.Column(visible=not named),
            self.desk: gr.Column(visible=named),
            self.notice: notice(window.notice),
            self.view: window.place.view,
            self.source: window.place.source,
            self.hidden.place: window.place.to_text(),
        }
        window.notice = ""
        return general | (self.of_item(window) if item and named else self.of_none(window))

    def of_none(self, window: Window) -> Update:
        """Return a page on which no candidate is left."""
        done = f'<p class="done">{rendering.ALL_DONE[window.place.view]}</p>'
        empty: Update = {one: "" for one in (self.details, self.alike, self.others, self.original)}
        return empty | {self.head: done, self.chat: [], self.note: ""}

    def of_item(self, window: Window) -> Update:
        """Return what is known of a candidate."""
        id = window.place.id
        item, own, outcome = self.queue.items[id], window.own, self.queue.outcomes.get(id)
        shown, editor = window.edit_shown(), window.edit_to_begin_with()
        turns = item.candidate.turns
        whose = shown.reviewer if shown else ""
        nearest = self.neighbours.nearest(self.queue.place[id])
        alike = [
            (other, cosine, self.queue.outcomes.get(other.candidate.id))
            for place, cosine in nearest or []
            for other in [self.queue.items[self.ids[place]]]
        ]
        origin = f"Begins with the edit of {editor.reviewer}." if editor else ""
        texts = (editor.turns if editor else None) or turns
        areas = {
            box: gr.Textbox(
                texts[number] if number < len(texts) else "", visible=number < len(texts)
            )
            for number, box in enumerate(self.turns)
        }
        return areas | {
            self.head: rendering.head(item, own, outcome, whose),
            self.chat: messages((shown.turns if shown else None) or turns),
            self.details: rendering.details(item),
            self.alike: rendering.neighbours(None if nearest is None else alike),
            self.others: rendering.others(outcome, window.reviewer, turns),
            self.original: rendering.texts(turns) if editor else "",
            self.origin: notice(origin),
            self.note: own.note if own else "",
        }


def wire(view: ReviewView, handlers: ReviewHandlers, page: gr.Blocks) -> None:
    """Say what each click does."""
    place = view.hidden.place
    whole = [
        view.progress, view.gate.column, view.desk, view.notice, view.view, view.source, place,
        view.head, view.chat, view.details, view.alike, view.others, view.original, view.origin,
        view.note, *view.turns,
    ]  # fmt: skip

    def drawn(step: Callable[..., Window]) -> Callable[..., Update]:
        def handler(request: gr.Request, *fields: Any) -> Update:
            return view.all_of(step(request, *fields))

        return handler

    def shows(event: Any, step: Callable[..., Window], fields: list[Any], **more: Any) -> None:
        event(drawn(step), fields, whole, **LIVE, **more)

    said = [place, view.note]
    shows(page.load, handlers.load, [])
    shows(view.buttons["keep"].click, handlers.keep, said)
    shows(view.buttons["drop"].click, handlers.drop, said)
    shows(view.buttons["save"].click, handlers.save, [*said, *view.turns])
    shows(view.buttons["undo"].click, handlers.undo, [place])
    shows(view.buttons["skip"].click, handlers.skip, [place])
    shows(view.buttons["back"].click, handlers.back, [place])
    for chooser in (view.view, view.source):
        shows(chooser.input, handlers.choose, [place, view.view, view.source])
    shows(view.hidden.again.click, handlers.again, [place])
    shows(view.gate.begin.click, handlers.name, [place, view.gate.name])
    shows(view.gate.name.submit, handlers.name, [place, view.gate.name])
    if view.rename is not None:
        shows(view.rename.click, handlers.rename, [place])
    place.change(None, place, None, js=components.SHOWN, **LIVE)
    page.unload(handlers.unload)
