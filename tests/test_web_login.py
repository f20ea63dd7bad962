"""Logging in and out, and guesses of a password."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import wait_until
from starlette.testclient import TestClient
from test_web_middleware import Silent

from lima_ray.web.limits import RateLimit
from lima_ray.web.login import CLIENT_GUESSES, GUESSES
from lima_ray.web.passwords import login_line
from lima_ray.web.sessions import COOKIE
from serve.conversations.store import Store
from serve.page.layout import PageSettings, build_page


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[list[TestClient]]:
    """Two replicas of a page with logins, one in plain text and one as a hash."""
    logins = tmp_path / "logins"
    logins.write_text(f"anna:sesame\n{login_line('bert', 'other')}\n")
    stores = [Store(f"sqlite:///{tmp_path}/chat.sqlite") for _ in range(2)]
    settings = PageSettings(login_file=logins)
    pages = [build_page(Silent(), store, settings) for store in stores]  # pyright: ignore
    with TestClient(pages[0]) as first, TestClient(pages[1]) as second:
        yield [first, second]
    for store in stores:
        store.close()


def test_logout_ends_the_cookie_on_every_replica(
    closed: list[TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lima_ray.web.page.SECRET_RETRY_S", 0.05)
    first, second = closed
    first.post("/login", data={"name": "anna", "password": "sesame"})
    cookie = first.cookies[COOKIE]
    for client in closed:
        client.cookies.set(COOKIE, cookie)
        assert client.get("/config").status_code == 200
    first.post("/logout")
    first.cookies.set(COOKIE, cookie)
    assert first.get("/config").status_code == 401
    wait_until(lambda: second.get("/config").status_code == 401, 10)


def test_guesses_of_a_password_are_few(
    closed: list[TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lima_ray.web.login.WRONG_WAIT_S", 0)
    client = closed[0]

    def log_in(name: str, password: str) -> int:
        fields = {"name": name, "password": password}
        return client.post("/login", data=fields, follow_redirects=False).status_code

    assert log_in("anna", "sesame") == 303
    statuses = [log_in("anna", f"guess {n}") for n in range(20)]
    assert statuses == [401] * GUESSES + [429] * (20 - GUESSES)
    assert log_in("bert", "other") == 303, "others behind the same address still enter"
    late = client.post("/login", data={"name": "anna", "password": "sesame"})
    assert late.status_code == 429 and int(late.headers["retry-after"]) == 300
    later_s = time.monotonic() + 301
    monkeypatch.setattr("lima_ray.web.limits.monotonic", lambda: later_s)
    assert log_in("anna", "sesame") == 303


def test_guesses_of_one_address_are_few_over_all_names(
    closed: list[TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lima_ray.web.login.WRONG_WAIT_S", 0)

    def log_in(name: str, password: str) -> int:
        fields = {"name": name, "password": password}
        return closed[0].post("/login", data=fields, follow_redirects=False).status_code

    assert {log_in(f"name {n}", "x") for n in range(CLIENT_GUESSES - 1)} == {401}
    assert [log_in("bert", "other") for _ in range(3)] == [303] * 3, "right ones do not count"
    assert [log_in("one more", "x"), log_in("one more", "x")] == [401, 429]
    assert log_in("bert", "other") == 429


def test_guesses_are_counted_by_name_too_and_forgotten_in_time() -> None:
    guesses = RateLimit(2, window_s=0.2)
    assert guesses.wait_s("anna") == 0
    guesses.count("anna")
    assert guesses.wait_s("anna") == 0
    guesses.count("anna")
    assert 0 < guesses.wait_s("anna") <= 0.2 and guesses.wait_s("bert") == 0
    wait_until(lambda: not guesses.wait_s("anna"), 5)
    guesses.count("anna")
    guesses.count("anna")
    guesses.forget("anna")
    assert guesses.wait_s("anna") == 0
