"""The study page in headless Chromium: two annotators at once, a killed server, and blindness."""

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from annotation_page import WAIT_MS, AnnotationPage
from browser import CHROMIUM, chromium, free_port, served
from gradio.context import Context
from starlette.types import Message, Receive, Scope, Send
from study_server import PROMPTS, SYSTEMS, replies

from lima_ray.config.command_line import run_command
from lima_ray.judging.questions.design import design_items
from lima_ray.judging.study.design import StudyDesign
from lima_ray.judging.study.folder import VERDICTS, open_store, study_of
from lima_ray.judging.study.queue import Settings, StudyQueue
from lima_ray.records.verdict import read_verdicts

pytest.importorskip("playwright.sync_api", reason="pip install playwright")
if not CHROMIUM.exists():
    pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, ViewportSize, expect

from lima_ray.judging.study.page import build_page

SERVER = Path(__file__).parent / "support" / "study_server.py"
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
SHARED = 3
RANDOM = re.compile(
    rb'"app_id":\s*"?\d+"?|127\.0\.0\.1:\d+|session:\w{32}|"session_hash":\s*"\w+"|'
    rb"(?:etag|last-modified|set-cookie|date|content-length): .*"
)
"""What is another in each start of a server; the number of digits with it."""
CHOICES = {"1": "A", "a": "A", "2": "B", "b": "B", "3": "neither", "n": "neither"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with chromium() as browser:
        yield browser


@contextmanager
def running(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A server, which is killed at the end if it still runs."""
    flags = ["--overlap", str(SHARED), "--check_every", "6"]
    command = [sys.executable, str(SERVER), str(folder), str(port), *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout and any(f":{port}/" in line for line in server.stdout)
        yield server
    finally:
        server.kill()
        server.wait()


def opened(browser: Browser, address: str, name: str, viewport: ViewportSize) -> AnnotationPage:
    """The page of an annotator, at their first question."""
    return AnnotationPage(browser, address, name, "#side-b .bot-row", viewport)


def answers(page: AnnotationPage) -> dict[int, str]:
    """What an annotator answered, by the number of the question."""
    found = {}
    for key, before, after in page.pressed:
        if key in CHOICES:
            found[before["id"]] = CHOICES[key]
        elif key == "u":
            del found[after["id"]]
    return found


def finish(page: AnnotationPage) -> None:
    """Answer all that is left."""
    while number := page.place["id"]:
        page.press("123"[number % 3])


@pytest.mark.slow
def test_two_annotators_a_reload_and_a_killed_server_lose_no_answer(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    with running(tmp_path, port) as server:
        anna = opened(browser, address, "anna", DESKTOP)
        bob = opened(browser, address, "bob", PHONE)
        a, b = anna.box("#side-a"), anna.box("#side-b")
        assert a.x + a.width <= b.x and abs(a.y - b.y) < 2, "side by side"
        a, b = bob.box("#side-a"), bob.box("#side-b")
        assert a.y + a.height <= b.y and abs(a.x - b.x) < 2, "one under the other"
        for one in (anna, bob):
            height = one.page.viewport_size["height"] if one.page.viewport_size else 0
            for button in ("#choice-1", "#choice-3", "#undo", "#skip"):
                box = one.box(button)
                assert box.y >= 0 and box.y + box.height <= height, f"{button} is at hand"
        draws_markdown_and_never_html(anna.page)
        for annas, bobs in (("1", "2"), ("b", "3"), ("n", "a")):
            anna.press(annas)
            bob.press(bobs)
        expect(anna.page.locator(".told p").first).not_to_be_visible()
        anna.page.keyboard.press("c")
        anna.page.keyboard.type("a b 1 s u")
        assert anna.place["id"] == 4, "what is typed into the comment is no key"
        anna.reload()
        expect(anna.page.locator("#note input")).to_have_value("a b 1 s u")
        anna.press("a")
        anna.press("ArrowLeft")
        expect(anna.page.locator("#note input")).to_have_value("a b 1 s u")
        expect(anna.page.locator("#head")).to_contain_text("you answered A")
        anna.press("2")
        anna.press("u")
        assert anna.place["id"] == 4
        anna.press("2")
        anna.press("s")
        assert anna.place["id"] == 6
        anna.press("1")
        server.send_signal(signal.SIGKILL)
        server.wait()
        before = bob.place
        bob.page.keyboard.press("1")
        expect(bob.page.locator("body.late")).to_have_count(1, timeout=WAIT_MS)
        assert bob.place == before, "the page goes on without an answer"
    with running(tmp_path, port) as server:
        bob.waits_until_answered()
        assert bob.place["id"] == before["id"], "the page comes back by itself"
        anna.reload()
        finish(anna)
        finish(bob)
        expect(anna.page.locator("#head")).to_contain_text("Thank you")
        assert not anna.page.locator("#choice-1").is_visible()
        out = tmp_path / "study"
        with open_store(out, "") as store:
            given = store.assignments(study_of(out))
        server.send_signal(signal.SIGTERM)
        server.wait(30)
    for one in (anna, bob):
        own = {g.number: g.choice for g in given if g.annotator == one.name}
        assert own == answers(one)
        assert one.errors == [] and one.asked - {""} == {f"127.0.0.1:{port}"}
    counts = Counter(g.drawn.question for g in given if not g.is_check)
    assert sorted(counts.values()) == [1] * (PROMPTS - SHARED) + [2] * SHARED
    verdicts = read_verdicts(out / VERDICTS)
    assert len(verdicts) == PROMPTS + SHARED, "they are written as the server ends"
    assert any(g.is_check for g in given)
    (said,) = [one for one in verdicts if one.explanation]
    assert (said.annotator, said.verdict, said.explanation) == ("anna", "B", "a b 1 s u")
    run_command("study", ["--out", str(out), "--status"])
    assert f"{SHARED}/{SHARED}" in capsys.readouterr().out


def draws_markdown_and_never_html(page: Page) -> None:
    """See that replies are drawn, and that what would be HTML in them is text."""
    sides = page.locator("#sides")
    expect(sides.locator("strong").first).to_have_text("slowly")
    expect(sides.locator("pre")).to_contain_text('stir("<milk>")')
    expect(sides).to_contain_text("List<int> & <b>this</b>")
    expect(sides).to_contain_text("<script>document.title")
    expect(sides).to_contain_text("<img src=x onerror")
    assert sides.locator("img[src='x']").count() == 0 and page.title() == "Study"


class Recorder:
    """An app around a page that keeps all that browsers are sent, uncompressed."""

    def __init__(self, page: Any) -> None:
        self.page, self.router = page, page.router
        self.sent: list[tuple[str, bytearray]] = []
        """Address and headers with the body of each response, in the order of the requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.page(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        body = bytearray()
        self.sent.append((scope["path"], body))

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                body.extend(b"".join(b"%b: %b\n" % header for header in message["headers"]))
            body.extend(message.get("body", b""))
            await send(message)

        await self.page({**scope, "headers": headers}, receive, sent)

    def results(self) -> list[Any]:
        """What the server answered to events, in order, without times and names of events."""
        found = []
        for path, body in self.sent:
            if not path.endswith("/queue/data"):
                continue
            for line in re.findall(rb"^data: (.+)$", bytes(body), re.MULTILINE):
                message = json.loads(line)
                if message["msg"] == "process_completed":
                    output = message["output"]
                    found.append({k: v for k, v in output.items() if "duration" not in k})
        return found

    def static(self) -> dict[str, bytes]:
        """Pages, styles and scripts by their path, without what is random in each start."""
        dynamic = ("/queue/", "/heartbeat/", "/reset", "/cancel")
        return {
            path: RANDOM.sub(b"", bytes(body))
            for path, body in self.sent
            if not any(part in path for part in dynamic)
        }


def annotate(browser: Browser, folder: Path, names: Sequence[str]) -> Recorder:
    """Answer a study whose two systems have these names; return all that the browser received."""
    models = {name: replies(place, name, 6) for place, name in enumerate(names)}
    design = StudyDesign(design_items("pairwise", models, orders="given"), overlap=3)
    seen = []
    with open_store(folder, "") as store:
        store.begin(design.id, {"systems": list(names)})
        queue = StudyQueue(design, store, Settings(annotators=1, check_every=4))
        Context.id = 0  # Gradio numbers the components of all pages of a process
        recorder = Recorder(build_page(queue, "Study", None))
        with served(recorder) as address:  # pyright: ignore
            anna = opened(browser, address, "anna", DESKTOP)
            for key in ("1", "2", "ArrowLeft", "3", "s", "u", "b", "ArrowRight", "1", "2"):
                anna.press(key)
                seen += [anna.page.content(), anna.page.url]
            anna.page.goto(f"{address}?n=99")
            anna.waits_until_answered()
            anna.page.goto(f"{address}nowhere")
            seen.append(anna.page.content())
            assert not anna.errors
            anna.page.context.close()
    secret = [*names, design.id, str(folder), folder.name, "sqlite", "replies-"]
    for question in design.questions.values():
        secret += [question.key, question.item.key, question.item.swapped().key]
        secret += question.item.content
    received = b"".join(path.encode() + bytes(body) for path, body in recorder.sent)
    everything = received.decode("utf-8", "replace") + "".join(seen)
    told = json.dumps(recorder.results())
    assert all(text[:20] in told for text in ("Stir it **slowly**", "Take cornstarch, a spoon"))
    folded = everything.casefold()
    assert [one for one in secret if one.casefold() in folded] == []
    return recorder


def test_nothing_that_a_browser_receives_says_which_system_is_which(
    browser: Browser, tmp_path: Path
) -> None:
    first = annotate(browser, tmp_path / "vault-of-names", SYSTEMS)
    second = annotate(browser, tmp_path / "vault-of-others", SYSTEMS[::-1])
    assert len(first.results()) > 10
    assert first.results() == second.results(), "names change no byte of what events bring"
    pages = first.static(), second.static()
    assert len(pages[0]) > 10
    shared = pages[0].keys() & pages[1].keys()
    assert {path for path in shared if pages[0][path] != pages[1][path]} == set()
    assert "/chat/" in shared
