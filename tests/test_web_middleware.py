"""Who is let in: sessions, other sites, other people's windows, sizes."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from test_web_sessions import claims_of

from lima_ray.web.sessions import COOKIE
from serve.conversations.store import Store
from serve.page.layout import PageSettings, build_page


class Silent:
    """A client that nobody asks here."""

    async def models(self) -> list[dict[str, object]]:
        return []

    def chat(self, body: dict[str, object]) -> None:
        raise AssertionError("nobody asks")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    store = Store(f"sqlite:///{tmp_path}/chat.sqlite")
    page = build_page(Silent(), store, PageSettings())  # pyright: ignore[reportArgumentType]
    with TestClient(page) as client:
        yield client
    store.close()


def test_a_browser_without_a_login_keeps_the_session_by_a_new_cookie(
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
