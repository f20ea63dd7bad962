"""The review's server: one process for a folder, on the loopback unless it has logins."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import URL

from lima_ray.config.errors import UserError
from lima_ray.curation.review.queue import ReviewItem, ReviewQueue
from lima_ray.curation.review.similarity import Embedder, Neighbours
from lima_ray.records.files import acquire_lock, explain_write_errors
from lima_ray.web.annotation.names import NamedSessionStore
from lima_ray.web.annotation.server import check_closed, listen, protect, run

PAGE = "review"
TOLD = "review page    {url}\neach decision is saved at once; Ctrl-C ends"


def serve_review(
    queue: Sequence[ReviewItem],
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    login_file: Path | None = None,
    open_browser: bool = True,
    rows: Mapping[str, int] | None = None,
    lead: str = "",
    embedder: Embedder | None = None,
    title: str = "Review",
) -> None:
    """Serve the review page until Ctrl-C or SIGTERM.

    Args:
        queue: candidates of each source, those not picked too, which replace what is dropped.
        folder: of the journal `decisions.jsonl` and the sessions; made where it is missing.
        host: what the port is bound to.
        port: 0 takes a free one.
        login_file: lines `name:hash` of the reviewers; none asks each browser for a name.
        open_browser: open the page, where there is a screen.
        rows: asked of each source; without it as many as are picked.
        lead: name of the reviewer who decides ties.
        embedder: of the neighbours shown; without one they are by tf-idf.
        title: of the page.

    Raises:
        UserError: nothing to review, a port that is open or taken, another review of the folder, a
            login file or a journal that is none.
    """
    if not queue:
        raise UserError("there is no candidate to review; the funnel says which filter took them")
    check_closed(host, login_file, PAGE)
    with explain_write_errors(folder, "--out"):
        folder.mkdir(parents=True, exist_ok=True)
        busy = f"another review of {folder} runs; open its page, or end it first"
        lock = acquire_lock(folder / ".lock", busy)
    try:
        reviewed = ReviewQueue(queue, folder, rows, lead)
        texts = [item.candidate.text for item in reviewed.items.values()]
        neighbours = Neighbours(texts, embedder)
        database = URL.create("sqlite", database=str(folder / "sessions.sqlite"))
        store = NamedSessionStore(database.render_as_string())
        # Gradio takes seconds, and a dataset is made without it.
        from lima_ray.curation.review.page import build_page

        page = build_page(reviewed, neighbours, store, title, login_file)
        app = protect(page, None if login_file else frozenset())
        try:
            with listen(host, port) as listener:
                run(app, listener, open_browser, TOLD)
        finally:
            store.close()
    finally:
        lock.release()
