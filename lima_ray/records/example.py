"""A dialogue to learn from, or a prompt to reply to: a line of LIMA JSONL."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """One dialogue: turns alternate, the user's first."""

    turns: tuple[str, ...]
    id: str
    source: str = ""
    system: str | None = None
    learned: tuple[bool, ...] = ()
    """For each turn whether it may be learned; none says that all may."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys of the row that have no meaning here and hold something, as JSON has it; they are
    written back."""
    place: str = field(default="", compare=False)
    """Where it was read: a file and the line or the number in it."""

    @property
    def prompt(self) -> str:
        """The first turn, the user's."""
        return self.turns[0]

    def messages(self) -> list[dict[str, str]]:
        """Return the dialogue as OpenAI messages, the form chat templates take."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        roles = ("user", "assistant")
        return system + [{"role": roles[i % 2], "content": t} for i, t in enumerate(self.turns)]

    def to_line(self) -> str:
        """Return its line of LIMA JSONL, one of the forms that `lima_ray.example` reads."""
        row: dict[str, Any] = {"conversations": list(self.turns), "source": self.source}
        row |= {"id": self.id} | ({"system": self.system} if self.system else {})
        row |= {"weights": [int(learned) for learned in self.learned]} if self.learned else {}
        return json.dumps(row | self.extra, ensure_ascii=False)
