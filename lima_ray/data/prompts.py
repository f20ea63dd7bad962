"""What models are asked: rows of which everything up to the last user turn is the prompt."""

from collections import Counter

from lima_ray.config.errors import SHOWN_ERRORS, UserError, listed
from lima_ray.data.examples import read_examples
from lima_ray.records.example import Example


def read_prompts(reference: str, split: str) -> list[Example]:
    """Read rows whose ids differ and whose follow-ups are texts.

    Raises:
        UserError: the rows that are not so.
    """
    rows = read_examples(reference, split, dialogues=False)
    twice = [id for id, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        ids = listed(twice, SHOWN_ERRORS)
        raise UserError(f"{reference} has several rows with the id {ids}; ids must differ")
    for row in rows:
        later = row.extra.get("follow_ups", [])
        if not isinstance(later, list) or not all(isinstance(t, str) and t.strip() for t in later):
            raise UserError(
                f"{reference} row {row.id}: follow_ups is {later!r}; it needs a list of user turns"
            )
    return rows
