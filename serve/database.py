"""The way to a database by its URL: SQLite in a file, or PostgreSQL."""

import os
import re
import stat
import threading
from contextlib import suppress
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
CREATING = threading.Lock()
"""Held from a file's making to its closing, so that no thread locks it in between."""


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
    except (ArgumentError, ImportError, SQLAlchemyError, OSError, ValueError) as error:
        raise UserError(
            f"no database at {masked(url)!r}: {masked(str(error))}; a URL is like {DEFAULT_URL} or "
            "postgresql+psycopg://user@host/name"
        ) from error
    if on_file:
        event.listen(engine, "do_connect", keep_private)
        event.listen(engine, "connect", set_up_sqlite)
    return engine


def masked(text: str) -> str:
    """A text without the passwords of URLs in it, of their users and in their queries."""
    text = re.sub(r"(://[^:/@\n]*:)[^\n]*@", r"\1***@", text)
    return re.sub(r"(password=)[^&\n]*", r"\1***", text, flags=re.IGNORECASE)


def keep_private(dialect: Any, record: object, arguments: list[Any], options: object) -> None:
    """Make a file that its owner alone reads: it holds conversations, and the key of the cookies.

    SQLite gives the files beside it the same mode.
    """
    name = str(arguments[0]) if arguments else ""
    if not name or name.startswith((":memory:", "file:")):
        return
    name = os.path.realpath(name)
    # SQLite reports better what is wrong with a file that cannot be made.
    with suppress(OSError), CREATING:
        # A file that is there is never opened here: whoever closes it, gives up all the locks that
        # SQLite has on it in this process (fcntl), and others then delete its log under us.
        with suppress(FileExistsError):
            os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        for file in map(Path, (name, f"{name}-wal", f"{name}-shm")):
            found = file.stat() if file.exists() else None
            if found and found.st_uid == os.geteuid() and found.st_mode & 0o077:
                file.chmod(stat.S_IMODE(found.st_mode) & 0o700)


def set_up_sqlite(connection: Any, record: object) -> None:
    """Readers beside a writer, and rows that go with what they belong to."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")
