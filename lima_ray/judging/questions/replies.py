"""Replies of models to be judged: directories of ours, or tables of anybody's.

    read_models(["lima=replies/lima", "other=outputs.csv"])    # {"lima": [...], "other": [...]}

A table (CSV, TSV, JSON, Parquet) has a column of replies, and one of the prompts, of their ids, or
both; a prompt that others reply to is known by its id or its text.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lima_ray.config.errors import SHOWN_ERRORS, UserError, join_names
from lima_ray.config.paths import readable_path
from lima_ray.config.storage.bucket import is_url
from lima_ray.data.examples import normalise_text
from lima_ray.data.file_formats import read_file_rows
from lima_ray.data.forms import find_lone_surrogates
from lima_ray.generation.scripts import Script
from lima_ray.records.example import Example
from lima_ray.records.reply import NEEDED, Reply, read_replies
from lima_ray.records.verdict import prompt_id

REPLIES_FILE = "replies.jsonl"
COLUMNS = {
    "id": ("id", "prompt_id", "question_id"),
    "prompt": ("prompt", "instruction", "question", "query", "input"),
    "reply": ("reply", "response", "output", "answer", "completion", "generation"),
    "model": ("model", "generator"),
}
"""What tables call a column; the first that is there counts, and two of replies are refused."""
CONTEXT = ("input", "context")
"""Columns that stand after the prompt, as in Alpaca's and Dolly's form."""
Row = dict[str, Any]


def read_models(
    references: Sequence[str],
    prompts: Sequence[Example] = (),
    others: Literal["refuse", "keep"] = "refuse",
) -> dict[str, list[Reply]]:
    """Return replies by the name of their model, in the order given.

    Args:
        references: `NAME=PATH` each, or PATH alone, whose replies name their model.
        prompts: what the models were asked.
        others: what to do with replies to other prompts than those, where any are given.

    Raises:
        UserError: nothing there, two models of one name, a reply twice, an unknown prompt.
    """
    if not references:
        raise UserError("whose replies? NAME=REPLIES for each model, such as lima=replies/lima")
    paths = [split_reference(reference) for reference in references]
    own = {path: read_replies(file) for _, path in paths if (file := replies_file(path))}
    known = KnownPrompts()
    known.add(replace(row, turns=Script(row, 0).prompt) for row in prompts)
    for replies in own.values():
        known.add(asked(reply) for reply in replies if reply.turn == 0)
    tables = {path: read_rows(path) for _, path in paths if path not in own}
    for rows in tables.values():  # what one table tells of a prompt another need not
        known.add(filter(None, (full_prompt(row, where) for where, row in rows)))
    found: dict[str, list[Reply]] = {}
    for name, path in paths:
        replies = own[path] if path in own else read_table(tables[path], name, known)
        if not replies:
            raise UserError(f"{path} holds no replies")
        name = name or the_model(replies, path)
        if name in found:
            raise UserError(f"two models are called {name}; give each a name: NAME={path}")
        check_places(replies, path)
        found[name] = replies
    if prompts and others == "refuse":
        check_prompts(found, {row.id for row in prompts})
    return found


def split_reference(reference: str) -> tuple[str, Path]:
    """Return name and path of `NAME=PATH`; the name is empty where there is none."""
    if is_url(reference):  # with an option it has a = of its own
        return "", readable_path(Path(reference))
    name, equals, path = reference.partition("=")
    if equals and not Path(reference).exists():
        if not name or not path:
            raise UserError(f"{reference!r} is not NAME=PATH, such as lima=replies/lima")
        return name, readable_path(Path(path))
    return "", Path(reference)


def replies_file(path: Path) -> Path | None:
    """Return a directory's or a path's own file of replies; none where it is another's table."""
    file = path / REPLIES_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"no replies at {path}: it is no file, nor a folder with {REPLIES_FILE}")
    if file.name == REPLIES_FILE:
        return file
    row = next(read_file_rows(file), ("", None))[1]
    return file if isinstance(row, dict) and set(NEEDED) <= set(row) else None


def asked(reply: Reply) -> Example:
    """Return the prompt of a dialogue's first reply."""
    return Example(reply.conversations, reply.id, reply.source, reply.system, extra=reply.extra)


class KnownPrompts:
    """Prompts by id and by text."""

    def __init__(self) -> None:
        self.by_id: dict[str, Example] = {}
        self.by_text: dict[str, set[str]] = defaultdict(set)

    def add(self, prompts: Iterable[Example]) -> None:
        for prompt in prompts:
            if prompt.id not in self.by_id:
                self.by_id[prompt.id] = prompt
                self.by_text[normalise_text(prompt.turns[-1])].add(prompt.id)

    def find(self, id: str | None, text: str | None, where: str) -> Example:
        """Return the prompt of a row; refuse one that is unknown, or known as another."""
        ids = self.by_text.get(normalise_text(text), set()) if text is not None else set()
        if id is None and len(ids) > 1:
            raise UserError(
                f"{where}: {join_names(sorted(ids))} have the same prompt; tell them by a column id"
            )
        if id is None:
            if text is None:
                raise UserError(f"{where} names no prompt: it has neither a column id nor prompt")
            id = next(iter(ids)) if ids else prompt_id([text], None)
        if id not in self.by_id and text is None:
            raise UserError(
                f"{where}: nobody else replies to the prompt {id!r}, and there is no column "
                "prompt; add it, or name the prompts by --prompts"
            )
        prompt = self.by_id.get(id) or Example((str(text),), id)
        if text is not None and normalise_text(text) != normalise_text(prompt.turns[-1]):
            raise UserError(f"{where}: the prompt {id!r} is another than others have of this id")
        return prompt


def read_rows(path: Path) -> list[tuple[str, Row]]:
    """Return the rows of a table with their places; refuse what has no named columns."""
    rows = list(read_file_rows(path))
    for where, row in rows:
        if not isinstance(row, dict):
            raise UserError(f"{where} is no row of named columns")
    return rows


def full_prompt(row: Row, where: str) -> Example | None:
    """Return the prompt of a row that tells its id and its text."""
    id, text = cell(row, "id", where), prompt_text(row, where)
    return None if id is None or text is None else Example((text,), id)


def read_table(rows: Sequence[tuple[str, Row]], name: str, known: KnownPrompts) -> list[Reply]:
    """Return the rows of a table as replies; refuse one without replies or prompts."""
    found, samples = [], Counter[str]()
    for where, row in rows:
        text = cell(row, "reply", where)
        if text is None:
            named, there = join_names([*COLUMNS["reply"]]), join_names(list(map(str, row)))
            raise UserError(
                f"{where} has no reply: nothing stands in a column {named}; its columns are {there}"
            )
        prompt = known.find(cell(row, "id", where), prompt_text(row, where), where)
        found.append(
            Reply(
                id=prompt.id,
                conversations=prompt.turns,
                # Who made it, whatever it is called here: nobody judges their own replies.
                model=cell(row, "model", where) or name,
                # A prompt that stands in several rows has several replies.
                sample=samples[prompt.id],
                turn=0,
                reply=text,
                stopped=True,
                source=prompt.source,
                system=prompt.system,
                extra={k: v for k, v in prompt.extra.items() if k != "follow_ups"},
            )
        )
        samples[prompt.id] += 1
    return found


def prompt_text(row: Row, where: str) -> str | None:
    """Return the prompt of a row, with the input or context that stands beside it."""
    text = cell(row, "prompt", where)
    for name in CONTEXT:
        more = row.get(name)
        if text is not None and isinstance(more, str) and more.strip() and more != text:
            text = f"{text}\n\n{more}"
    return text


def cell(row: Row, kind: str, where: str) -> str | None:
    """Return what a row holds in the column of a kind; none where it has none or no value."""
    there = [name for name in row if str(name).strip().casefold() in COLUMNS[kind]]
    if kind == "reply" and len(there) > 1:
        raise UserError(f"{where} has several columns of replies: {join_names(there)}; keep one")
    there.sort(key=lambda name: COLUMNS[kind].index(str(name).strip().casefold()))
    value = row[there[0]] if there else None
    # NaN, which tables have for nothing, is unequal to itself.
    if value is None or value != value:
        return None
    if isinstance(value, list | dict):
        raise UserError(f"{where} {there[0]} is a {type(value).__name__}; it needs a text")
    # Numbers of a column with empty cells are read as floats.
    said = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    if any(find_lone_surrogates(said)):
        raise UserError(f"{where} {there[0]} holds half of a character, which is no text")
    return said


def the_model(replies: Sequence[Reply], path: Path) -> str:
    names = {reply.model for reply in replies}
    if len(names) != 1 or not (name := names.pop()):
        raise UserError(f"{path} does not say whose replies it holds: NAME={path}")
    return name


def check_places(replies: Sequence[Reply], path: Path) -> None:
    """Refuse two replies in one place."""
    places = Counter((reply.id, reply.sample, reply.turn) for reply in replies)
    if twice := [str(place) for place, count in places.items() if count > 1]:
        raise UserError(
            f"{path} has several replies of the same prompt, sample and turn: "
            f"{join_names(twice, SHOWN_ERRORS)}"
        )


def check_prompts(models: dict[str, list[Reply]], ids: set[str]) -> None:
    """Refuse replies to prompts that are not among those named."""
    for name, replies in models.items():
        if unknown := sorted({reply.id for reply in replies} - ids):
            raise UserError(
                f"{name} replies to {len(unknown)} prompts that are not among --prompts: "
                f"{join_names(unknown, SHOWN_ERRORS)}"
            )
