"""The chat tab's events: which click calls what, with which fields, and what it draws."""

import gradio as gr

from serve.page.chat_handlers import ChatHandlers, stop_reply
from serve.page.controls import LIVE

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
CONFIRM = "(...fields) => [...fields.slice(0, -1), window.limaChat.mayLose('%s')]"
"""Has the user confirm what would lose their own work; `ChatView.sure` is the last input."""


def wire(handlers: ChatHandlers, page: gr.Blocks) -> None:
    view = handlers.view
    here = [view.window, view.opened]
    how = [view.model, view.system, view.seed, *view.sampling]
    shown = [
        view.window, view.chat, view.texts, view.notice, view.meter, view.composer, view.opened,
        view.name,
    ]  # fmt: skip
    kept = [view.saving, view.past, view.no_past, view.timer]
    everything = [*shown, *kept, view.model, view.system]
    long = {**LIVE, "concurrency_limit": None}
    confirmed, chat = [*here, *how, view.sure], view.chat
    steps = [
        page.load(handlers.load, view.window, everything, **LIVE),
        view.composer.submit(handlers.send, [*here, view.composer, *how], shown, **long),
        chat.example_select(handlers.example, [*here, *how], shown, **long),
        chat.retry(handlers.retry, confirmed, shown, js=CONFIRM % "retry", **long),
        chat.edit(handlers.edit, confirmed, shown, js=CONFIRM % "edit", **long),
        chat.undo(handlers.undo, [*here, view.sure], shown, js=CONFIRM % "undo", **LIVE),
        chat.like(handlers.like, here, shown, **LIVE),
        view.new.click(handlers.begin, view.window, everything, **LIVE),
        view.past.input(handlers.reopen, [view.window, view.past], everything, **LIVE),
        view.name.submit(handlers.rename, [*here, view.name], shown, **LIVE),
        view.name.blur(handlers.rename, [*here, view.name], shown, **LIVE),
        view.delete.click(
            handlers.remove, [view.window, view.sure], everything, js=CONFIRM % "delete", **LIVE
        ),
    ]
    for step in steps:
        step.then(handlers.settle, here, everything, **LIVE)
    view.timer.tick(handlers.settle, here, everything, **LIVE)
    view.opened.change(None, view.opened, None, js=ADDRESS, **LIVE)
    view.gear.click(None, js=SETTINGS, api_visibility="private")
    view.composer.stop(stop_reply, view.window, None, queue=False, **LIVE)
    view.model.change(handlers.greet, [view.window, view.model], [chat, view.meter], **LIVE)
    view.export.click(handlers.write, here, [view.file, view.notice], **LIVE).then(
        None, view.file, None, js=DOWNLOAD, **LIVE
    )
    page.unload(handlers.unload)
