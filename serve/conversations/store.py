"""Conversations and verdicts of the chat page in a database."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import delete, inspect, select, text

from lima_ray.records.verdict import Verdict
from lima_ray.web.database import DatabaseError
from lima_ray.web.session_store import SessionStore
from serve.conversations.dialogue import Dialogue, Turn, new_id, now
from serve.conversations.tables import DialogueRow, TurnRow, VerdictRow


class Conflict(DatabaseError):
    """A conversation is not as it was read: another window changed or deleted it meanwhile."""


class Store(SessionStore):
    """Conversations, verdicts and sessions. Methods block: see `Database.off_loop`."""

    def migrate(self) -> None:
        columns = inspect(self.engine).get_columns(DialogueRow.__tablename__)
        if "version" not in {column["name"] for column in columns}:
            add = "ALTER TABLE conversations ADD COLUMN version TEXT NOT NULL DEFAULT ''"
            with self.engine.begin() as connection:
                connection.execute(text(add))

    def save(self, owner: str, dialogue: Dialogue, version: str | None = None) -> None:
        """Write a conversation as it now is, and note the version on it.

        Args:
            dialogue: with the version that was read.
            version: what this state of it is called; none makes a name.

        Raises:
            Conflict: it is not the version that was read; nothing is written.
            DatabaseError: the database is away, or the id is another owner's.
        """
        with self.transaction(writes=True) as session:
            row = session.get(DialogueRow, dialogue.id, with_for_update=True)
            if row is not None and row.owner != owner:
                raise DatabaseError("the conversation belongs to somebody else")
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
        """Return a conversation of this owner's; none where it is another's or not there."""
        with self.transaction() as session:
            row = session.get(DialogueRow, id)
            return as_dialogue(row) if row is not None and row.owner == owner else None

    def version(self, owner: str, id: str) -> str | None:
        """Return the version of this owner's conversation; none where there is no such."""
        kept = select(DialogueRow.version).where(DialogueRow.id == id, DialogueRow.owner == owner)
        with self.transaction() as session:
            return session.scalar(kept)

    def titles(self, owner: str, limit: int = 200) -> list[tuple[str, str]]:
        """Return names and ids of an owner's conversations, the newest first."""
        newest = (
            select(DialogueRow.name, DialogueRow.id)
            .where(DialogueRow.owner == owner)
            .order_by(DialogueRow.updated.desc())
            .limit(limit)
        )
        with self.transaction() as session:
            return [(name, id) for name, id in session.execute(newest)]

    def forget(self, owner: str, dialogue: Dialogue) -> None:
        """Delete an owner's conversation, not its verdicts; Conflict where it is not as read."""
        with self.transaction(writes=True) as session:
            row = session.get(DialogueRow, dialogue.id, with_for_update=True)
            if row is not None and row.owner == owner:
                check_version(row, dialogue)
                session.delete(row)
        dialogue.version, dialogue.attempts = "", ()

    def judge(self, owner: str, verdict: Verdict) -> None:
        """Keep a verdict; one of the same key and owner is replaced."""
        with self.transaction(writes=True) as session:
            row = session.get(VerdictRow, verdict.key)
            if row is not None and row.owner != owner:
                raise DatabaseError("the verdict belongs to somebody else")
            session.merge(verdict_row(owner, verdict, row.created if row is not None else now()))

    def unjudge(self, owner: str, key: str) -> None:
        """Take a verdict of this owner's back."""
        with self.transaction() as session:
            session.execute(
                delete(VerdictRow).where(VerdictRow.id == key, VerdictRow.owner == owner)
            )

    def move_verdict(self, owner: str, key: str, to: str, conversation: str, stays: bool) -> None:
        """Have a verdict of this owner's under another key, for another conversation.

        Args:
            owner: whose it is; nothing is done where there is no such.
            conversation: in which the reply stands now.
            stays: whether it holds under its old key as well.
        """
        with self.transaction(writes=True) as session:
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
        with self.transaction() as session:
            oldest = select(VerdictRow).order_by(VerdictRow.created, VerdictRow.id)
            return [as_verdict(row) for row in session.scalars(oldest)]

    def dialogues(self) -> list[Dialogue]:
        """Return every conversation of every owner, the oldest first."""
        with self.transaction() as session:
            oldest = select(DialogueRow).order_by(DialogueRow.created, DialogueRow.id)
            return [as_dialogue(row) for row in session.scalars(oldest)]


def check_version(row: DialogueRow | None, dialogue: Dialogue) -> None:
    """See that a conversation is kept as read, or as an earlier attempt wrote it; else Conflict."""
    if row is None and dialogue.version:
        raise Conflict("was deleted in another window")
    if row is not None and row.version not in {dialogue.version, *dialogue.attempts}:
        raise Conflict("was changed in another window")


def written(turn: Turn, place: int, row: TurnRow | None) -> TurnRow:
    """Return a turn's row, the one that it has already where it has one."""
    row = row or TurnRow(id=turn.id)
    row.place = place
    for name, value in vars(turn).items():
        setattr(row, name, value)
    return row


def as_dialogue(row: DialogueRow) -> Dialogue:
    fields = Turn.__dataclass_fields__
    turns = [Turn(**{name: getattr(turn, name) for name in fields}) for turn in row.turns]
    times = (row.created, row.updated)
    return Dialogue(row.id, row.title, row.system, turns, *times, version=row.version)


def verdict_row(owner: str, verdict: Verdict, created: datetime) -> VerdictRow:
    row = VerdictRow(id=verdict.key, owner=owner, kind=verdict.kind, record=verdict.to_json())
    row.created = created
    return row


def as_verdict(row: VerdictRow) -> Verdict:
    return Verdict.from_json(row.record, f"the database's verdict {row.id}")
