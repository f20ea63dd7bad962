"""List the arguments of `serve run serve.app:build NAME=VALUE`, with their defaults.

    python -m serve.arguments

Light to import, as are the arguments of the other commands of serving, which are read before Ray.
"""

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import tyro
from pydantic import ConfigDict, Field, field_validator, model_validator

from lima_ray.config.errors import UserError
from lima_ray.config.paths import output_path
from lima_ray.config.sections import Section
from lima_ray.web.requests import Network
from serve.engines.catalogue import catalogue
from serve.engines.settings import EngineSettings

MINIATURE = "runs/miniature/export"
MAX_BODY_BYTES = 2**20


class OpenCommand(Section):
    """What `serve.open` takes."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = MINIATURE
    """Directory of a run, an export or a base; several as NAME=DIR,NAME=DIR."""
    port: int = 8000
    """On 127.0.0.1."""
    browser: bool = True
    """Open the page in the browser, where there is a screen."""


class PromoteCommand(Section):
    """What `serve.promote` takes."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = ""
    """Directory of a run, an export or a base, for the default name; or NAME=DIR."""
    rollback: bool = False
    """Back to the models before the last promotion, instead of MODEL."""
    app: str = ""
    """Name of the Serve application; without it the one there is."""
    address: str = "auto"
    """Of the Ray cluster."""


class Access(Section):
    """Who may enter, and how much of the server one client may hold."""

    api_keys_file: str | None = None
    """A key a line (`#` begins a comment), one of which every request under /v1 needs; none needs
    none, which is refused where the port is open to others."""
    login_file: str | None = None
    """Lines of `python -m serve.login NAME` for those who may open the page; none lets everyone in,
    which is refused where the port is open to others."""
    hosts: str = ""
    """Names of this server besides localhost and addresses, with commas between: without keys or
    logins a request for another name is refused, since a web page may give itself this address."""
    body_bytes: int = Field(default=MAX_BODY_BYTES, ge=1024)
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
        return networks(self.trusted_proxies)

    @field_validator("api_keys_file", "login_file")
    @classmethod
    def _file_is_there(cls, name: str | None) -> str | None:
        """Make the path absolute, and refuse one that is not there."""
        path = output_path(Path(name)) if name else None
        if path and not path.is_file():
            raise ValueError(f"there is no file {path}")
        return str(path) if path else None

    def names(self, page: bool) -> frozenset[str] | None:
        """Return names that requests may be for; none where a key or a login guards everything."""
        if self.api_keys_file and (self.login_file or not page):
            return None
        return frozenset(name.strip().lower() for name in self.hosts.split(",") if name.strip())


class Args(EngineSettings, Access):
    """What `serve run serve.app:build NAME=VALUE` and the `args` of a config file may set."""

    # Errors show no values: a database's URL may hold a password.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    model: str | dict[str, str] = MINIATURE
    """Directory of a run, an export or a base; several as NAME=DIR,NAME=DIR. The first is the
    default. A run brings along its epochs (NAME-05) and its base (base), loaded when asked for."""
    replicas: int = Field(default=1, ge=1)
    """Replicas of the engine, each with all models."""
    max_replicas: int | None = Field(default=None, ge=1)
    """Scale the engine up to so many as its requests grow; none keeps `replicas`."""
    cpus: float = Field(default=1, ge=0)
    """CPU cores that a replica claims of Ray."""
    page: bool = True
    """Serve the chat page under /chat."""
    page_replicas: int = Field(default=1, ge=1)
    """Replicas of the page; a browser stays with one."""
    title: str = "lima_ray"
    """Name of the page."""
    database: str = "sqlite:///runs/chat.sqlite"
    """Where the page keeps conversations and votes: SQLite, or PostgreSQL by
    postgresql+psycopg://..., which all nodes must reach where the page has several replicas."""

    @field_validator("model")
    @classmethod
    def _models_are_there(cls, model: str | dict[str, str]) -> dict[str, str]:
        """Replace a model by names and absolute paths."""
        try:
            return catalogue(model)
        except UserError as error:
            raise ValueError(str(error)) from error

    @field_validator("database")
    @classmethod
    def _file_is_absolute(cls, url: str) -> str:
        """Make SQLite's file absolute, so that it does not depend on where a replica runs."""
        scheme, _, name = url.partition(":///")
        if scheme.startswith("sqlite") and name and name != ":memory:":
            return f"{scheme}:///{output_path(Path(name))}"
        return url

    @model_validator(mode="after")
    def _replicas_agree(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below replicas {self.replicas}")
        return self


def main(_: list[str] | None = None) -> None:
    print(
        "serve run serve.app:build NAME=VALUE ... with any of these, as has the `args` of a "
        "config\nfile; --help of `serve run` itself tells of Ray's own.\n"
    )
    for name, default, text in fields():
        print(f"{name}={default}\n    {text}")


def fields() -> Iterator[tuple[str, Any, str]]:
    """Yield name, default and help of every argument, the app's own first."""
    shared = (*EngineSettings.model_fields, *Access.model_fields)
    own = [name for name in Args.model_fields if name not in shared]
    for name in [*own, *shared]:
        field = Args.model_fields[name]
        yield name, field.default, " ".join((field.description or "").split())


def networks(names: str) -> tuple[Network, ...]:
    """Parse networks, or addresses, from a list with commas; ValueError where one is none."""
    parts = (name.strip() for name in names.split(","))
    return tuple(ipaddress.ip_network(part, strict=False) for part in parts if part)


if __name__ == "__main__":
    from lima_ray.config.command_line import run_command

    run_command("serve")
