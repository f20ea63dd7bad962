"""The training rows that taught a reply, by one method: a line of `attribution.jsonl`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lima_ray.config.errors import UserError
from lima_ray.records.files import check_keys
from lima_ray.records.journal import Journal

Method = Literal["gradient", "text"]
AttributionKey = tuple[str, int, int, Method]
"""Id of the prompt, number of the sample, the turn, and the method."""


@dataclass(frozen=True)
class AttributedRow:
    """A training row, and how much it has to do with a reply."""

    id: str
    score: float
    """A cosine, from -1 to 1; to be compared with the same reply's others, by the same method."""
    conversations: tuple[str, ...]
    """The row's turns, so that a reader needs no training data."""
    source: str = ""


@dataclass(frozen=True)
class Attribution:
    id: str
    """Of the prompt; with sample, turn and model as the reply has them."""
    sample: int
    turn: int
    model: str
    method: Method
    """`gradient`, of the loss on the reply and on each row; `text`, of what both say."""
    rows: tuple[AttributedRow, ...]
    """The highest scores, best first."""
    dialogue: str
    """Hash of the turns and the reply, by `prompt_id`; another text has another."""
    weights: str
    """Hash of the weights that made the reply, by `hash_base`."""
    data: str
    """Hash of all training rows, as the run's data card has it."""
    epochs: tuple[int, ...] = ()
    """Of the run's, whose weights a gradient's score is the mean of; none for a text."""
    values: int = 0
    """Of a row's projected gradient; 0 for a text."""

    @property
    def key(self) -> AttributionKey:
        return self.id, self.sample, self.turn, self.method

    def to_json(self) -> dict[str, Any]:
        """Return its line of `attribution.jsonl`."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any], where: str) -> "Attribution":
        """Read a line; a `UserError` tells what is wrong `where`."""
        check_keys(row, cls.__dataclass_fields__, where, "attribution")
        try:
            rows = [
                AttributedRow(**(one | {"conversations": tuple(one["conversations"])}))
                for one in row["rows"]
            ]
            fields: dict[str, Any] = row | {"rows": tuple(rows), "epochs": tuple(row["epochs"])}
            return cls(**fields)
        except (TypeError, KeyError) as error:
            raise UserError(f"{where} is no attribution: {error!r}") from error


def read_attributions(file: Path) -> dict[AttributionKey, Attribution]:
    """Read an `attribution.jsonl`, of which a later line replaces an earlier one of the same key.

    A last line that a kill cut off is left out; a `UserError` names a line that is none.
    """
    found = [
        Attribution.from_json(row, f"{file}:{number}")
        for number, row in enumerate(Journal(file).records(), start=1)
    ]
    return {one.key: one for one in found}
