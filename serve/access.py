"""Who may enter: keys, names of this server, and whether others than its machine reach it."""

import ipaddress
import os
from pathlib import Path

from pydantic import Field, field_validator
from ray.serve.context import _get_global_client

from lima_ray.config import Section, durable
from lima_ray.errors import UserError
from lima_ray.web.requests import Network, is_loopback
from serve import haproxy

OPEN = "LIMA_SERVE_OPEN"
"""Environment variable that allows an open port without keys or logins."""
LARGEST_BODY_BYTES = 2**20


class Access(Section):
    """Who may enter, and how much of the server one client may hold."""

    api_keys_file: str | None = None
    """A key a line (`#` begins a comment), one of which every request under /v1 needs; none needs
    none, which is refused where the port is open to others."""
    login_file: str | None = None
    """Lines `name:password` of those who may open the page; none lets everyone in, which is refused
    where the port is open to others."""
    hosts: str = ""
    """Names of this server besides localhost and addresses, with commas between: without keys or
    logins a request for another name is refused, since a web page may give itself this address."""
    body_bytes: int = Field(default=LARGEST_BODY_BYTES, ge=1024)
    """Longest body of an API request."""
    client_requests: int = Field(default=128, ge=4)
    """Requests of the page that one client (an address) may have at once, and of the API, there at
    least as many as `slots` and `queue` take. A window of the page holds two."""

    trusted_proxies: str = ""
    """Addresses or networks of proxies of yours, with commas between, such as what ends TLS before
    HAProxy: the client is the last in X-Forwarded-For that is none of them. Without it all who come
    through such a proxy are one client."""

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, names: str) -> str:
        networks(names)
        return names

    @property
    def proxies(self) -> tuple[Network, ...]:
        """The networks of trusted proxies."""
        return networks(self.trusted_proxies)

    @field_validator("api_keys_file", "login_file")
    @classmethod
    def _file_is_there(cls, name: str | None) -> str | None:
        """An absolute path."""
        path = durable(Path(name)) if name else None
        if path and not path.is_file():
            raise ValueError(f"there is no file {path}")
        return str(path) if path else None

    def names(self, page: bool) -> frozenset[str] | None:
        """Names to which requests may be addressed; none where a key or a login guards everything.

        Args:
            page: whether there is a page to guard.
        """
        if self.api_keys_file and (self.login_file or not page):
            return None
        return frozenset(name.strip().lower() for name in self.hosts.split(",") if name.strip())


def networks(names: str) -> tuple[Network, ...]:
    """Networks, or addresses, from a list with commas.

    Raises:
        ValueError: one is none.
    """
    parts = (name.strip() for name in names.split(","))
    return tuple(ipaddress.ip_network(part, strict=False) for part in parts if part)


def read_keys(name: str | None) -> frozenset[str]:
    """The keys of a file, a line each; blank lines and `#` comments are passed over.

    Raises:
        UserError: the file has none.
    """
    if name is None:
        return frozenset()
    lines = (line.strip() for line in Path(name).read_text().splitlines())
    keys = frozenset(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UserError(f"{name} has no key; write one a line")
    return keys


def refuse_open_port(lack: str, argument: str) -> None:
    """Refuse to serve to all where others than this machine's users reach the port.

    Args:
        lack: what would keep them out.
        argument: of the app, that gives it.

    Raises:
        UserError: what to do instead.
    """
    if haproxy.enabled():
        host = "0.0.0.0"  # whatever Serve is told
    else:
        client = _get_global_client()
        host = client.http_config.host if client else None
    if host is None or os.environ.get(OPEN) or is_loopback(host):
        return
    raise UserError(
        f"the port is open on {host or 'every interface'} and there is no {lack}. Set {argument}, "
        f"or bind 127.0.0.1, or set {OPEN}=1 where a firewall keeps others away"
    )
