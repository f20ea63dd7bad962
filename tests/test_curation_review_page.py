"""The review page in headless Chromium: two reviewers at once, and a server that is killed."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from annotation_page import WAIT_MS, AnnotationPage
from browser import CHROMIUM, chromium, free_port
from review_server import candidates

from lima_ray.curation.review.decisions import read_decisions

pytest.importorskip("playwright.sync_api", reason="pip install playwright")
if not CHROMIUM.exists():
    pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, expect

SERVER = Path(__file__).parent / "support" / "review_server.py"
DECISIONS = {"k": "keep", "d": "drop", "u": "undo", "Control+Enter": "edit"}
"""What keys decide."""
SETTLED_MS = 500
"""A notice is drawn a moment before the page takes the next press; with the waits below this stays
under the 5 s after which the page would ask again by itself."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with chromium() as browser:
        yield browser


@contextmanager
def running(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A server, which is killed at the end if it still runs."""
    command = [sys.executable, str(SERVER), str(folder), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout and f":{port}/" in server.stdout.readline()
        yield server
    finally:
        server.kill()
        server.wait()


def opened(browser: Browser, address: str, name: str) -> AnnotationPage:
    """The page of a reviewer, at their first candidate."""
    return AnnotationPage(browser, address, name, "#candidate .bot-row")


def decisions(page: AnnotationPage) -> list[tuple[str, str]]:
    """What a reviewer decided, in order, by the id of the candidate."""
    return [
        (after["id"] if key == "u" else before["id"], DECISIONS[key])
        for key, before, after in page.pressed
        if key in DECISIONS
    ]


@pytest.mark.slow
def test_two_reviewers_a_reload_and_a_killed_server_lose_no_decision(
    browser: Browser, tmp_path: Path
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    with running(tmp_path, port) as server:
        anna, bob = (opened(browser, address, name) for name in ("anna", "bob"))
        assert anna.place["id"] == "cooking/1" and bob.place["id"] == "cooking/2"
        for _ in range(2):
            anna.press("k")
            bob.press("d")
        shown = anna.place["id"]
        assert shown != bob.place["id"]
        anna.page.keyboard.press("e")
        reply = anna.page.get_by_label("Reply")
        expect(reply).to_have_value(reply_of(shown))
        reply.press("End")
        reply.fill("Stir it at once.\n\n```\nkeep ed k d\n```")
        anna.page.locator("#note input").fill("was too long: d")
        anna.reload()
        assert anna.place["id"] == shown
        expect(reply).to_have_value("Stir it at once.\n\n```\nkeep ed k d\n```")
        anna.press("Control+Enter")
        bob.press("u")
        server.send_signal(signal.SIGKILL)
        server.wait()
        before = bob.place
        bob.page.keyboard.press("k")
        expect(bob.page.locator("body.late")).to_have_count(1, timeout=WAIT_MS)
        assert bob.place == before, "the page goes on without an answer"
    decided = read_decisions(tmp_path)
    with running(tmp_path, port):
        assert read_decisions(tmp_path) == decided
        bob.waits_until_answered()
        assert bob.place["id"] == before["id"], "the page comes back by itself"
        bob.press("k")
        anna.reload()
        anna.press("k")
    for reviewer in (anna, bob):
        made = [(d.id, d.verdict) for d in read_decisions(tmp_path) if d.reviewer == reviewer.name]
        assert made == decisions(reviewer)
        assert reviewer.errors == [] and reviewer.asked - {""} == {f"127.0.0.1:{port}"}
    edit = next(d for d in read_decisions(tmp_path) if d.verdict == "edit")
    assert edit.id == shown and edit.note == "was too long: d"
    assert edit.turns and edit.turns[1] == "Stir it at once.\n\n```\nkeep ed k d\n```"


def test_after_a_notice_the_next_press_counts(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    with running(tmp_path, port):
        first = opened(browser, address, "anna")
        first.page.keyboard.press("u")
        expect(first.page.locator("#notice")).to_contain_text("no decision of yours")
        first.page.wait_for_timeout(SETTLED_MS)
        first.page.keyboard.press("k")
        expect(first.page.locator("#candidate")).to_contain_text("number 2", timeout=4_000)
        page = browser.new_context().new_page()
        page.goto(address)
        page.get_by_label("Your name").fill("anna", timeout=WAIT_MS)
        page.click("#begin")
        expect(page.locator("#notice")).to_contain_text("in another browser")
        page.wait_for_timeout(SETTLED_MS)
        page.click("#begin")
        expect(page.locator("#candidate .bot-row")).to_be_visible(timeout=4_000)


def test_texts_are_drawn_as_markdown_and_never_as_html(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port):
        anna = opened(browser, f"http://127.0.0.1:{port}/", "anna")
        reply = anna.page.locator("#candidate .bot-row")
        expect(reply.locator("strong")).to_have_text("slowly")
        expect(reply.locator("li")).to_have_count(2)
        expect(reply.locator("li").first).to_contain_text("List<int> & <b>this</b>")
        expect(reply.locator("pre")).to_contain_text('stir("<milk>")')
        expect(reply.locator(".katex").first).to_be_attached()
        expect(reply).to_contain_text("<script>document.title")
        assert anna.page.title() == "Review"
        link = anna.page.locator("#right .card a").first
        assert "noopener" in (link.get_attribute("rel") or "")
        expect(anna.page.locator("#right ol li")).to_have_count(3)
        anna.page.keyboard.press("n")
        anna.page.keyboard.type("k d u s")
        assert anna.place["id"] == "cooking/1", "what is typed into the note is no key"
        anna.page.keyboard.press("Enter")
        anna.press("ArrowRight")
        anna.press("ArrowLeft")
        expect(anna.page.locator("#note input")).to_have_value("k d u s")
        anna.press("d")
        assert [d.note for d in read_decisions(tmp_path)] == ["k d u s"]
        assert anna.errors == []


def reply_of(id: str) -> str:
    """Return a candidate's reply."""
    return next(i.candidate.turns[1] for i in candidates() if i.candidate.id == id)
