"""A database by its URL: SQLite in a file, or PostgreSQL; transactions off the event loop."""

import asyncio
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import JSON, DateTime, Dialect, Text, TypeDecorator, create_engine, event, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.orm import DeclarativeBase, Session

from lima_ray.config.errors import UserError

DEFAULT_URL = "sqlite:///runs/chat.sqlite"
POSTGRESQL = {
    "connect_timeout": 3,
    "tcp_user_timeout": 4000,
    "options": "-c statement_timeout=4000 -c lock_timeout=4000",
}
CREATING = threading.Lock()
"""Held from a file's making to its closing, so that no thread locks it in between."""
WAIT_S = 6.0
"""Longest wait for the database before it counts as away."""
WORKERS = 4

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseError(Exception):
    """The database did not do what was asked; the message says why, in a line."""


class Time(TypeDecorator[datetime]):
    """A time in UTC; SQLite keeps none of its zone, so it is said again on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """What all tables share: times carry their zone, mappings are JSON."""

    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy's own form
        datetime: Time,
        dict[str, Any]: JSON,
        str: Text,
    }


class Database:
    """What a page keeps. Methods block: a server calls them through `off_loop`."""

    def __init__(self, url: str = DEFAULT_URL) -> None:
        """Name the database; it is reached, and its tables are made, at the first use."""
        self.engine = open_engine(url)
        self.ready = False
        self.workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="store")

    async def off_loop(
        self,
        method: Callable[Concatenate[Self, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a method in a thread of our own; DatabaseError where it fails or is too slow."""
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self.workers, lambda: method(self, *args, **kwargs))
        try:
            return await asyncio.wait_for(call, WAIT_S)
        except TimeoutError as error:
            raise DatabaseError(f"no answer within {WAIT_S:.0f} s") from error

    def close(self) -> None:
        """Let go of threads and connections."""
        self.workers.shutdown(wait=False, cancel_futures=True)
        self.engine.dispose()

    @contextmanager
    def transaction(self, writes: bool = False) -> Iterator[Session]:
        """Begin a transaction; what goes wrong in it is a `DatabaseError`.

        Args:
            writes: what it reads stays so until it ends, in SQLite too, which begins a transaction
                at the first write otherwise, and has no `SELECT ... FOR UPDATE`.
        """
        try:
            self.prepare()
            with Session(self.engine) as session, session.begin():
                if writes and self.engine.dialect.name == "sqlite":
                    session.execute(text("BEGIN IMMEDIATE"))
                yield session
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).strip()
            raise DatabaseError(
                reason.splitlines()[0] if reason else type(error).__name__
            ) from error

    def prepare(self) -> None:
        """Make tables and columns where they are missing; two replicas may try at once."""
        if self.ready:
            return
        try:
            Base.metadata.create_all(self.engine)
        except (IntegrityError, ProgrammingError):
            Base.metadata.create_all(self.engine)
        try:
            self.migrate()
        except (OperationalError, ProgrammingError):
            self.migrate()
        self.ready = True

    def migrate(self) -> None:
        """Give a database that an earlier release made what it lacks."""


def open_engine(url: str) -> Engine:
    """Return a pool of connections that notices broken ones; refuse a bad URL, a lacking driver."""
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
    """Replace the passwords of URLs in a text, of their users and in their queries."""
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
    """Let readers read beside a writer, and delete rows with what they belong to."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=ON")
