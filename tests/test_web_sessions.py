"""Who is let in: cookies, logins, other sites, other people's windows, sizes."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import wait_until
from starlette.testclient import TestClient

from lima_ray.errors import UserError
from lima_ray.web.limits import RateLimit
from lima_ray.web.login import CLIENT_GUESSES, GUESSES
from lima_ray.web.passwords import login_line, read_logins
from lima_ray.web.sessions import (
    COOKIE,
    Session,
    SessionCookies,
)
from serve.conversations.store import Store
from serve.page.layout import PageSettings, build_page

KEY = b"k" * 32
LOGINS = {"anna": "sesame", "bert": "other"}


def claims_of(cookie: str) -> dict[str, Any]:
    """What a cookie says."""
    payload = cookie.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


class Silent:
    """A client that nobody asks here."""

    async def models(self) -> list[dict[str, object]]:
        """No models."""
        return []

    def chat(self, body: dict[str, object]) -> None:
        """No replies."""
        raise AssertionError("nobody asks")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A page without logins."""
    store = Store(f"sqlite:///{tmp_path}/chat.sqlite")
    page = build_page(Silent(), store, PageSettings())  # pyright: ignore[reportArgumentType]
    with TestClient(page) as client:
        yield client
    store.close()


def test_cookie_names_its_bearer_and_cannot_be_made_up() -> None:
    cookies = SessionCookies([KEY], None)
    session = Session("abc")
    value = cookies.issue(session)
    assert cookies.read(value) == session
    payload, _, signed = value.partition(".")
    for forged in (payload, f"{payload}.", f"{payload}x.{signed}", f".{signed}", "", "é.é"):
        assert cookies.read(forged) is None
    assert SessionCookies([b"x" * 32], None).read(value) is None
    assert SessionCookies([KEY, b"new" * 9], None).read(value) == session, (
        "an older key still counts"
    )


def test_login_ends_with_the_password_and_the_name() -> None:
    cookies = SessionCookies([KEY], LOGINS)
    session = cookies.log_in("anna", "sesame")
    assert session is not None and session.owner == "user:anna"
    value = cookies.issue(session)
    assert cookies.read(value) == session
    for wrong in (("anna", "other"), ("carl", "sesame"), ("", ""), ("anna", "")):
        assert cookies.log_in(*wrong) is None
    assert SessionCookies([KEY], {"anna": "changed"}).read(value) is None
    assert SessionCookies([KEY], {"bert": "sesame"}).read(value) is None
    assert cookies.read(SessionCookies([KEY], None).issue(Session("abc"))) is None, (
        "no way round the login"
    )


def test_a_cookie_ends_with_its_time_and_at_logout(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for cookies, session, days in (
        (SessionCookies([KEY], LOGINS), Session("abc", "anna"), 30),
        (SessionCookies([KEY], None), Session("abc"), 365),
    ):
        value = cookies.issue(session)
        for age, good in ((days - 0.1, True), (days + 0.1, False)):
            monkeypatch.setattr("lima_ray.web.sessions.time", lambda age=age: now + age * 86400)
            assert (cookies.read(value) == session) == good
        monkeypatch.setattr("lima_ray.web.sessions.time", lambda: now)
        cookies.ended.add("abc")
        assert cookies.read(value) is None


def test_cookies_of_earlier_releases_keep_conversations_but_no_login() -> None:
    def of_earlier(session: Session, cookies: SessionCookies) -> str:
        claims = claims_of(cookies.issue(session))
        del claims["t"]
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return f"{payload}.{hmac.new(KEY, payload.encode(), hashlib.sha256).hexdigest()}"

    anonymous, closed = SessionCookies([KEY], None), SessionCookies([KEY], LOGINS)
    found = anonymous.read(of_earlier(Session("abc"), anonymous))
    assert found is not None and found == Session("abc") and found.needs_renewal, (
        "known, and renewed at the next visit"
    )
    assert closed.read(of_earlier(Session("abc", "anna"), closed)) is None


def test_a_visitor_without_a_login_keeps_the_session_by_a_new_cookie(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def session() -> str:
        return claims_of(client.cookies[COOKIE])["s"]

    client.get("/")
    before, now = session(), time.time()
    monkeypatch.setattr("lima_ray.web.sessions.time", lambda: now + 200 * 86400)
    assert "set-cookie" not in client.get("/config").headers
    assert "set-cookie" in client.get("/").headers and session() == before
    monkeypatch.setattr("lima_ray.web.sessions.time", lambda: now + 300 * 86400)
    assert "set-cookie" not in client.get("/").headers


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[list[TestClient]]:
    """Two replicas of a page with logins."""
    logins = tmp_path / "logins"
    logins.write_text("anna:sesame\nbert:other\n")
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
    told = [log_in("anna", f"guess {n}") for n in range(20)]
    assert told == [401] * GUESSES + [429] * (20 - GUESSES)
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


def test_login_file_is_read_or_its_line_named(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    path.write_text("# people\n\nanna:pass:word\nbert: x\n")
    assert read_logins(path) == {"anna": "pass:word", "bert": "x"}
    for text, complaint in (("anna\n", ":1 "), ("a:b\na:c\n", ":2 "), ("# none\n", "no login")):
        path.write_text(text)
        with pytest.raises(UserError, match=complaint):
            read_logins(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_logins(tmp_path / "missing")


def test_a_hash_of_the_login_file_takes_its_password_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "logins"
    path.write_text(login_line("anna", "sesame") + "\n")
    logins = read_logins(path)
    assert "sesame" not in path.read_text() and not caplog.messages
    cookies = SessionCookies([KEY], logins)
    session = cookies.log_in("anna", "sesame")
    assert session is not None and cookies.read(cookies.issue(session)) == session
    for wrong in (("anna", "other"), ("anna", logins["anna"]), ("carl", "sesame"), ("", "")):
        assert cookies.log_in(*wrong) is None
    changed = {"anna": login_line("anna", "sesame").partition(":")[2]}
    assert SessionCookies([KEY], changed).read(cookies.issue(session)) is None, "made anew"
    path.write_text(f"anna:{logins['anna']}\nbert:plain\n")
    assert SessionCookies([KEY], read_logins(path)).log_in("bert", "plain") is not None
    assert "bert in plain text" in caplog.text and "anna" not in caplog.text
    path.write_text("anna:$argon2id$broken\n")
    with pytest.raises(UserError, match=r":1 holds a broken hash; .*serve.login"):
        read_logins(path)
    for name, password in (("a:b", "x"), ("#a", "x"), ("", "x"), ("a\nb", "x"), ("anna", " ")):
        with pytest.raises(UserError):
            login_line(name, password)


def test_first_visit_gets_one_lasting_cookie(client: TestClient) -> None:
    first = client.get("/")
    assert first.status_code == 200
    header = first.headers["set-cookie"]
    assert header.startswith(f"{COOKIE}=") and "HttpOnly" in header and "SameSite=Lax" in header
    assert "Secure" not in header
    assert "set-cookie" not in client.get("/").headers
    client.cookies.clear()
    secure = client.get("/", headers={"x-forwarded-proto": "https"})
    assert "Secure" in secure.headers["set-cookie"]


def test_other_sites_cannot_act(client: TestClient) -> None:
    url = "/gradio_api/queue/join"
    body = {"data": [], "fn_index": 0, "session_hash": "w"}
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}):
        assert client.post(url, json=body, headers=headers).status_code == 403
    own = {"origin": "http://testserver"}
    assert client.post("/logout", headers=own, follow_redirects=False).status_code == 303


def test_window_belongs_to_whoever_opened_it(client: TestClient) -> None:
    client.get("/")
    url = "/config?session_hash=window"
    assert client.get(url).status_code == 200
    client.cookies.clear()
    assert client.get(url).status_code == 404
    assert client.get("/gradio_api/queue/data?session_hash=window").status_code == 404
    assert client.get("/gradio_api/heartbeat/window").status_code == 404


def test_unused_routes_and_large_bodies_are_refused(client: TestClient) -> None:
    for path in ("upload", "file=/etc/passwd", "proxy=http://192.0.2.1/", "call/say", "stream/x"):
        assert client.post(f"/gradio_api/{path}").status_code == 404
        assert client.get(f"/gradio_api/{path}").status_code == 404
    large = client.post("/gradio_api/queue/join", content=b"x" * 2_000_001)
    assert large.status_code == 413
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
