"""What a client may hold: half-sent bodies, bodies that are too long, requests at once."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from served import Hosted, hosted
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from lima_ray.web import limits
from lima_ray.web.limits import LimitsMiddleware, RequestLimit
from lima_ray.web.requests import HttpError, client_address
from serve.arguments import Access, networks

OF_CLIENT = 40
JSON = {"content-type": "application/json"}
ASKED = json.dumps({"model": "brief", "prompt": "the cat", "max_tokens": 4}).encode()


@pytest.fixture(scope="module")
def host(brief_dir: Path) -> Iterator[Hosted]:
    """A server that knows one name and lets a client hold few requests."""
    with hosted(
        {"brief": brief_dir}, of_client=OF_CLIENT, names=frozenset({"lab.example"})
    ) as host:
        yield host


@contextmanager
def half_sent(host: Hosted, count: int) -> Iterator[list[socket.socket]]:
    """Requests whose bodies do not come."""
    port = int(host.url.rpartition(":")[2])
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(ASKED)}\r\n\r\n"
    )
    with ExitStack() as stack:
        found = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(head.encode() + ASKED[:3])
            client.settimeout(10)
            found.append(client)
        yield found


def status(client: socket.socket) -> int:
    return int(client.recv(9999).split()[1])


def test_half_sent_bodies_keep_nobody_out_and_are_given_up(
    host: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with half_sent(host, 150) as waiting, host.client() as client:
        assert client.get("/health").status_code == 200
        fine = client.post("/v1/completions", content=ASKED, headers=JSON)
        assert fine.status_code == 200, fine.text
        assert {status(early) for early in waiting[: 150 - OF_CLIENT]} == {408}
        waiting[-1].sendall(ASKED[3:])
        assert status(waiting[-1]) == 200, "a slow client may still end what it began"
    monkeypatch.setattr(limits, "BODY_S", 0.2)
    with half_sent(host, 3) as waiting:
        assert [status(late) for late in waiting] == [408] * 3


def test_a_body_is_bounded_whatever_its_header_says(brief_dir: Path) -> None:
    with hosted({"brief": brief_dir}, body_bytes=2000) as host, host.client() as client:
        for content in (b" " * 2001, iter([b" " * 1500] * 2)):
            long = client.post("/v1/completions", content=content, headers=JSON)
            assert long.status_code == 413 and long.json()["error"]["code"] == "request_too_large"
        short = client.post("/v1/completions", content=iter([ASKED[:9], ASKED[9:]]), headers=JSON)
        assert short.status_code == 200


def test_the_name_of_another_server_is_refused(host: Hosted) -> None:
    with host.client() as client:
        for name in ("evil.example", "evil.example:80", "127.0.0.1.nip.io"):
            refused = client.get("/v1/models", headers={"host": name})
            assert refused.status_code == 421 and "hosts=" in refused.text
        for name in ("lab.example", "localhost:1", "[::1]"):
            assert client.get("/v1/models", headers={"host": name}).status_code == 200


# The middleware by itself


def scope(client: str, path: str = "/chat/", **headers: str) -> Scope:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "path": path, "headers": pairs, "client": (client, 1)}


async def nothing(message: Message) -> None:
    """Send to nobody."""


async def never() -> Message:
    return await asyncio.get_running_loop().create_future()


def test_one_client_takes_its_part_and_another_kind_its_own() -> None:
    held = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await held.wait()
        await Response()(scope, receive, send)

    async def main() -> None:
        page, api = RequestLimit("the page", 10, 6, 100), RequestLimit("the API", 2, 2, 100)
        limit = LimitsMiddleware(app, {"/chat": page, "/v1": api})

        def ask(*args: Any, **headers: str) -> asyncio.Task[None]:
            return asyncio.create_task(limit(scope(*args, **headers), never, nothing))

        mine = [ask("192.0.2.1") for _ in range(6)]
        await asyncio.sleep(0)
        for client, status in (("192.0.2.1", 429), ("192.0.2.2", None)):
            more = [ask(client) for _ in range(4)]
            await asyncio.wait(more, timeout=0.05)
            refused = [t.exception() for t in more if t.done()]
            assert len(refused) == (4 if status else 0)
            assert all(isinstance(e, HttpError) and e.status == status for e in refused)
            mine += [] if status else more
        with pytest.raises(HttpError, match=r"10 in all.*try again") as full:
            await ask("192.0.2.3")
        assert full.value.status == 503 and full.value.headers["Retry-After"]
        other = ask("192.0.2.1", "/v1/models")
        health = ask("192.0.2.3", "/health")
        await asyncio.sleep(0.01)
        assert not other.done() and not health.done()
        held.set()
        await asyncio.gather(*mine, other, health)
        assert not page.held and not api.held
        await ask("192.0.2.3")

    asyncio.run(main())


def test_the_start_of_a_server_passes() -> None:
    scopes: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope["type"])

    asyncio.run(LimitsMiddleware(app, {})({"type": "lifespan"}, never, nothing))
    assert scopes == ["lifespan"]


def test_the_oldest_body_gives_way_where_all_clients_wait() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"whole"

    async def complete() -> Message:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"whole", "more_body": False}

    async def main() -> None:
        limit = LimitsMiddleware(app, {"/chat": RequestLimit("the page", 9, 5, 100)})
        post = {"content_length": "5"}
        slow = [
            asyncio.create_task(limit(scope(f"192.0.2.{n}", **post), never, nothing))
            for n in range(9)
        ]
        await asyncio.sleep(0.01)
        await limit(scope("198.51.100.1", **post), complete, nothing)
        await asyncio.sleep(0.01)
        ended = [task for task in slow if task.done()]
        assert ended == slow[:1]
        with pytest.raises(HttpError) as late:
            await slow[0]
        assert late.value.status == 408
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(main())


def test_a_client_is_its_address_and_only_our_proxy_names_another() -> None:
    def named(peer: str, forwarded: bool, *values: str, proxies: str = "") -> str:
        headers = [(b"x-forwarded-for", value.encode()) for value in values]
        request = {"type": "http", "headers": headers, "client": (peer, 1)}
        return client_address(request, Headers(scope=request), forwarded, networks(proxies))

    assert named("192.0.2.1", False, "10.0.0.1") == "192.0.2.1"
    assert named("192.0.2.1", True, "10.0.0.1, 10.0.0.2", "10.0.0.3") == "10.0.0.3"
    assert named("127.0.0.1", False, "10.0.0.1, 10.0.0.2") == "10.0.0.2"
    assert named("127.0.0.1", False) == "127.0.0.1"

    # What ends TLS is skipped, and no more: what stands before, anyone may have written.
    both, tls = ("6.6.6.6, 192.0.2.1", "10.0.0.3"), "10.0.0.3"
    assert named("127.0.0.1", True, *both) == "10.0.0.3"
    assert named("127.0.0.1", True, *both, proxies=tls) == "192.0.2.1"
    assert named("127.0.0.1", True, *both, proxies="::1, 10.0.0.0/24") == "192.0.2.1"
    assert named("10.0.0.3", False, "6.6.6.6, 192.0.2.1", proxies=tls) == "192.0.2.1"
    assert named("10.0.0.4", False, *both, proxies=tls) == "10.0.0.4"
    assert named("127.0.0.1", True, "6.6.6.6, 127.0.0.1") == "127.0.0.1"
    assert named("127.0.0.1", True, "192.0.2.1, 127.0.0.1", proxies="127.0.0.1") == "192.0.2.1"
    assert named("10.0.0.3", True, "", proxies=tls) == "10.0.0.3"
    # Some proxies add the port.
    assert named("127.0.0.1", True, "192.0.2.1:5060, 10.0.0.3:443", proxies=tls) == "192.0.2.1"
    assert named("127.0.0.1", True, "[2001:db8::1]:443") == "2001:db8::1"
    assert named("127.0.0.1", True, "2001:db8::1") == "2001:db8::1"
    with pytest.raises(ValueError, match="tls"):
        Access(trusted_proxies="10.0.0.3, tls.example")
