"""The chat tab's events: which click calls what, with which fields, and what it draws."""

from typing import Any

import gradio as gr

from serve.page.chat_handlers import Talk

DOWNLOAD = """(file) => {
  if (!file) return;
  const {name, text} = JSON.parse(file);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'application/jsonl'}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""
SETTINGS = "() => document.querySelector('#right .toggle-button').click()"
ADDRESS = """(id) => history.replaceState(null, '',
  location.pathname + (id ? '?c=' + encodeURIComponent(id) : ''))"""
ASK = "(...fields) => [...fields.slice(0, -1), window.limaChat.mayLose('%s')]"
"""Has the visitor confirm what would lose their own work; `View.sure` is the last of the inputs."""


def wire(talk: Talk, page: gr.Blocks) -> None:
    """Say what each click does."""
    view = talk.view
    here = [view.desk, view.opened]
    how = [view.model, view.system, view.seed, *view.sampling]
    shown = [
        view.chat, view.said, view.notice, view.meter, view.composer, view.opened, view.name,
    ]  # fmt: skip
    kept = [view.saving, view.past, view.no_past, view.timer]
    live: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    long: dict[str, Any] = {**live, "concurrency_limit": None}
    whole = [view.desk, *shown, *kept, view.model, view.system]
    start = page.load(talk.load, view.desk, whole, **live)
    answers = [
        view.composer.submit(talk.say, [*here, view.composer, *how], [view.desk, *shown], **long),
        view.chat.example_select(talk.example, [*here, *how], [view.desk, *shown], **long),
        view.chat.retry(
            talk.retry, [*here, *how, view.sure], [view.desk, *shown], js=ASK % "retry", **long
        ),
        view.chat.edit(
            talk.edit, [*here, *how, view.sure], [view.desk, *shown], js=ASK % "edit", **long
        ),
    ]
    turned = [
        view.chat.undo(talk.undo, [*here, view.sure], [view.desk, *shown], js=ASK % "undo", **live),
        view.chat.like(talk.like, here, [view.desk, *shown], **live),
        view.new.click(talk.begin, view.desk, [*whole], **live),
        view.past.input(talk.reopen, [view.desk, view.past], whole, **live),
        view.name.submit(talk.rename, [*here, view.name], [view.desk, *shown], **live),
        view.name.blur(talk.rename, [*here, view.name], [view.desk, *shown], **live),
        view.delete.click(
            talk.remove,
            [view.desk, view.sure],
            whole,
            js=ASK % "delete",
            **live,
        ),
    ]
    settled = list(dict.fromkeys([*kept, *whole]))
    for step in [start, *answers, *turned]:
        step.then(talk.settle, here, settled, **live)
    view.timer.tick(talk.settle, here, settled, **live)
    view.opened.change(None, view.opened, None, js=ADDRESS, **live)
    view.gear.click(None, js=SETTINGS, api_visibility="private")
    view.composer.stop(talk.stop, view.desk, None, queue=False, **live)
    view.model.change(talk.greet, [view.desk, view.model], [view.chat, view.meter], **live)
    view.export.click(talk.write, here, [view.file, view.notice], **live).then(
        None, view.file, None, js=DOWNLOAD, **live
    )
    page.unload(talk.unload)
