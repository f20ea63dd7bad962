"""Conversations and verdicts in a database: a SQLite file, or PostgreSQL by its URL.

    python -m serve.store verdicts --out verdicts.jsonl
    python -m serve.store conversations --out data.jsonl --db postgresql+psycopg://host/name

`verdicts` writes votes and thumbs in the judge's format; `conversations` writes every dialogue
that ends with a reply as LIMA JSONL, which `python -m lima_ray.train --data.train` reads.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import delete, inspect, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session
from tyro.extras import SubcommandApp

from lima_ray.errors import UserError
from lima_ray.records.files import write_jsonl
from lima_ray.records.verdict import Verdict
from serve.conversations.dialogue import Dialogue, Turn, new_id, now
from serve.conversations.tables import Base, DialogueRow, EndedRow, SettingRow, TurnRow, VerdictRow
from serve.database import DEFAULT_URL, masked, open_engine

WAIT_S = 6.0
"""Longest wait for the database before it counts as away."""
WORKERS = 4

P = ParamSpec("P")
T = TypeVar("T")


class StoreError(Exception):
    """The database did not do what was asked; the message says why, in a line."""


class Conflict(StoreError):
    """A conversation is not as it was read: another window changed or deleted it meanwhile."""


class Store:
    """What is kept. Methods block: a server calls them through `off_loop`."""

    def __init__(self, url: str = DEFAULT_URL) -> None:
        """Name the database; it is reached, and its tables are made, at the first use.

        Raises:
            UserError: not a database URL, or one without a driver here.
        """
        self.engine = open_engine(url)
        self.ready = False
        self.workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="store")

    async def off_loop(
        self,
        method: Callable[Concatenate["Store", P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a method in a thread of the store's own, and wait a bounded time.

        Raises:
            StoreError: the database is away, slow, or refuses.
        """
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self.workers, lambda: method(self, *args, **kwargs))
        try:
            return await asyncio.wait_for(call, WAIT_S)
        except TimeoutError as error:
            raise StoreError(f"no answer within {WAIT_S:.0f} s") from error

    def close(self) -> None:
        """Let go of threads and connections."""
        self.workers.shutdown(wait=False, cancel_futures=True)
        self.engine.dispose()

    @contextmanager
    def session(self, writes: bool = False) -> Iterator[Session]:
        """A transaction; what goes wrong in it is a StoreError.

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
            raise StoreError(reason.splitlines()[0] if reason else type(error).__name__) from error

    def prepare(self) -> None:
        """Make tables and columns where they are missing; two replicas may try at once."""
        if self.ready:
            return
        try:
            Base.metadata.create_all(self.engine)
        except (IntegrityError, ProgrammingError):
            Base.metadata.create_all(self.engine)
        try:
            self.add_columns()
        except (OperationalError, ProgrammingError):
            self.add_columns()
        self.ready = True

    def add_columns(self) -> None:
        """Give a database that an earlier release made what it lacks."""
        columns = inspect(self.engine).get_columns(DialogueRow.__tablename__)
        if "version" not in {column["name"] for column in columns}:
            add = "ALTER TABLE conversations ADD COLUMN version TEXT NOT NULL DEFAULT ''"
            with self.engine.begin() as connection:
                connection.execute(text(add))

    def save(self, owner: str, dialogue: Dialogue, version: str | None = None) -> None:
        """Write a conversation as it now is, and note the version on it.

        Args:
            owner: whose it is.
            dialogue: with the version that was read.
            version: what this state of it is called; none makes a name.

        Raises:
            Conflict: it is not the version that was read; nothing is written.
            StoreError: the database is away, or the id is another owner's.
        """
        with self.session(writes=True) as session:
            row = session.get(DialogueRow, dialogue.id, with_for_update=True)
            if row is not None and row.owner != owner:
                raise StoreError("the conversation belongs to somebody else")
            check_version(row, dialogue)
            if row is None:
                row = DialogueRow(id=dialogue.id, owner=owner, created=dialogue.created)
                session.add(row)
            row.version = version = version or new_id()
            row.title, row.system, row.updated = dialogue.title, dialogue.system, dialogue.updated
            row.name = dialogue.name
            kept = {turn.id: turn for turn in row.turns}
            row.turns = [
                written(turn, place, kept.get(turn.id)) for place, turn in enumerate(dialogue.turns)
            ]
        dialogue.version, dialogue.attempts = version, ()

    def open(self, owner: str, id: str) -> Dialogue | None:
        """A conversation of this owner's; none where there is no such, or it is another's."""
        with self.session() as session:
            row = session.get(DialogueRow, id)
            return as_dialogue(row) if row is not None and row.owner == owner else None

    def version(self, owner: str, id: str) -> str | None:
        """What a conversation of this owner's is called now; none where there is no such."""
        kept = select(DialogueRow.version).where(DialogueRow.id == id, DialogueRow.owner == owner)
        with self.session() as session:
            return session.scalar(kept)

    def titles(self, owner: str, limit: int = 200) -> list[tuple[str, str]]:
        """Names and ids of an owner's conversations, the newest first."""
        newest = (
            select(DialogueRow.name, DialogueRow.id)
            .where(DialogueRow.owner == owner)
            .order_by(DialogueRow.updated.desc())
            .limit(limit)
        )
        with self.session() as session:
            return [(name, id) for name, id in session.execute(newest)]

    def forget(self, owner: str, dialogue: Dialogue) -> None:
        """Delete a conversation of this owner's; its verdicts stay, whole in themselves.

        Raises:
            Conflict: it is not the version that was read; nothing is deleted.
        """
        with self.session(writes=True) as session:
            row = session.get(DialogueRow, dialogue.id, with_for_update=True)
            if row is not None and row.owner == owner:
                check_version(row, dialogue)
                session.delete(row)
        dialogue.version, dialogue.attempts = "", ()

    def judge(self, owner: str, verdict: Verdict) -> None:
        """Keep a verdict; one of the same key and owner is replaced."""
        with self.session(writes=True) as session:
            row = session.get(VerdictRow, verdict.key)
            if row is not None and row.owner != owner:
                raise StoreError("the verdict belongs to somebody else")
            session.merge(verdict_row(owner, verdict, row.created if row is not None else now()))

    def unjudge(self, owner: str, key: str) -> None:
        """Take a verdict of this owner's back."""
        with self.session() as session:
            session.execute(
                delete(VerdictRow).where(VerdictRow.id == key, VerdictRow.owner == owner)
            )

    def move_verdict(self, owner: str, key: str, to: str, conversation: str, stays: bool) -> None:
        """Have a verdict of this owner's under another key, for another conversation.

        Args:
            owner: whose it is; nothing is done where there is no such.
            key: what it is called.
            to: what it shall be called.
            conversation: in which the reply stands now.
            stays: whether it holds under its old key as well.
        """
        with self.session(writes=True) as session:
            row = session.get(VerdictRow, key)
            if row is None or row.owner != owner:
                return
            kept = as_verdict(row)
            moved = replace(kept, key=to, extra=kept.extra | {"conversation": conversation})
            session.merge(verdict_row(owner, moved, row.created))
            if not stays:
                session.delete(row)

    def verdicts(self) -> list[Verdict]:
        """Return every verdict, the oldest first."""
        with self.session() as session:
            oldest = select(VerdictRow).order_by(VerdictRow.created, VerdictRow.id)
            return [as_verdict(row) for row in session.scalars(oldest)]

    def dialogues(self) -> list[Dialogue]:
        """Every conversation of every owner, the oldest first."""
        with self.session() as session:
            oldest = select(DialogueRow).order_by(DialogueRow.created, DialogueRow.id)
            return [as_dialogue(row) for row in session.scalars(oldest)]

    def end_session(self, session: str, lasts_s: float) -> None:
        """Keep that a session's bearer logged out, for as long as its cookie could be good."""
        with self.session() as opened:
            opened.execute(delete(EndedRow).where(EndedRow.until < now()))
            opened.merge(EndedRow(session=session, until=now() + timedelta(seconds=lasts_s)))

    def ended_sessions(self) -> set[str]:
        """Sessions whose bearers logged out."""
        with self.session() as opened:
            return set(opened.scalars(select(EndedRow.session)))

    def secret(self) -> bytes:
        """The key that signs cookies: made once, the same for every replica."""
        made = secrets.token_hex(32)
        try:
            with self.session() as session:
                if (row := session.get(SettingRow, "secret")) is not None:
                    return bytes.fromhex(row.value)
                session.add(SettingRow(name="secret", value=made))
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            return self.secret()
        return bytes.fromhex(made)


def check_version(row: DialogueRow | None, dialogue: Dialogue) -> None:
    """See that a conversation is kept as it was read, or as an earlier attempt wrote it.

    Raises:
        Conflict: another window wrote or deleted it.
    """
    if row is None and dialogue.version:
        raise Conflict("was deleted in another window")
    if row is not None and row.version not in {dialogue.version, *dialogue.attempts}:
        raise Conflict("was changed in another window")


def written(turn: Turn, place: int, row: TurnRow | None) -> TurnRow:
    """A turn's row, the one that it has already where it has one."""
    row = row or TurnRow(id=turn.id)
    row.place = place
    for name, value in vars(turn).items():
        setattr(row, name, value)
    return row


def as_dialogue(row: DialogueRow) -> Dialogue:
    """A conversation from its rows."""
    fields = Turn.__dataclass_fields__
    turns = [Turn(**{name: getattr(turn, name) for name in fields}) for turn in row.turns]
    times = (row.created, row.updated)
    return Dialogue(row.id, row.title, row.system, turns, *times, version=row.version)


def verdict_row(owner: str, verdict: Verdict, created: datetime) -> VerdictRow:
    """Return a verdict's row, under the verdict's key."""
    row = VerdictRow(id=verdict.key, owner=owner, kind=verdict.kind, record=verdict.to_json())
    row.created = created
    return row


def as_verdict(row: VerdictRow) -> Verdict:
    """Return a verdict from its row."""
    return Verdict.from_json(row.record, f"the database's verdict {row.id}")


app = SubcommandApp()


@app.command
def verdicts(out: Path, db: str = DEFAULT_URL) -> None:
    """Write votes and thumbs as verdicts, one a line.

    Args:
        out: file to write.
        db: URL of the database.
    """
    found = read(db, Store.verdicts)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl((verdict.to_json() for verdict in found), out)
    print(f"{out}: {len(found)} verdicts")


@app.command
def conversations(out: Path, db: str = DEFAULT_URL) -> None:
    """Write the conversations that end with a reply as LIMA JSONL.

    Args:
        out: file to write.
        db: URL of the database.
    """
    from lima_ray import example

    examples, unfinished = [], 0
    for dialogue in read(db, Store.dialogues):
        try:
            examples.append(dialogue.example())
        except UserError:
            unfinished += 1
    example.write(examples, out)
    print(f"{out}: {len(examples)} conversations; {unfinished} without a last reply are left out")


def read(url: str, method: Callable[[Store], T]) -> T:
    """Ask a database that exists already.

    Raises:
        UserError: it is not there or does not answer.
    """
    store = Store(url)
    place = store.engine.url
    try:
        if place.get_backend_name() == "sqlite" and not Path(place.database or "").is_file():
            raise UserError(
                f"no database at {place.database}; the chat page makes one, or use --db"
            )
        return method(store)
    except StoreError as error:
        shown = masked(str(place))
        raise UserError(f"the database at {shown} cannot be read: {error}") from error
    finally:
        store.close()


def main(argv: list[str] | None = None) -> None:
    """`python -m serve.store conversations|verdicts`."""
    app.cli(prog="python -m serve.store", description=__doc__, args=argv)


if __name__ == "__main__":
    from lima_ray.command_line import run

    run("store")
