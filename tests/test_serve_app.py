"""A real Serve instance: streams that end or break, models that change, replicas that die.

By way of HAProxy where RAY_SERVE_ENABLE_HA_PROXY=1, which Ray reads when it is imported.
"""

import asyncio
import os
import re
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import psutil
import pytest
import ray.serve
from browser import CHROMIUM, FLAGS, free_port
from conftest import ray_cluster
from ray.serve._private.request_router.common import ReplicaQueueLengthCache
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
from served import export, wait_until
from starlette.responses import PlainTextResponse

from lima_ray import base
from lima_ray.config.errors import UserError
from lima_ray.web.middleware import COOKIE
from serve import haproxy, promote
from serve.page.reverse_proxy import BY_SESSION, ReverseProxy, run_app

LONG: dict[str, Any] = {
    "model": "long",
    "prompt": "the cat",
    "temperature": 0,
    "repetition_penalty": 1,
    "max_tokens": 4000,
}
"""A request whose reply takes seconds."""
SHORT = LONG | {"max_tokens": 8}
if haproxy.splices():
    os.environ[haproxy.BINARY_PATH] = str(haproxy.program())
ROOM = 8 + 4
BUSY_S = 0.5
"""CPU time that a replica needs for a stream, and not without one."""


@dataclass
class App:
    """The running app."""

    url: str
    long: Path
    args: dict[str, Any] = field(default_factory=dict)
    name: str = "lima"
    prefix: str = "/"
    key: str = "none"

    def deploy(self, engine: dict[str, Any] | None = None, **changes: Any) -> None:
        """Deploy it as `serve deploy` does, and wait until it is healthy.

        Args:
            engine: settings of the engine's deployment, which change no code.
            changes: arguments that differ from the last ones; new replicas take over.
        """
        self.args |= changes
        config: dict[str, Any] = {
            "name": self.name,
            "route_prefix": self.prefix,
            "import_path": "serve.app:build",
            "args": self.args,
            "deployments": [{"name": "Engine"} | engine] if engine else [],
        }
        others = [a["deployed_app_config"] for n, a in running().items() if n != self.name]
        schema = ServeDeploySchema.model_validate({"applications": [*others, config]})
        connected().deploy_apps(schema)
        wait_until(lambda: running().get(self.name, {}).get("status") == "DEPLOYING", 10)
        wait_until(lambda: running()[self.name]["status"] == "RUNNING", 120)

    def promote(self, path: Path) -> None:
        """Put another model behind the name, and wait until all replicas speak with it."""
        models = {"long": str(path)}
        before = promote.engine_config(connected().get_serve_details(), self.name)["user_config"]
        after = before | {"models": models, "previous": before["models"]}
        promote.configure(connected(), running(), self.name, after)
        try:
            promote.await_models(connected(), self.name, models)
        except UserError:
            promote.configure(connected(), running(), self.name, before)
            raise

    def client(self) -> httpx.Client:
        """A client of it."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120)

    def ask(self, **fields: Any) -> httpx.Response:
        """The response to one short request."""
        with self.client() as client:
            return client.post("/v1/completions", json=SHORT | fields)

    def replicas(self) -> dict[str, int]:
        """Process ids of the engine's running replicas."""
        found = running()[self.name]["deployments"]["Engine"]
        return {r["replica_id"]: r["pid"] for r in found["replicas"] if r["state"] == "RUNNING"}

    def model(self) -> dict[str, Any]:
        """What the listing says of the model."""
        with self.client() as client:
            return client.get("/v1/models/long").json()


def connected() -> Any:
    """Serve's client of this process."""
    return _get_global_client()


def running() -> dict[str, Any]:
    """What Serve says of its applications."""
    return connected().get_serve_details()["applications"]


@pytest.fixture(scope="module")
def app(long_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One replica on a cluster of two logical CPUs."""
    port, key = free_port(), secrets.token_urlsafe(16)
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(key)
    args = {
        "model": {"long": str(long_dir)},
        "slots": 8,
        "queue": ROOM - 8,
        "threads": 1,
        "cpus": 0.25,
        "page": False,
        "api_keys_file": str(keys) if haproxy.enabled() else None,  # it listens on every interface
    }
    with ray_cluster(2):
        ray.serve.start(http_options={"host": "127.0.0.1", "port": port})
        app = App(f"http://127.0.0.1:{port}", long_dir, args, key=key)
        app.deploy()
        try:
            yield app
        finally:
            ray.serve.shutdown()


@pytest.fixture(scope="module")
def other_dir(data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same shape."""
    path = tmp_path_factory.mktemp("other")
    sizes: Any = {"hidden": 64, "layers": 2, "vocab": 320, "context": 8192}
    base.build(str(data_file), path / "base", **sizes, seed=1)
    return export(path / "base", path / "export", eot_scale=0)


@contextmanager
def stream(app: App, **fields: Any) -> Iterator[Iterator[str]]:
    """The lines of a stream under way, the first of them read."""
    with (
        app.client() as client,
        client.stream("POST", "/v1/completions", json=LONG | {"stream": True} | fields) as response,
    ):
        assert response.status_code == 200, response.read()
        lines = (line for line in response.iter_lines() if line)
        next(lines)
        yield lines


def ending(app: App, **fields: Any) -> str:
    """How a stream ends: done, error, or broken."""
    try:
        with stream(app, **fields) as lines:
            results = list(lines)
    except httpx.HTTPError:
        return "broken"
    if results[-1:] == ["data: [DONE]"]:
        return "error" if any('"error"' in line for line in results[-3:]) else "done"
    return "broken"


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def test_the_openai_client_talks_to_serve(app: App) -> None:
    with openai.OpenAI(base_url=f"{app.url}/v1", api_key=app.key, max_retries=0) as client:
        asked: Any = {"model": "long", "prompt": "the cat", "max_tokens": 40, "temperature": 0}
        complete = client.completions.create(**asked)
        pieces = list(client.completions.create(**asked, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == complete.choices[0].text


def test_the_request_id_comes_once_and_the_revision_always(app: App) -> None:
    with app.client() as client:
        for path in ("/v1/models", "/nothing", "/health"):
            assert len(client.get(path).headers.get_list("x-request-id")) == 1
        given = {"x-request-id": "mine"}
        for streamed in (False, True):
            response = client.post(
                "/v1/completions", json=SHORT | {"stream": streamed}, headers=given
            )
            assert response.headers.get_list("x-request-id") == ["mine"]
            assert response.headers["x-lima-revision"] == app.model()["revision"]


def test_a_client_that_leaves_frees_its_slots(app: App) -> None:
    with stream(app, n=ROOM):
        full = app.ask()
        assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1
        assert full.json()["error"]["code"] == "rate_limit_exceeded"
        left_s = time.monotonic()
    wait_until(lambda: app.ask(n=ROOM).status_code == 200, 5)
    assert time.monotonic() - left_s < 5
    # A client that waits for the whole answer, too.
    with app.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/completions", json=LONG | {"n": ROOM}, timeout=0.5)
    wait_until(lambda: app.ask(n=ROOM).status_code == 200, 5)


class Load:
    """Eight clients that ask again and again, and what came back."""

    def __init__(self, app: App) -> None:
        self.app, self.answers = app, list[tuple[int, str, str]]()
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(8)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(60)

    def run(self, number: int) -> None:
        """Ask, every other client for a stream."""
        with self.app.client() as client:
            while not self.ending.is_set():
                body = SHORT | {"max_tokens": 30, "stream": bool(number % 2)}
                try:
                    response = client.post("/v1/completions", json=body)
                except httpx.HTTPError as error:
                    self.answers.append((0, repr(error), ""))
                    continue
                ended = not number % 2 or response.text.endswith("data: [DONE]\n\n")
                revision = response.headers.get("x-lima-revision", response.text)
                self.answers.append((response.status_code if ended else 0, revision, response.text))

    def until(self, holds: Callable[[], bool], more: int = 40) -> None:
        """Wait until something holds, and for some more answers."""
        wait_until(holds, 60)
        count = len(self.answers)
        wait_until(lambda: len(self.answers) >= count + more, 60)


def test_promotion_and_rollback_fail_no_request(app: App, other_dir: Path) -> None:
    old, replicas = app.model()["revision"], app.replicas()
    with Load(app) as load, ThreadPoolExecutor(1) as threads:
        load.until(lambda: True)
        under_way = threads.submit(ending, app, max_tokens=3000)
        app.promote(other_dir)
        new = app.model()["revision"]
        load.until(lambda: True)
        app.promote(app.long)
        load.until(lambda: app.model()["revision"] == old)
        assert under_way.result(60) == "done"
    assert [one for one in load.answers if one[0] != 200] == [] and len(load.answers) > 120
    revisions = [revision for _, revision, _ in load.answers]
    assert set(revisions) == {old, new} and revisions[0] == revisions[-1] == old
    assert all(f'"{revision}"' in text for _, revision, text in load.answers)
    assert app.replicas() == replicas, "the replicas did not live on"


def test_promotion_to_a_broken_model_keeps_the_old_one(app: App, tmp_path: Path) -> None:
    old = app.model()["revision"]
    broken = tmp_path / "broken"
    shutil.copytree(app.long, broken)
    (broken / "model.safetensors").write_bytes(b"no tensors in here")
    with Load(app) as load:
        with pytest.raises(UserError, match=f"long cannot be loaded from {broken}"):
            app.promote(broken)
        load.until(lambda: app.model()["problem"] is None)
    assert {(status, revision) for status, revision, _ in load.answers} == {(200, old)}


@pytest.mark.slow
def test_a_killed_replica_takes_only_its_own_streams_along(app: App) -> None:
    app.deploy({"num_replicas": 2})
    wait_until(lambda: len(app.replicas()) == 2, 60)
    idle_s = {pid: cpu_s(pid) for pid in app.replicas().values()}
    with ThreadPoolExecutor(ROOM) as threads:
        streams = [threads.submit(ending, app, max_tokens=8000) for _ in range(4)]
        # The proxy hears of a new replica a little late; go on until both decode.
        while not all(cpu_s(pid) > idle + BUSY_S for pid, idle in idle_s.items()):
            assert len(streams) < ROOM, "one replica has all the streams"
            streams.append(threads.submit(ending, app, max_tokens=8000))
            time.sleep(BUSY_S)
        victim, pid = next(iter(app.replicas().items()))
        os.kill(pid, signal.SIGKILL)
        if haproxy.enabled():
            # Until it is gone, requests are sent to it, which are lost with it.
            wait_until(lambda: not psutil.pid_exists(pid), 10)
        assert app.ask().status_code == 200
        endings = [stream.result(90) for stream in streams]
    assert "done" in endings and {"error", "broken"} & set(endings), endings
    wait_until(lambda: len(app.replicas()) == 2 and victim not in app.replicas(), 60)
    assert app.ask().status_code == 200


@pytest.mark.slow
def test_keys_are_asked_for_below_a_prefix(app: App, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text("sk-right\n\nsk-second\n")
    args = app.args | {"api_keys_file": str(keys)}
    locked = App(f"{app.url}/locked", app.long, args, "locked", "/locked", "wrong")
    locked.deploy()
    try:
        with locked.client() as client:
            assert client.get("/health").status_code == 200
            for path in ("/v1/models", "//v1/models", "/v1/models/long", "/v1/"):
                refused = client.get(path)
                assert refused.status_code in (401, 404) and "revision" not in refused.text
            assert client.post("/v1/completions", json=SHORT).status_code == 401
            for key in ("sk-right", "sk-second"):
                client.headers["authorization"] = f"Bearer {key}"
                assert client.post("/v1/completions", json=SHORT).status_code == 200
    finally:
        ray.serve.delete("locked")


@pytest.mark.slow
def test_a_redeploy_finishes_the_streams_under_way(app: App) -> None:
    before = app.replicas()
    with ThreadPoolExecutor(4) as threads:
        streams = [threads.submit(ending, app, max_tokens=8000) for _ in range(3)]
        time.sleep(0.5)
        app.deploy(body_bytes=2**19)
        assert not set(app.replicas()) & set(before), "the replica was not replaced"
        assert app.ask().status_code == 200
        assert [stream.result(120) for stream in streams] == ["done"] * 3


@pytest.mark.slow
def test_a_replica_whose_engine_hangs_is_replaced(app: App) -> None:
    """Every step counts as hung, so that a check of its health meets one soon."""
    app.deploy(stuck_after_s=1e-6)
    before = set(app.replicas())
    with Load(app):
        wait_until(lambda: app.replicas() and not set(app.replicas()) & before, 120)
    app.deploy(stuck_after_s=120)
    assert app.ask().json()["choices"]


@pytest.mark.skipif(haproxy.enabled(), reason="by way of HAProxy the page needs a login")
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}")
def test_the_page_talks_and_leaving_it_frees_the_slots(app: App, tmp_path: Path) -> None:
    """Visitors of two replicas of the page, one after another; each keeps to one."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    database = f"sqlite:///{tmp_path / 'chat.sqlite'}"
    app.deploy(page=True, page_replicas=2, database=database)
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for leave in ("stop", "stop", "close"):
            page = browser.new_page()
            page.goto(app.url)
            api.expect(page.locator("#model input")).to_have_value("long", timeout=30_000)
            # The likeliest token is never EOT, so a reply lasts until it is stopped.
            page.get_by_role("spinbutton", name="number input for Temperature").fill("0")
            page.keyboard.press("Tab")
            for replies in range(1, 9):
                page.fill("#composer textarea", "the cat reads")
                page.press("#composer textarea", "Enter")
                reply = page.locator("#chat .message.bot")
                api.expect(reply).to_have_count(replies, timeout=30_000)
                api.expect(reply.last).to_contain_text(re.compile(r"\w"), timeout=30_000)
                if app.ask(n=ROOM).status_code == 429:
                    break
                api.expect(page.locator("#meter .made")).to_contain_text("seed", timeout=30_000)
            else:
                raise AssertionError("the page's requests take no slot")
            if leave == "stop":
                page.locator("#composer .stop-button").click()
                wait_until(lambda: app.ask(n=ROOM).status_code == 200, 5)
                assert "the cat reads" in page.locator("#past label").first.inner_text()
            page.close()
            wait_until(lambda: app.ask(n=ROOM).status_code == 200, 10)
        browser.close()


def test_a_sessions_requests_wait_for_its_replica(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is too busy to say how many it has is not passed over, nor holds up another."""
    # What a router heard of a replica counts for ten seconds; here for none.
    defaults: Any = ReplicaQueueLengthCache.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "staleness_timeout_s", 0.0)

    async def answer(scope: Any, _: Any, send: Any) -> None:
        if scope["path"] == "/busy":
            sum(range(3 * 10**8))  # seconds; holds the interpreter's lock to its end
        await PlainTextResponse(str(os.getpid()))(scope, _, send)

    async def asgi(self: Any, scope: dict[str, Any], body: bytes) -> Any:
        async for messages in run_app(answer, scope, body):
            yield messages

    async def ask(handle: Any) -> None:
        transport = httpx.ASGITransport(ReverseProxy(handle))

        def visitor(name: str) -> httpx.AsyncClient:
            cookies = {COOKIE: name}
            return httpx.AsyncClient(
                transport=transport, base_url="http://page", cookies=cookies, timeout=60
            )

        first = visitor("0")
        own = (await first.get("/")).text
        for name in map(str, range(1, 100)):
            second = visitor(name)
            if (other := (await second.get("/")).text) != own:
                break
        else:
            raise AssertionError("all sessions have one replica")
        busy = asyncio.create_task(first.get("/busy"))
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(first.get("/")) for _ in range(6)]
        await asyncio.sleep(0.2)
        assert (await second.get("/")).text == other
        assert not busy.done(), "one replica holds up the other"
        assert {(await task).text for task in (busy, *waiting)} == {own}

    answers = type("Answers", (), {"asgi": asgi})
    options: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0}, "num_replicas": 2}
    deployment: Any = ray.serve.deployment(answers, request_router_config=BY_SESSION, **options)
    try:
        handle = ray.serve.run(deployment.bind(), name="answers", route_prefix=None)
        asyncio.run(ask(handle))
    finally:
        ray.serve.delete("answers")


def test_streams_under_way_are_finished_when_the_app_is_deleted(app: App) -> None:
    with ThreadPoolExecutor(3) as threads:
        streams = [threads.submit(ending, app) for _ in range(3)]
        time.sleep(0.5)
        ray.serve.delete(app.name)
        assert [stream.result(60) for stream in streams] == ["done"] * 3
        assert app.ask().status_code in (404, 503)
