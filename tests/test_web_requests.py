"""The host that a request names, and the one that a server binds."""

from lima_ray.web.requests import is_known_host, is_loopback


def test_loopback_alone_is_open_to_nobody() -> None:
    for host in ("127.0.0.1", "127.1", "localhost", "::1"):
        assert is_loopback(host)
    for host in ("", "0", "0.0.0.0", "::", "192.0.2.7", "no-such-host.invalid"):
        assert not is_loopback(host)


def test_a_request_is_for_an_address_or_a_known_name() -> None:
    names = frozenset({"lab.example"})
    hosts = ("127.0.0.1:8000", "[::1]:8000", "localhost", "a.localhost:1", "10.0.0.7", "")
    for host in (*hosts, "lab.example:80", "LAB.example."):
        assert is_known_host(host, names)
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::1", "x@y"):
        assert not is_known_host(host, names)
