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
from lima_ray.curation.review.reviewers import MAX_NAME_CHARACTERS, ReviewStore
from lima_ray.curation.review.similarity import Neighbours
from lima_ray.curation.review.window import VIEWS, Window
from lima_ray.web.markdown import LATEX
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
    store: ReviewStore,
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
    return mount(page, store, settings, FOLDER / "page.css", FOLDER / "page.js")


class ReviewView:
    """Components as attributes, and what they show of a window."""

    def __init__(self, queue: ReviewQueue, neighbours: Neighbours, title: str) -> None:
        self.queue, self.neighbours, self.title = queue, neighbours, title
        self.ids = list(queue.items)
        self.most_turns = max(len(item.candidate.turns) for item in queue.items.values())

    def draw(self, logins: bool) -> None:
        """Draw the page."""
        self.progress = gr.HTML(elem_id="progress")
        with gr.Column(visible=False, elem_id="gate") as self.gate:
            self.name = gr.Textbox(
                label="Your name",
                info="Your decisions are kept under it; use the same one on another machine.",
                max_length=MAX_NAME_CHARACTERS,
                max_lines=1,
                elem_id="name",
            )
            self.begin = gr.Button("Begin", variant="primary", elem_id="begin")
        with gr.Column(visible=False, elem_id="desk") as self.desk:
            self.draw_filters(logins)
            with gr.Row(elem_id="sheet", equal_height=False):
                with gr.Column(scale=3, elem_id="left"):
                    self.draw_candidate()
                with gr.Column(scale=1, min_width=260, elem_id="right"):
                    self.others, self.details, self.alike = gr.HTML(), gr.HTML(), gr.HTML()
            self.draw_actions()
        self.notice = gr.HTML(elem_id="notice")
        self.place = gr.Textbox(visible="hidden", elem_id="place")
        self.original = gr.Textbox(visible="hidden", elem_id="original")
        self.again = gr.Button(elem_id="again")

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
            if logins:
                gr.HTML('<form method="post" action="logout"><button>Log out</button></form>')
            else:
                self.rename = gr.Button("Other name", size="sm", elem_id="rename", scale=0)

    def draw_candidate(self) -> None:
        """Draw the candidate, and the text areas that edit it."""
        self.head = gr.HTML(elem_id="head")
        self.chat = gr.Chatbot(
            elem_id="candidate",
            label="Candidate",
            show_label=False,
            container=False,
            height="auto",
            max_height=None,
            autoscroll=False,
            layout="panel",
            buttons=[],
            latex_delimiters=LATEX,
            group_consecutive_messages=False,
            sanitize_html=True,
            allow_tags=False,
            placeholder=" ",
        )
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
            self.note = gr.Textbox(
                placeholder="Note (n)",
                label="Note",
                show_label=False,
                container=False,
                max_length=MAX_NOTE_CHARACTERS,
                lines=1,
                max_lines=1,
                elem_id="note",
                scale=1,
                min_width=120,
            )

    def all_of(self, window: Window) -> Update:
        """Return the whole page for a window."""
        item = self.queue.items.get(window.place.id)
        named = bool(window.reviewer)
        window.place = replace(window.place, serial=window.place.serial + 1)
        general = {
            self.progress: rendering.progress(self.title, self.queue.progress(), window.reviewer),
            self.gate: gr.Column(visible=not named),
            self.desk: gr.Column(visible=named),
            self.notice: rendering.notice(window.notice),
            self.view: window.place.view,
            self.source: window.place.source,
            self.place: window.place.to_text(),
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
            self.chat: rendering.messages((shown.turns if shown else None) or turns),
            self.details: rendering.details(item),
            self.alike: rendering.neighbours(None if nearest is None else alike),
            self.others: rendering.others(outcome, window.reviewer, turns),
            self.original: rendering.texts(turns) if editor else "",
            self.origin: rendering.notice(origin),
            self.note: own.note if own else "",
        }


def wire(view: ReviewView, handlers: ReviewHandlers, page: gr.Blocks) -> None:
    """Say what each click does."""
    live: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    whole = [
        view.progress, view.gate, view.desk, view.notice, view.view, view.source, view.place,
        view.head, view.chat, view.details, view.alike, view.others, view.original, view.origin,
        view.note, *view.turns,
    ]  # fmt: skip

    def drawn(step: Callable[..., Window]) -> Callable[..., Update]:
        def handler(request: gr.Request, *fields: Any) -> Update:
            return view.all_of(step(request, *fields))

        return handler

    def shows(event: Any, step: Callable[..., Window], fields: list[Any], **more: Any) -> None:
        event(drawn(step), fields, whole, **live, **more)

    said = [view.place, view.note]
    shows(page.load, handlers.load, [])
    shows(view.buttons["keep"].click, handlers.keep, said)
    shows(view.buttons["drop"].click, handlers.drop, said)
    shows(view.buttons["save"].click, handlers.save, [*said, *view.turns])
    shows(view.buttons["undo"].click, handlers.undo, [view.place])
    shows(view.buttons["skip"].click, handlers.skip, [view.place])
    shows(view.buttons["back"].click, handlers.back, [view.place])
    for chooser in (view.view, view.source):
        shows(chooser.input, handlers.choose, [view.place, view.view, view.source])
    shows(view.again.click, handlers.again, [view.place])
    shows(view.begin.click, handlers.name, [view.place, view.name])
    shows(view.name.submit, handlers.name, [view.place, view.name])
    if hasattr(view, "rename"):
        shows(view.rename.click, handlers.rename, [view.place])
    shown = "(place) => window.limaReview.shown(place)"
    view.place.change(None, view.place, None, js=shown, **live)
    page.unload(handlers.unload)
