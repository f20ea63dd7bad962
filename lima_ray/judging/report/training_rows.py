"""The training rows behind replies, where an `attribution.jsonl` stands beside them."""

from collections.abc import Iterable
from pathlib import Path

from lima_ray.judging.report.items import Place
from lima_ray.judging.report.loading import Models
from lima_ray.records.attribution import Attribution, read_attributions
from lima_ray.records.verdict import prompt_id

FILE = "attribution.jsonl"
METHODS = ("text", "gradient")
"""The better one last."""

RowsByReply = dict[tuple[str, Place], Attribution]
"""By system and place."""


def read_training_rows(
    folders: Iterable[tuple[str, Path]], models: Models
) -> tuple[RowsByReply, int]:
    """Return the rows behind each system's replies, and how many are of other texts.

    Rows found by gradient go before those found by text.

    Args:
        folders: of replies, by system.
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
    found: RowsByReply = {}
    outdated = 0
    for system, folder in folders:
        every = read_attributions(folder / FILE).values()
        for one in sorted(every, key=lambda one: METHODS.index(one.method)):
            place = system, (one.id, one.sample, one.turn)
            if dialogues.get(place) == one.dialogue:
                found[place] = one
            else:
                outdated += 1
    return found, outdated
