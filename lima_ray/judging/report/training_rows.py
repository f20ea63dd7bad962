"""The training rows behind replies, where an `attribution.jsonl` stands beside them."""

from collections.abc import Iterable
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.judging.report.loading import Models
from lima_ray.judging.report.reading import Place, Rows
from lima_ray.records.files import check_keys, read_jsonl
from lima_ray.records.verdict import prompt_id

FILE = "attribution.jsonl"
NEEDED = ("id", "sample", "turn", "method", "rows", "dialogue")
SHOWN_ROWS = 5


def read_training_rows(
    folders: Iterable[tuple[str, Path]], models: Models
) -> tuple[dict[tuple[str, Place], Rows], int]:
    """Return the best rows behind each system's replies, and how many are of other texts.

    Args:
        folders: of replies, by system; a later line of a file replaces an earlier one, and rows
            found by gradient go before those found by text.
        models: the replies.

    Raises:
        UserError: a line is no attribution.
    """
    dialogues = {
        (system, (one.id, one.sample, one.turn)): prompt_id(
            (*one.conversations, one.reply), one.system
        )
        for system, replies in models.items()
        for one in replies
    }
    found: dict[tuple[str, Place], tuple[str, Rows]] = {}
    outdated = 0
    for system, folder in folders:
        file = folder / FILE
        if not file.is_file():
            continue
        for row, where in read_jsonl(file):
            check_keys(row, NEEDED, where, "attribution")
            place = system, (row["id"], row["sample"], row["turn"])
            if dialogues.get(place) != row["dialogue"]:
                outdated += 1
            elif found.get(place, ("", ()))[0] != "gradient" or row["method"] == "gradient":
                found[place] = row["method"], _rows(row["rows"], where)
    return {place: rows for place, (_, rows) in found.items()}, outdated


def _rows(rows: object, where: str) -> Rows:
    try:
        assert isinstance(rows, list)
        return [
            (str(one["id"]), float(one["score"]), "\n\n".join(map(str, one["conversations"])))
            for one in rows[:SHOWN_ROWS]
        ]
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is no attribution: {error!r}") from error
