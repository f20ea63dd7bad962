"""Opens the page of a study: one process for a folder, on the loopback unless it has logins."""

from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.judging.study.queue import StudyQueue
from lima_ray.web.annotation.server import check_closed, listen, protect, run

PAGE = "study"
TOLD = "study page    {url}\neach answer is saved at once; Ctrl-C ends"


def serve_study(
    queue: StudyQueue,
    *,
    host: str = "127.0.0.1",
    port: int = 7862,
    login_file: Path | None = None,
    open_browser: bool = True,
    title: str = "Study",
) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        host: what the port is bound to.
        port: 0 takes a free one.
        login_file: lines `name:hash` of the annotators; none asks each browser for a name.

    Raises:
        UserError: a port that is open or taken, or a login file that is none.
    """
    check_closed(host, login_file, PAGE)
    if not queue.design.questions:
        raise UserError("there is nothing to judge")
    # Gradio takes seconds, and the status is told without it.
    from lima_ray.judging.study.page import build_page

    page = build_page(queue, title, login_file)
    app = protect(page, None if login_file else frozenset())
    with listen(host, port) as listener:
        run(app, listener, open_browser, TOLD)
