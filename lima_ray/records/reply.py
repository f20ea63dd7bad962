"""What a model replied in one turn, and to what: a line of `replies.jsonl`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.records.files import build_record, check_keys, read_jsonl

NEEDED = ("id", "sample", "turn", "reply", "model", "stopped", "conversations")


@dataclass(frozen=True)
class Reply:
    id: str
    """Of the prompt's row."""
    conversations: tuple[str, ...]
    """The turns that were shown, the user's last."""
    model: str
    sample: int
    """Counted from 0: a prompt may be replied to several times."""
    turn: int
    """Counted from 0: in a scripted dialogue, how many replies came before."""
    reply: str
    stopped: bool
    """Whether EOT ended it."""
    n_tokens: int | None = None
    """None where the endpoint does not count."""
    seed: int | None = None
    source: str = ""
    system: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """The prompt row's other keys, such as `group`; they stand in the line as they were."""

    @classmethod
    def from_json(cls, row: dict[str, Any], where: str) -> "Reply":
        """Read a line of `replies.jsonl`; a `UserError` tells what is wrong `where`."""
        check_keys(row, NEEDED, where, "reply")
        if not isinstance(turns := row["conversations"], list):
            raise UserError(f"{where} is no reply: conversations is {turns!r}")
        return build_record(cls, row)

    def to_json(self) -> dict[str, Any]:
        """Return its line of `replies.jsonl`; `system` is absent where there was none."""
        row = vars(self) | {"conversations": list(self.conversations)}
        del row["extra"]
        if not self.system:
            del row["system"]
        return row | self.extra


def read_replies(file: Path) -> list[Reply]:
    """Read a `replies.jsonl`, in its order; refuse a line that is no reply."""
    return [Reply.from_json(row, where) for row, where in read_jsonl(file)]
