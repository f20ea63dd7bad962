"""HAProxy as Ray would start it: a client that leaves is noticed."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from browser import free_port
from served import wait_until

from lima_ray.errors import UserError
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
frontend clients
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    server replica 127.0.0.1:{replica_port}
"""
"""What Ray's configuration says of clients that leave."""


@contextmanager
def proxy(program: Path, folder: Path, replica_port: int) -> Iterator[int]:
    """HAProxy on a port of the loopback."""
    port = free_port()
    file = folder / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(port=port, replica_port=replica_port))
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
        program = haproxy.unspliced()
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


def test_the_program_is_made_once_and_is_the_binary_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    named = tmp_path / "my haproxy"
    named.write_text('#!/bin/sh\necho "$@"\n')
    named.chmod(0o755)
    monkeypatch.setenv(haproxy.BINARY_PATH, str(named))
    program = haproxy.unspliced()
    assert haproxy.unspliced() == program
    told = subprocess.check_output([program, "-f", "a file"], text=True)
    assert told == "-dS -f a file\n"
    monkeypatch.setenv(haproxy.BINARY_PATH, str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"no HAProxy here .*nothing.*names another"):
        haproxy.unspliced()
