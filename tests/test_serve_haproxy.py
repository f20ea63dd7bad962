"""HAProxy as Ray would start it: a client that leaves is noticed."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from browser import free_port
from served import wait_until

from lima_ray.config.errors import UserError
from serve import haproxy

CONFIGURATION = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option abortonclose
    option splice-request
    option splice-response
frontend prometheus
    bind :{metrics_port}
    http-request use-service prometheus-exporter if {{ path /metrics }}
frontend http_frontend
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    server replica 127.0.0.1:{replica_port}
listen stats
  bind *:{stats_port}
  stats enable
"""
"""What of Ray's configuration is looked at here."""


@contextmanager
def proxy(program: Path, folder: Path, replica_port: int) -> Iterator[int]:
    """HAProxy on a port of the loopback."""
    port = free_port()
    file = folder / "haproxy.cfg"
    others = {"metrics_port": free_port(), "stats_port": free_port()}
    file.write_text(CONFIGURATION.format(port=port, replica_port=replica_port, **others))
    running = subprocess.Popen([program, "-db", "-f", file])
    try:

        def listens() -> bool:
            with socket.socket() as trial:
                return trial.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, 10)
        yield port
    finally:
        running.terminate()
        running.wait(10)


def test_a_client_that_leaves_before_the_answer_is_noticed(tmp_path: Path) -> None:
    try:
        program = haproxy.program()
    except UserError as error:
        pytest.skip(str(error))
    with (
        socket.create_server(("127.0.0.1", 0)) as replica,
        proxy(program, tmp_path, replica.getsockname()[1]) as port,
    ):
        replica.settimeout(10)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\n\r\n")
            asked, _ = replica.accept()
            with asked:
                asked.settimeout(10)
                assert asked.recv(1000).endswith(b"\r\n\r\n")
                client.sendall(b"body")  # apart from its head, so that it could be spliced
                assert asked.recv(1000) == b"body"
                threading.Timer(0.3, client.close).start()
                with suppress(ConnectionResetError):  # as good as closed
                    assert asked.recv(1000) == b""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HAProxy that waits a second for a head, and takes few connections of an address."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(haproxy, "HEAD_S", 1)
    monkeypatch.setattr(haproxy, "CONNECTIONS", 5)
    try:
        return haproxy.program()
    except UserError as error:
        pytest.skip(str(error))


def test_heads_and_connections_are_bounded(program: Path, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as replica,
        proxy(program, tmp_path, replica.getsockname()[1]) as port,
        ExitStack() as stack,
    ):

        def client(sent: bytes) -> socket.socket:
            found = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            found.settimeout(10)
            with suppress(OSError):  # it may be refused before all is sent
                found.sendall(sent)
            return found

        head = b"GET / HTTP/1.1\r\nHost: here\r\n"
        assert client(head + b"X: " + b"a" * 2**20).recv(100).startswith(b"HTTP/1.1 400")
        assert client(head).recv(100).startswith(b"HTTP/1.1 408")
        replica.settimeout(10)
        asking = client(head + b"X-Forwarded-For: 192.0.2.9\r\n\r\n")
        asked = stack.enter_context(replica.accept()[0])
        seen = asked.recv(1000).lower()
        assert seen.rindex(b"x-forwarded-for: 127.0.0.1") > seen.index(b": 192.0.2.9")
        asking.close()
        held = [client(b"") for _ in range(8)]
        ended = 0
        for one in held:
            try:
                ended += one.recv(1) == b""
            except ConnectionResetError:  # refused as well
                ended += 1
        assert ended >= 3


def test_what_ray_wrote_is_completed_once(program: Path, tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    ports = dict.fromkeys(("port", "metrics_port", "stats_port", "replica_port"), 1234)
    file.write_text(
        "global\n    stats socket x mode 666 level admin\n" + CONFIGURATION.format(**ports)
    )
    outputs = []
    for _ in range(2):
        subprocess.run([program, "-c", "-f", file], capture_output=True, check=False)
        outputs.append(file.read_text())
    assert outputs[0] == outputs[1] and outputs[0].count("# lima_ray") == 5
    assert "bind :" not in outputs[0] and "bind *:" not in outputs[0] and "mode 600" in outputs[0]


def test_the_program_is_made_once_and_is_the_binary_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    named = tmp_path / "my haproxy"
    named.write_text('#!/bin/sh\necho "$@"\n')
    named.chmod(0o755)
    monkeypatch.setenv(haproxy.BINARY_PATH, str(named))
    program = haproxy.program()
    assert haproxy.program() == program
    outputs = subprocess.check_output([program, "-f", "a file"], text=True)
    assert outputs == "-dS -f a file\n"
    monkeypatch.setenv(haproxy.BINARY_PATH, str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"no HAProxy here .*nothing.*names another"):
        haproxy.program()
