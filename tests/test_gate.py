"""Who is let in: cookies, logins, other sites, other people's windows, sizes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lima_ray.errors import UserError
from serve.chat import PageSettings, build_page
from serve.store import Store
from serve.visitor import COOKIE, Passes, Visitor, read_logins

KEY = b"k" * 32
LOGINS = {"anna": "sesame", "bert": "other"}


class Silent:
    """A speaker that nobody asks here."""

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
    passes = Passes([KEY], None)
    visitor = Visitor("abc")
    value = passes.issue(visitor)
    assert passes.read(value) == visitor
    payload, _, signed = value.partition(".")
    for forged in (payload, f"{payload}.", f"{payload}x.{signed}", f".{signed}", "", "é.é"):
        assert passes.read(forged) is None
    assert Passes([b"x" * 32], None).read(value) is None
    assert Passes([KEY, b"new" * 9], None).read(value) == visitor, "an older key still counts"


def test_login_ends_with_the_password_and_the_name() -> None:
    passes = Passes([KEY], LOGINS)
    visitor = passes.log_in("anna", "sesame")
    assert visitor is not None and visitor.owner == "user:anna"
    value = passes.issue(visitor)
    assert passes.read(value) == visitor
    for wrong in (("anna", "other"), ("carl", "sesame"), ("", ""), ("anna", "")):
        assert passes.log_in(*wrong) is None
    assert Passes([KEY], {"anna": "changed"}).read(value) is None
    assert Passes([KEY], {"bert": "sesame"}).read(value) is None
    assert passes.read(Passes([KEY], None).issue(Visitor("abc"))) is None, "no way round the login"


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
