"""An annotation page (a study, a review) as one of its annotators uses it, in a real browser."""

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, ViewportSize

WAIT_MS = 90_000
Place = dict[str, Any]
"""What a page says of what it shows: `id`, `serial` and more."""


class Box(NamedTuple):
    """A rectangle on the screen, in pixels."""

    x: float
    y: float
    width: float
    height: float


class AnnotationPage:
    """The page in a browser context of an annotator's own, and what was pressed there."""

    def __init__(
        self,
        browser: "Browser",
        address: str,
        name: str,
        shown: str,
        viewport: "ViewportSize | None" = None,
    ) -> None:
        """Open the page, give the name, and wait until `shown`, a selector, is visible."""
        self.name, self.shown = name, shown
        self.page: Page = browser.new_context(viewport=viewport).new_page()
        self.errors: list[str] = []
        self.asked: set[str] = set()
        """Hosts that the page asks for anything."""
        self.pressed: list[tuple[str, Place, Place]] = []
        """Keys that the server answered, each with the place before and after it."""
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda r: self.asked.add(urlsplit(r.url).netloc))
        self.page.goto(address)
        self.page.get_by_label("Your name").fill(name, timeout=WAIT_MS)
        self.page.click("#begin")
        self.page.locator(shown).wait_for(timeout=WAIT_MS)

    @property
    def place(self) -> Place:
        """What the page shows."""
        return json.loads(self.page.locator("#place textarea").input_value() or "{}")

    def press(self, key: str) -> None:
        """Press a key that the server answers."""
        before = self.place
        self.page.keyboard.press(key)
        deadline = time.monotonic() + WAIT_MS / 1000
        while self.place.get("serial") == before["serial"]:
            assert time.monotonic() < deadline, f"no answer to {key}"
            self.page.wait_for_timeout(20)
        self.pressed.append((key, before, self.place))
        self.page.wait_for_timeout(100)  # the page takes up the answer in its next frames

    def waits_until_answered(self) -> None:
        """Wait until the page is there again, by itself."""
        deadline = time.monotonic() + WAIT_MS / 1000
        while self.page.locator("body.late").count() or "id" not in self.place:
            assert time.monotonic() < deadline, "the page does not come back"
            self.page.wait_for_timeout(100)
        self.page.wait_for_timeout(200)

    def reload(self) -> None:
        """Reload the page, and wait until it shows something again."""
        self.page.reload()
        self.waits_until_answered()

    def box(self, name: str) -> Box:
        """Where something is on the screen."""
        found = self.page.locator(name).bounding_box()
        assert found is not None, name
        return Box(**found)
