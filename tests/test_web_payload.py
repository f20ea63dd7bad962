"""What a browser may send to Gradio: no files, no other's window, no other route."""

import json
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from test_web_middleware import Silent

from lima_ray.web.payload import MAX_NAME_CHARACTERS
from serve.conversations.store import Store
from serve.page.layout import PageSettings, build_page

JOIN = "/gradio_api/queue/join"
FILE = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A page whose copies of files, if there were any, would be seen."""
    folder = tmp_path_factory.mktemp("page")
    store = Store(f"sqlite:///{folder}/chat.sqlite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "copies"))
        app = build_page(Silent(), store, PageSettings())  # pyright: ignore[reportArgumentType]
        with TestClient(app) as client:
            client.get("/")
            yield client
    assert not list(folder.glob("copies/**/*"))
    store.close()


@pytest.fixture
def client(page: TestClient) -> Iterator[TestClient]:
    """The session whose window is called "own"."""
    cookies = dict(page.cookies)
    yield page
    page.cookies.clear()
    page.cookies.update(cookies)


def event(*data: object, **more: object) -> bytes:
    return json.dumps({"data": data, "fn_index": 2, "session_hash": "own"} | more).encode()


def spelt(text: str) -> str:
    """JSON whose keys are written letter by letter."""
    for word in ("path", "meta", "_type", "data"):
        text = text.replace(f'"{word}"', '"' + "".join(f"\\u{ord(c):04x}" for c in word) + '"')
    return text


@pytest.mark.parametrize("path", [JOIN, "/gradio_api/run/predict", "/gradio_api/run/predict/"])
@pytest.mark.parametrize(
    "body",
    [
        event(None, "", FILE),
        event(None, "", [FILE]),
        event(None, "", {"text": "x", "files": [FILE]}),
        event(None, "", {"url": "http://192.0.2.1/"}),
        event("x", event_data={"value": [FILE]}),
        spelt(event(FILE).decode()).encode(),
        event(FILE).decode().encode("utf-16"),
        event(FILE).decode().encode("utf-32"),
        event("x")[:-1] + b', "data": [' + json.dumps(FILE).encode() + b"]}",
        b"[" * 100_000,
        b"\xff\xfe",
        b'["x"]',
        b"",
    ],
)
def test_files_and_structures_are_refused(client: TestClient, path: str, body: bytes) -> None:
    for kind in ("application/json", "text/plain", "application/x-json"):
        assert client.post(path, content=body, headers={"content-type": kind}).status_code == 400


def test_plain_values_are_passed_on_as_they_were_parsed(client: TestClient) -> None:
    twice = b'{"data": [' + json.dumps(FILE).encode() + b"], " + event(None, "", "\ud800")[1:]
    for body in (event(None, "", "Hi", 0.7, True), twice):
        answer = client.post(JOIN, content=body, headers={"content-type": "text/plain"})
        assert answer.status_code == 200 and answer.json()["event_id"]


def test_other_routes_that_take_data_are_closed(client: TestClient) -> None:
    for path in ("upload", "api/predict", "call/say", "call/v2/say", "run/say", "component_server",
                 "process_recording", "vibe-edit", "stream/x", "queue//join"):  # fmt: skip
        for prefix in ("/gradio_api/", "/"):
            assert client.post(prefix + path, content=event("x")).status_code == 404
    assert client.put(JOIN, content=event("x")).status_code == 404
    assert client.get("/gradio_api/deep_link?session_hash=own").status_code == 404


def test_nobody_posts_into_anothers_window(client: TestClient) -> None:
    assert client.get("/config?session_hash=own").status_code == 200
    assert client.post(JOIN, content=event("x")).status_code == 200
    client.cookies.clear()
    client.get("/")
    for path in (JOIN, "/gradio_api/run/predict", "/gradio_api/cancel"):
        assert client.post(path, content=event("x", event_id="1")).status_code == 404
    assert client.post(f"{JOIN}?session_hash=mine", content=event("x")).status_code == 404
    for query in ("session_hash=mine&session_hash=own", "session_hash=own&session_hash=mine"):
        assert client.get(f"/config?{query}").status_code == 404
        assert client.get(f"/gradio_api/queue/data?{query}").status_code == 404
    assert client.get("/config?session_hash=mine&session_hash=mine").status_code == 200


def test_long_or_missing_names_of_windows_are_not_kept(client: TestClient) -> None:
    for name in ("w" * (MAX_NAME_CHARACTERS + 1), "w" * 60_000, 7, None, ["own"], {}):
        assert client.post(JOIN, content=event("x", session_hash=name)).status_code in (400, 404)
    long = "w" * (MAX_NAME_CHARACTERS + 1)
    assert client.get(f"/config?session_hash={long}").status_code == 404
    assert client.get(f"/gradio_api/heartbeat/{long}").status_code == 404
