"""The way to a database by its URL: SQLite in a file, or PostgreSQL."""

from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from lima_ray.errors import UserError

DEFAULT_URL = "sqlite:///runs/chat.sqlite"
POSTGRESQL = {
    "connect_timeout": 3,
    "tcp_user_timeout": 4000,
    "options": "-c statement_timeout=4000 -c lock_timeout=4000",
}


def open_engine(url: str) -> Engine:
    """A pool of connections that notices broken ones.

    Raises:
        UserError: not a database URL, or one without a driver here.
    """
    try:
        parts = make_url(url)
        if parts.drivername in {"postgresql", "postgres"}:
            parts = parts.set(drivername="postgresql+psycopg")
        on_file = parts.get_backend_name() == "sqlite"
        if on_file and parts.database and not parts.database.startswith(("file:", ":memory:")):
            Path(parts.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            parts,
            pool_pre_ping=True,
            connect_args={"timeout": 4} if on_file else POSTGRESQL,
        )
    except (ArgumentError, ImportError, SQLAlchemyError, OSError) as error:
        raise UserError(
            f"no database at {url!r}: {error}; a URL is like {DEFAULT_URL} or "
            "postgresql+psycopg://user@host/name"
        ) from error
    if on_file:
        event.listen(engine, "connect", set_up_sqlite)
    return engine


def set_up_sqlite(connection: Any, record: object) -> None:
    """Readers beside a writer, and rows that go with what they belong to."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")
