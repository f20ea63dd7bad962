"""Examples: dialogues read from the forms people have them in, checked, and written in LIMA's."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from lima_ray.config.errors import SHOWN_ERRORS, UserError, join_names
from lima_ray.config.terminal import printable
from lima_ray.data import forms
from lima_ray.data.reading import read_rows
from lima_ray.records.example import Example
from lima_ray.records.files import write_text


def read_examples(
    reference: str,
    split: str = "train",
    *,
    dialogues: bool = True,
    invalid: Literal["stop", "drop"] = "stop",
    drop_flag: str = "",
) -> list[Example]:
    """Read every example of a file, a directory's split, or a dataset of the hub.

    Args:
        reference: path, or the hub's `owner/name`.
        split: which file of a directory or split of a hub's dataset.
        dialogues: every row must end with the assistant; otherwise prompts alone are rows too.
        invalid: stop at rows that are not usable, or drop them and say which.
        drop_flag: the caller's flag that drops them, for the message; empty where it has none.

    Raises:
        UserError: nothing there, nothing that can be read, or rows that are not usable.
    """
    examples, problems = [], []
    for place, row in read_rows(reference, split):
        try:
            examples.append(parse_example(row, place, dialogues))
        except UserError as error:
            problems.append(str(error))
    if problems:
        shown = "\n  ".join(problems[:SHOWN_ERRORS])
        more = len(problems) - SHOWN_ERRORS
        shown += f"\n  and {more} more" if more > 0 else ""
        if invalid == "stop":
            way_out = f", or drop such rows with {drop_flag}" if drop_flag else ""
            raise UserError(
                f"{len(problems)} of {len(problems) + len(examples)} rows are not usable; mend or "
                f"remove them{way_out}:\n  {shown}"
            )
        print(printable(f"dropped {len(problems)} rows that are not usable:\n  {shown}"))
    if not examples:
        raise UserError(f"{reference} ({split}) holds no rows")
    return examples


def parse_example(row: Any, place: str, dialogues: bool) -> Example:
    """Make an Example of a raw row, whatever its form; refuse one that is not usable."""
    parsed = forms.parse_row(row, place)
    check_turns(parsed.turns, place, dialogues)
    learned = () if all(parsed.learned) else tuple(parsed.learned)
    if dialogues and learned and not any(learned[1::2]):
        raise UserError(f"{place} has no reply that is learned: each has weight 0 or train false")
    # A table has every key in every row, null where it has no value.
    known = {*parsed.used, "source", "id"}
    extra = {k: v for k, v in row.items() if k not in known and v is not None}
    id_, source = row.get("id"), row.get("source")
    return Example(
        turns=tuple(parsed.turns),
        id=str(place.rsplit("/", 1)[-1] if id_ is None else id_),
        source=str(source or ""),
        system=parsed.system,
        learned=learned,
        extra=json.loads(json.dumps(extra, default=str)),  # tables hold dates, decimals, bytes
        place=place,
    )


def check_turns(turns: list[Any], where: str, dialogues: bool) -> None:
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, str):
            kind = type(turn).__name__
            raise UserError(f"{where} turn {number} is a {kind} ({turn!r}); turns are strings")
        if not turn.strip():
            raise UserError(f"{where} turn {number} is empty")
    if not turns:
        raise UserError(f"{where} has no turns")
    if dialogues and len(turns) % 2:
        noun = "turn" if len(turns) == 1 else "turns"
        raise UserError(
            f"{where} has {len(turns)} {noun}; a dialogue ends with the assistant, so it needs an "
            "even number"
        )


def write_examples(examples: list[Example], path: Path) -> None:
    """Write LIMA JSONL, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{e.to_line()}\n" for e in examples))


def normalise_prompt(example: Example) -> str:
    """Return the prompt as the leak check compares it: without case and runs of white space."""
    return normalise_text(example.prompt)


def normalise_dialogue(example: Example) -> tuple[str, ...]:
    return tuple(map(normalise_text, example.turns))


def normalise_text(text: str) -> str:
    return " ".join(text.casefold().split())


def read_prompts(reference: str, split: str) -> list[Example]:
    """Read rows whose ids differ and whose follow-ups are texts; refuse others."""
    rows = read_examples(reference, split, dialogues=False)
    twice = [id for id, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        ids = join_names(twice, SHOWN_ERRORS)
        raise UserError(f"{reference} has several rows with the id {ids}; ids must differ")
    for row in rows:
        later = row.extra.get("follow_ups", [])
        if not isinstance(later, list) or not all(isinstance(t, str) and t.strip() for t in later):
            raise UserError(
                f"{reference} row {row.id}: follow_ups is {later!r}; it needs a list of user turns"
            )
    return rows
