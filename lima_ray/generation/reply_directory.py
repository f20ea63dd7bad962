"""A directory of replies: the settings that made them, every reply once, and the failures."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lima_ray.config.differences import differences, flatten, with_current_names
from lima_ray.config.errors import UserError
from lima_ray.generation.scripts import Script
from lima_ray.records.files import acquire_lock, read_json, write_json, write_jsonl
from lima_ray.records.journal import Journal
from lima_ray.records.reply import Reply

SETTINGS_FILE = "generate.json"


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings that made a directory's replies; none where nothing readable tells."""
    return with_current_names(read_json(folder / SETTINGS_FILE))


class ReplyDirectory(AbstractContextManager["ReplyDirectory"]):
    """The files of a directory of replies, locked while the context lasts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings_file = path / SETTINGS_FILE
        self.replies_file = path / "replies.jsonl"
        self.failed_file = path / "failed.jsonl"
        self.journal = Journal(self.replies_file)
        self.records: list[Reply] = []
        self.before = self.failures = 0

    def __enter__(self) -> "ReplyDirectory":
        self.lock = acquire_lock(
            self.path / "lock", f"another process is writing to {self.replies_file}; wait for it"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def resume(self, asked: dict[str, Any]) -> None:
        """Read earlier replies, drop a cut last line, write settings; refuse others' replies."""
        there = self.replies_file.exists() and self.replies_file.stat().st_size > 0
        if there and not self.settings_file.exists():
            raise UserError(
                f"{self.replies_file} is there, but no {self.settings_file.name}, so nothing tells "
                "what it replies to; choose another --out"
            )
        self.records = [
            Reply.from_json(row, f"{self.replies_file}:{number}")
            for number, row in enumerate(self.journal.records(), start=1)
        ]
        self.before = len(self.records)
        if self.records:
            self.check_settings(asked)
        write_json(self.settings_file, asked)
        self.replies_file.touch()
        self.journal.repair()
        self.failed_file.unlink(missing_ok=True)

    def check_settings(self, asked: dict[str, Any]) -> None:
        theirs = flatten(read_settings(self.path) or {})
        changed = [
            f"{name} {values}" for name, values in differences(theirs, flatten(asked)).items()
        ]
        if changed:
            raise UserError(
                f"{self.path} holds {len(self.records)} replies made with another "
                f"{', '.join(changed)}. Give these an --out of their own, or remove that directory"
            )

    def add(self, record: Reply) -> None:
        """Write a reply so that it survives a kill."""
        self.journal.append(record.to_json())
        self.records.append(record)

    def sort(self, order: Callable[[Reply], Any]) -> None:
        """Sort the replies once all are there; they were appended as they finished."""
        ordered = sorted(self.records, key=order)
        if ordered != self.records:
            write_jsonl([record.to_json() for record in ordered], self.replies_file)
        self.records = ordered

    def add_failure(self, script: Script, error: str) -> None:
        """Append a prompt that got no reply to failed.jsonl."""
        self.failures += 1
        row = {"id": script.row.id, "sample": script.sample, "turn": len(script.replies)}
        Journal(self.failed_file).append(row | {"error": error})

    def summary(self) -> str:
        new = len(self.records) - self.before
        stopped = sum(r.stopped for r in self.records) / max(1, len(self.records))
        return (
            f"{self.replies_file}: {len(self.records)} replies ({new} new), {stopped:.0%} stopped"
            f", {self.failures} failed"
        )
