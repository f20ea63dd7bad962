"""The chat page in headless Chromium, over the miniature's base and a real database."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, EngineChatClient, chromium, free_port, served
from postgres import Postgres, postgres_missing

from lima_ray.config.paths import PACKAGE
from lima_ray.data.examples import read_examples
from lima_ray.engine.engine import Engine
from lima_ray.records.verdict import Verdict
from serve.conversations.dialogue import Turn
from serve.conversations.store import Store
from serve.page.layout import PageSettings, build_page

pytest.importorskip("playwright.sync_api", reason="pip install playwright")
if not CHROMIUM.exists():
    pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, BrowserContext, Dialog, Page, ViewportSize, expect

PROMPTS = ["What is the capital of France?", "Where was Anna Bell born?"]
SLOW_S = 0.15
ROUNDS = 2
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The pretrained base that ships with the package."""
    return Engine(PACKAGE / "miniature" / "base", slots=4)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def context(browser: Browser) -> BrowserContext:
    """What the windows of new browsers share: the cache, so that each opens quickly."""
    return browser.new_context(viewport=DESKTOP)


class Site:
    """A page under test, its client and its store."""

    def __init__(self, engine: Engine, url: str, login_file: Path | None = None) -> None:
        """Name two models with the same weights, so that both talk at length."""
        self.client = EngineChatClient({"first": engine, "second": engine}, PROMPTS)
        self.store = Store(url)
        settings = PageSettings(title="Test page", login_file=login_file)
        self.page = build_page(self.client, self.store, settings)
        self.address = ""

    @contextmanager
    def open(self, port: int | None = None, dies: bool = False) -> Iterator["Site"]:
        """Serve it."""
        with served(self.page, port, dies) as self.address:
            yield self
        self.store.close()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite file that two servers use in turn."""
    return f"sqlite:///{tmp_path_factory.mktemp('chat')}/chat.sqlite"


@pytest.fixture(scope="module")
def site(engine: Engine, database: str) -> Iterator[Site]:
    """The page without logins."""
    with Site(engine, database).open() as site:
        yield site


class Window:
    """A browser window, its errors and the hosts that it asked."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        """Open the page and wait until it is drawn."""
        self.context = context
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.answered: set[str] = set()
        self.yes = True
        """The answer to what the page asks to confirm."""
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("response", lambda r: self.answered.add(urlsplit(r.url).netloc))
        self.page.on("dialog", self.answer_dialog)
        self.page.goto(address)
        expect(self.page.locator("#model input")).to_have_value("first", timeout=20_000)

    def send(self, text: str, box: str = "#composer") -> None:
        """Type a message and press Enter."""
        self.page.fill(f"{box} textarea", text)
        self.page.press(f"{box} textarea", "Enter")

    def texts(self, who: str = "bot") -> list[str]:
        """The messages shown, of one side."""
        return self.page.locator(f"#chat .message.{who}").all_inner_texts()

    def settle(self, replies: int) -> None:
        """Wait until so many replies are whole."""
        expect(self.page.locator("#chat .message.bot")).to_have_count(replies, timeout=20_000)
        expect(self.page.locator("#meter .made")).to_contain_text("seed", timeout=20_000)

    def is_asked(self) -> str:
        """Wait for a question to confirm, which is answered by `yes`, and return it."""
        deadline = time.monotonic() + 10
        while not self.asked:
            assert time.monotonic() < deadline, "nothing is asked"
            self.page.wait_for_timeout(20)
        return self.asked.pop()

    def answer_dialog(self, dialog: Dialog) -> None:
        """Answer a question."""
        self.asked.append(dialog.message)
        (dialog.accept if self.yes else dialog.dismiss)()

    def edit(self, nth: int, text: str) -> None:
        """Edit a message, once the page has put into the box what was said, and submit it."""
        self.press("Edit", nth)
        box = self.page.locator("#chat textarea").first
        expect(box).to_have_attribute("data-filled", "yes")
        box.fill(text)
        self.press("Submit")

    def press(self, label: str, nth: int = -1) -> None:
        """Press a button of a message."""
        self.page.get_by_role("button", name=label, exact=True).nth(nth).click()


@pytest.fixture
def window(context: BrowserContext, site: Site) -> Iterator[Window]:
    """A browser that comes for the first time; the page made no errors and asked nobody else."""
    site.client.pause_s = 0.0
    context.clear_cookies()
    window = Window(context, site.address)
    yield window
    assert window.errors == []
    assert window.answered - {""} == {urlsplit(site.address).netloc}
    window.page.close()


def until(true: Callable[[], bool], seconds: float = 10.0) -> float:
    """Wait for something to be so, and return how long that took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it does not happen"
        time.sleep(0.01)
    return time.monotonic() - began


def test_two_turns_stream_and_are_one_conversation(window: Window, site: Site) -> None:
    site.client.pause_s = 0.03
    expect(window.page.locator("#chat .example")).to_have_count(2)
    window.page.locator("#chat .example").first.click()
    lengths = set[int]()
    until(lambda: bool(window.texts()) and len(window.texts()[0]) > 1)
    for _ in range(8):
        lengths.add(len(window.texts()[0]))
        time.sleep(0.05)
    assert len(lengths) > 2, "the reply does not come word by word"
    window.page.fill("#composer textarea", "And of")
    window.settle(1)
    expect(window.page.locator("#composer textarea")).to_have_value("And of")
    window.send("And of Spain?")
    expect(window.page.locator("#composer textarea")).to_have_value("")
    window.settle(2)
    first, second = site.client.asked[-2:]
    assert second["messages"][0]["content"] == PROMPTS[0]
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert first["temperature"] == 0.7 and first["top_p"] == 0.9
    assert first["repetition_penalty"] == 1.2 and first["penalise_prompt"] is False
    meter = window.page.locator("#meter").inner_text()
    assert "revision revision-of-" in meter and "first token" in meter and "of 512 tokens" in meter
    expect(window.page.locator("#past label")).to_have_text([PROMPTS[0]])


def test_stop_frees_the_engine_and_keeps_what_was_said(window: Window, site: Site) -> None:
    site.client.pause_s = SLOW_S
    window.send(PROMPTS[0])
    until(lambda: bool(window.texts()) and len(window.texts()[0]) > 3)
    assert site.client.in_flight == 1
    window.page.locator("#composer .stop-button").click()
    assert until(lambda: site.client.in_flight == 0) < 3 * SLOW_S + 0.5
    expect(window.page.locator("#notice")).to_contain_text("what was said so far is kept")
    kept = window.texts()[0]
    site.client.pause_s = 0.0
    window.send("And of Spain?")
    window.settle(2)
    assert kept[:3] in site.client.asked[-1]["messages"][1]["content"]


def test_closed_tab_frees_the_engine(browser: Browser, site: Site) -> None:
    site.client.pause_s = SLOW_S
    window = Window(browser.new_context(viewport=DESKTOP), site.address)
    window.send(PROMPTS[0])
    until(lambda: site.client.in_flight == 1)
    window.page.close()
    until(lambda: site.client.in_flight == 0, 5)
    window.context.close()


def test_retry_takes_another_seed_and_undo_gives_the_text_back(window: Window, site: Site) -> None:
    window.send(PROMPTS[1])
    window.settle(1)
    asked = len(site.client.asked)
    window.press("Retry")
    until(lambda: len(site.client.asked) > asked and site.client.in_flight == 0)
    window.settle(1)
    first, second = site.client.asked[-2:]
    assert first["messages"] == second["messages"] and first["seed"] != second["seed"]
    window.yes = False
    window.press("Undo")
    question = window.is_asked()
    assert "only exchange" in question and "the conversation and its title" in question
    assert len(window.texts()) == 1, "nothing is lost without a yes"
    window.yes = True
    window.press("Undo")
    expect(window.page.locator("#composer textarea")).to_have_value(PROMPTS[1])
    assert window.texts() == []


def test_edited_question_is_answered_anew(window: Window, site: Site) -> None:
    window.send(PROMPTS[1])
    window.settle(1)
    window.send("And then?")
    window.settle(2)
    window.edit(0, "What is the capital of Italy?")
    assert "The 3 messages after this one" in window.is_asked()
    window.settle(1)
    assert window.texts("user") == ["What is the capital of Italy?"]
    assert site.client.asked[-1]["messages"] == [
        {"role": "user", "content": "What is the capital of Italy?"}
    ]


def test_repaired_reply_becomes_training_data(window: Window, site: Site, tmp_path: Path) -> None:
    window.page.click("#gear")
    window.page.fill("#system textarea", "Be short.")
    window.send(PROMPTS[0])
    window.settle(1)
    window.edit(1, "Paris, of course.")
    expect(window.page.locator("#chat .message.bot")).to_have_text("Paris, of course.")
    expect(window.page.locator("#notice")).to_contain_text("Your wording")
    with window.page.expect_download() as download:
        window.page.click("#export")
    download.value.save_as(tmp_path / "one.jsonl")
    (row,) = read_examples(str(tmp_path / "one.jsonl"))
    assert row.turns == (PROMPTS[0], "Paris, of course.")
    assert (row.system, row.source) == ("Be short.", "chat")
    kept = [d for d in site.store.dialogues() if d.id == row.id]
    assert kept[0].turns[1].original, "the model's own words are kept beside the repair"


def test_thumbs_are_kept_and_can_be_changed(window: Window, site: Site) -> None:
    window.send(PROMPTS[0])
    window.settle(1)
    for label, verdict in (("Like", "up"), ("Dislike", "down")):
        window.press(label)
        until(lambda verdict=verdict: [v.verdict for v in thumbs(site)] == [verdict])
    (verdict,) = thumbs(site)
    record = verdict.extra
    assert record["conversations"] == [PROMPTS[0]]

    def kept() -> Turn:
        return {d.id: d for d in site.store.dialogues()}[record["conversation"]].turns[1]

    until(lambda: kept().thumb == "down")
    assert record["replies"] == [kept().content]
    assert verdict.models == ("first",) and record["seeds"] == [site.client.asked[-1]["seed"]]


def thumbs(site: Site) -> list[Verdict]:
    """The thumbs that the store has."""
    return [v for v in site.store.verdicts() if v.kind == "thumbs"]


def test_compare_is_blind_until_the_vote(window: Window, site: Site) -> None:
    page, chosen = window.page, ""
    page.click("#compare-tab-button")
    for number in range(ROUNDS):
        asked = len(site.client.asked)
        window.send(f"{PROMPTS[0]} {number}", "#compare-composer")
        vote = page.get_by_role("button", name="B is significantly better")
        expect(vote).to_be_visible(timeout=20_000)
        assert len(site.client.asked) == asked + 2
        shown = page.locator("#sides").inner_text() + page.locator("#reveal").inner_text()
        assert "first" not in shown and "second" not in shown
        vote.click()
        expect(page.locator("#reveal")).to_contain_text("second")
        until(lambda number=number: len(votes(site)) == number + 1)
        cast = votes(site)[-1]
        winner = cast.models[cast.order[1]]
        assert winner in page.locator("#side-b").inner_text()
        assert cast.verdict == "B" and cast.models == ("first", "second")
        asked_of = {body["model"]: body for body in site.client.asked[-2:]}
        assert cast.extra["seeds"] == [asked_of[name]["seed"] for name in cast.models]
        if number:
            history = asked_of["first"]["messages"]
            assert history == asked_of["second"]["messages"]
            assert history[-2]["content"] == chosen
        chosen = cast.extra["replies"][cast.order[1]]


def votes(site: Site) -> list[Verdict]:
    """The votes that the store has, the oldest first."""
    return [v for v in site.store.verdicts() if v.kind == "pairwise"]


def answers(site: Site, window: Window) -> list[str]:
    """Replies of the conversation in a window, as they are stored."""
    shown = [d for d in site.store.dialogues() if d.id in window.page.url]
    return [turn.content for d in shown for turn in d.turns[1::2]]


def test_script_in_messages_and_replies_does_not_run(window: Window, site: Site) -> None:
    attack = (
        '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
        "[link](javascript:window.hacked=1) <svg onload=window.hacked=1> "
        "![picture](http://192.0.2.1/spy.png) <iframe srcdoc='<script>top.hacked=1</script>'>"
    )
    window.send(attack)
    window.settle(1)
    window.edit(1, attack)
    expect(window.page.locator("#notice")).to_contain_text("Your wording")
    window.page.fill("#name textarea", "<img src=x onerror=window.hacked=1>")
    window.page.press("#name textarea", "Enter")
    expect(window.page.locator("#past label")).to_have_text("<img src=x onerror=window.hacked=1>")
    for link in window.page.locator("#chat a", has_text="link").all():
        assert not (link.get_attribute("href") or "").startswith("javascript")
    assert window.page.evaluate("window.hacked") is None
    overlay = "<div style='position:fixed;inset:0;z-index:99'><form action=x><input></form></div>"
    boxes = "\\(\\kern{-99em}\\raisebox{99em}{\\rule{99em}{99em}}\\)"
    deep = "$$" + "\\frac{1}{" * 300 + "}" * 300 + "$$"
    for text in (overlay, boxes, deep):
        window.edit(1, text)
        expect(window.page.locator("#chat textarea")).to_have_count(0)
        until(lambda text=text: text in answers(site, window), 30)  # before the next edit begins
        top = "document.elementFromPoint(%s, 60).closest('#chat') === null"
        assert all(window.page.evaluate(top % x) for x in (100, 600, 1100))
        assert window.page.locator("#chat .md").locator("form, input, [style*=fixed]").count() == 0
    drawn = window.page.locator("#chat .message.bot code")
    expect(drawn).to_contain_text("frac", timeout=30_000)


def test_all_of_a_text_is_seen_and_mended(window: Window, site: Site) -> None:
    """What people type and models say is shown as it is, angle brackets included."""
    question = "What is List<int> in C++?\n  <think>plan</think> *a* & &lt; 1. x_y_z"
    reply = "**Loop:** while (i<n && n>0) &amp; <b>\n\n```c\nwhile (i<n && n>0)\n```\nor `a<b>c`"
    page = window.page
    window.send(question)
    window.settle(1)
    assert window.texts("user") == [question]
    for text in (reply, "<form action=x><input></form>"):
        window.press("Edit", 1)
        box = page.locator("#chat textarea")
        if text != reply:
            expect(box).to_have_value(reply)
        box.fill(text)
        window.press("Submit")
        seen = text.replace("**", "").replace("```c\n", "").replace("\n```", "").replace("`", "")
        until(lambda seen=seen: " ".join(window.texts()[0].split()) == " ".join(seen.split()))
    assert page.locator("#chat .md").locator("form, input, b, think").count() == 0
    window.press("Edit", 0)
    expect(page.locator("#chat textarea")).to_have_value(question)
    dialogue = next(d for d in site.store.dialogues() if d.turns[0].content == question)
    assert dialogue.turns[1].content == "<form action=x><input></form>"
    page.click("#compare-tab-button")
    window.send(question, "#compare-composer")
    expect(page.locator("#side-a .message.user")).to_have_text(question, use_inner_text=True)


def test_copied_message_is_what_was_said(window: Window) -> None:
    window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    window.send("Is a<b> *so*?")
    window.settle(1)
    window.press("Copy message", 0)
    until(lambda: window.page.evaluate("navigator.clipboard.readText()") == "Is a<b> *so*?")


def test_two_windows_of_one_conversation_lose_nothing(window: Window, site: Site) -> None:
    window.send(PROMPTS[0])
    window.settle(1)
    expect(window.page).to_have_url(re.compile(r"\?c=\w+$"))
    other = Window(window.context, window.page.url)
    other.settle(1)
    window.send("And of Spain?")
    window.settle(2)
    other.send("And of Italy?")
    expect(other.page.locator("#notice")).to_contain_text("went on in another window")
    expect(other.page.locator("#composer textarea")).to_have_value("And of Italy?")
    assert other.texts("user") == [PROMPTS[0], "And of Spain?"]
    other.page.press("#composer textarea", "Enter")
    other.settle(3)
    window.press("Undo")
    expect(window.page.locator("#notice")).to_contain_text("went on in another window")
    assert len(window.texts()) == 3
    (kept,) = [d for d in site.store.dialogues() if d.id in window.page.url]
    assert [turn.content for turn in kept.turns[::2]] == window.texts("user")
    other.page.close()


def test_mended_reply_and_thumb_are_not_lost_without_a_yes(window: Window) -> None:
    window.send(PROMPTS[0])
    window.settle(1)
    window.edit(1, "Paris, of course.")
    expect(window.page.locator("#chat .message.bot")).to_have_text("Paris, of course.")
    window.press("Like")
    until(lambda: "your thumb" in window.page.locator("#texts textarea").input_value())
    window.yes = False
    for label in ("Retry", "Undo"):
        window.press(label)
        assert "your wording of the reply and your thumb" in window.is_asked()
    expect(window.page.locator("#chat .message.bot")).to_have_text("Paris, of course.")


def test_reload_during_the_first_reply_keeps_it_and_says_that_it_is_cut(
    window: Window, site: Site
) -> None:
    site.client.pause_s = SLOW_S
    window.send(PROMPTS[0])
    until(lambda: bool(window.texts()) and len(window.texts()[0]) > 3)
    window.page.fill("#composer textarea", "typed, not sent")
    window.page.reload()
    expect(window.page.locator("#chat .message.bot")).to_contain_text("⋯ stopped here")
    expect(window.page.locator("#composer textarea")).to_have_value("typed, not sent")
    assert window.texts("user") == [PROMPTS[0]]
    window.page.click("#new")
    expect(window.page.locator("#chat .message")).to_have_count(0)
    window.send(PROMPTS[1])
    until(lambda: bool(window.texts()) and len(window.texts()[0]) > 3)
    window.page.click("#new")
    expect(window.page.locator("#chat .message")).to_have_count(0)
    window.page.locator("#past label", has_text=PROMPTS[1]).click()
    expect(window.page.locator("#chat .message.bot")).to_contain_text("⋯ stopped here")


def test_phone_has_no_sideways_scroll(browser: Browser, site: Site) -> None:
    site.client.pause_s = 0.0
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    window = Window(context, site.address)
    window.send("word" * 60 + "\n```\n" + "code " * 60 + "\n```")
    window.settle(1)
    for tab, box in (
        ("#chat-tab-button", "#composer"),
        ("#compare-tab-button", "#compare-composer"),
    ):
        window.page.click(tab)
        expect(window.page.locator(f"{box} textarea")).to_be_in_viewport()
        width = window.page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"]
    assert "open" not in (window.page.locator("#left").get_attribute("class") or "").split()
    window.context.close()


def test_conversations_outlive_a_restart_and_stay_their_owners(
    browser: Browser, engine: Engine, site: Site, database: str
) -> None:
    site.client.pause_s = 0.0
    window = Window(browser.new_context(viewport=DESKTOP), site.address)
    window.send(PROMPTS[1])
    window.settle(1)
    reply = window.texts()[0]
    expect(window.page.locator("#past label")).to_have_text([PROMPTS[1]])
    expect(window.page).to_have_url(re.compile(r"\?c=\w+$"))
    query = urlsplit(window.page.url).query
    cookies = window.context.storage_state()
    window.context.close()
    with Site(engine, database).open() as again:
        back = Window(browser.new_context(viewport=DESKTOP, storage_state=cookies), again.address)
        back.page.locator("#past label", has_text=PROMPTS[1]).click()
        expect(back.page.locator("#chat .message.bot")).to_have_text(reply)
        back.send("And then?")
        back.settle(2)
        back.context.close()
        stranger = Window(browser.new_context(), f"{again.address}?{query}")
        expect(stranger.page.locator("#notice")).to_contain_text("no such conversation")
        assert stranger.texts() == []
        expect(stranger.page.locator("#past label")).to_have_count(0)
        stranger.context.close()


def test_window_comes_back_when_its_server_died(
    browser: Browser, engine: Engine, tmp_path: Path
) -> None:
    url, port = f"sqlite:///{tmp_path}/chat.sqlite", free_port()
    with Site(engine, url).open(port, dies=True) as site:
        site.client.pause_s = SLOW_S
        window = Window(browser.new_context(viewport=DESKTOP), site.address)
        window.send(PROMPTS[0])
        until(lambda: bool(window.texts()) and len(window.texts()[0]) > 3)
        window.page.fill("#composer textarea", "typed meanwhile")
    with Site(engine, url).open(port):
        cut = window.page.locator("#chat .message.bot")
        expect(cut).to_contain_text("⋯", timeout=30_000)
        expect(window.page.locator("#composer textarea")).to_have_value("typed meanwhile")
        assert window.texts("user") == [PROMPTS[0]] and not window.errors
        window.context.close()


def test_rename_and_delete(window: Window, site: Site) -> None:
    window.send(PROMPTS[0])
    window.settle(1)
    window.page.fill("#name textarea", "Capitals")
    window.page.press("#name textarea", "Enter")
    expect(window.page.locator("#past label")).to_have_text(["Capitals"])
    window.page.click("#delete")
    expect(window.page.locator("#past label")).to_have_count(0)
    assert window.texts() == []
    assert not [d for d in site.store.dialogues() if d.title == "Capitals"]


def test_login_is_asked_and_kept(browser: Browser, engine: Engine, tmp_path: Path) -> None:
    logins = tmp_path / "logins.txt"
    logins.write_text("anna:open sesame\nbert:other\n")
    with Site(engine, f"sqlite:///{tmp_path}/chat.sqlite", logins).open() as site:
        context = browser.new_context(viewport=DESKTOP)
        page = context.new_page()
        page.goto(site.address)
        assert page.url.endswith("/chat/login")
        assert context.request.get(f"{site.address}config").status == 401
        for password, right in (("other", False), ("open sesame", True)):
            page.fill("[name=name]", "anna")
            page.fill("[name=password]", password)
            page.click("button")
            if not right:
                expect(page.get_by_role("alert")).to_contain_text("do not match")
        expect(page.locator("#model input")).to_have_value("first", timeout=20_000)
        (cookie,) = map(dict, context.cookies())
        assert cookie["name"] == "lima_session"
        assert cookie["httpOnly"] and cookie["sameSite"] == "Lax"
        forged = str(cookie["value"]).replace(".", "A.", 1)
        anonymous = browser.new_context()
        refused = anonymous.request.get(site.address, headers={"cookie": f"lima_session={forged}"})
        assert refused.status == 401
        anonymous.close()
        page.fill("#composer textarea", PROMPTS[0])
        page.press("#composer textarea", "Enter")
        until(lambda: any(len(d.turns) == 2 for d in site.store.dialogues()))
        (title,) = site.store.titles("user:anna")
        assert title[0] == PROMPTS[0]
        page.get_by_role("button", name="Log out").click()
        expect(page.locator("[name=password]")).to_be_visible()
        context.close()


@pytest.mark.skipif(bool(postgres_missing()), reason=postgres_missing())
def test_talk_goes_on_without_the_database(
    browser: Browser, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Postgres() as postgres, Site(engine, postgres.url).open() as site:
        window = Window(browser.new_context(viewport=DESKTOP), site.address)
        window.send(PROMPTS[0])
        window.settle(1)
        expect(window.page.locator("#past label")).to_have_text([PROMPTS[0]])
        postgres.kill()
        window.send("And of Spain?")
        window.settle(2)
        warning = window.page.locator("#saving")
        expect(warning).to_contain_text("Nothing is being saved", timeout=15_000)
        expect(warning).to_contain_text(PROMPTS[0])
        window.page.click("#new")
        expect(window.page.locator("#chat .message")).to_have_count(0)
        window.send(PROMPTS[1])
        window.settle(1)
        expect(warning).to_contain_text(PROMPTS[1], timeout=15_000)
        postgres.start()
        expect(warning).to_contain_text("2 changes", timeout=20_000)
        titles = [PROMPTS[1], PROMPTS[0]]
        expect(window.page.locator("#past label")).to_have_text(titles)
        counts = {d.name: len(d.turns) for d in site.store.dialogues()}
        assert counts == {PROMPTS[0]: 4, PROMPTS[1]: 2}
        window.context.close()
