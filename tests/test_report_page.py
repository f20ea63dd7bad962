"""The report's page in a real browser: it runs nothing of others, filters, and fits a phone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, chromium
from judged import pair, reply, single, write_replies, write_verdicts

from lima_ray.judging.questions.verdicts import Annotator
from lima_ray.judging.report.arguments import ReportCommand
from lima_ray.report import main

pytest.importorskip("playwright")
if not CHROMIUM.exists():
    pytest.skip(f"no browser at {CHROMIUM}", allow_module_level=True)

ANNA, GPT = Annotator("anna<script>hit('name')</script>"), Annotator("gpt-4", "endpoint")
EVIL = """<script>hit('tag')</script><img src=x onerror="hit('image')"><a href="javascript:hit()">
[link](javascript:hit('link')) ![image](http://127.0.0.1:9/spy.png) </details></div></body>

# A heading

- a list with **bold**

```html
<script>hit('code')</script>
```
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of forty prompts, on one of which a reply attacks the reader."""
    folder = tmp_path_factory.mktemp("study")
    lima, bard, found = [], [], []
    for number in range(40):
        evil = EVIL if number == 3 else ""
        group = "ood" if number < 10 else "in"
        lima.append(reply("lima", f"p{number}", evil, group=group))
        bard.append(reply("bard", f"p{number}", group=group))
        outcome = ("win", "tie", "lose")[number % 3]
        found.append(pair(ANNA, lima[-1], bard[-1], outcome, explanation=evil))
        if number < 20:
            found.append(pair(GPT, lima[-1], bard[-1], "win"))
            choice = "fail" if number < 8 else "pass"
            found.append(single(GPT, "audit", lima[-1], choice, explanation=evil))
    sources = [write_replies(folder / rows[0].model, rows) for rows in (lima, bard)]
    replies = tuple(f"{source.name}={source}" for source in sources)
    judged = write_verdicts(folder / "judged", found)
    main(ReportCommand(verdicts=(judged,), replies=replies, out=folder / "out"))
    return folder / "out" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def opened(browser: Any, report: Path, **context: Any) -> tuple[Any, list[str], list[str]]:
    """The page as a reader opens the file, what ran of others, and what was asked for."""
    page = browser.new_context(**context).new_page()
    hits: list[str] = []
    asked: list[str] = []
    page.expose_function("hit", lambda what: hits.append(str(what)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    return page, hits, asked


def test_nothing_of_a_reply_or_a_verdict_runs_or_loads(browser: Any, report: Path) -> None:
    page, hits, asked = opened(browser, report)
    evil = page.locator("details.item").nth(3)
    evil.locator("> summary").click()
    assert evil.locator(".reply h1").inner_text() == "A heading"
    assert evil.locator(".reply strong").inner_text() == "bold"
    shown = evil.locator(".reply").first.inner_text()
    assert "<script>hit('tag')</script>" in shown and "<script>hit('code')</script>" in shown
    assert evil.locator(".reply img, .reply a[href^=javascript], .reply script").count() == 0
    assert page.locator("body > script").count() == 1
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}
    page.evaluate(  # even what would slip through: the page's policy stops it
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"hit(1)\">')"
    )
    page.wait_for_timeout(200)
    assert hits == []


def test_replies_are_filtered_by_verdict_group_and_words(browser: Any, report: Path) -> None:
    page, _, _ = opened(browser, report)
    label, group = page.locator(".filters select").all()
    shown = page.locator("details.item:visible")
    assert shown.count() == 40
    label.select_option(label="some reply fails (8)")
    assert shown.count() == 8 and page.locator(".filters output").inner_text() == "8 of 40"
    label.select_option(label="bard against lima: neither (13)")
    assert shown.count() == 13
    group.select_option(label="ood")
    assert shown.count() == 3
    label.select_option(label="all verdicts")
    group.select_option(label="all groups")
    page.locator(".filters input").fill("why P7?")
    assert shown.count() == 1
    page.locator(".filters button").click()
    assert shown.locator(".side").count() == 2 and shown.locator(".side").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(browser: Any, report: Path, scheme: str) -> None:
    size = {"width": 390, "height": 844}
    page, _, _ = opened(browser, report, viewport=size, color_scheme=scheme)
    page.locator("details.item > summary").nth(3).click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert all(
        page.evaluate("[...document.images].map((one) => one.complete && one.naturalWidth > 0)")
    )
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
