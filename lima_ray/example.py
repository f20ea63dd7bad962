"""Examples: dialogues read from the forms people have them in, and written in LIMA's.

    python -m lima_ray.example rows.json [more.jsonl ...] --out data/train.jsonl

reads LIMA JSONL, OpenAI `messages`, ShareGPT and Alpaca (with `history`), from files, directories
or datasets of the hub, checks every row, and writes `{"conversations": [...], "source", "id"}`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import tyro

from lima_ray import flags
from lima_ray.config import nearest, resolve
from lima_ray.errors import UserError

ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
}
SHOWN_ERRORS = 5
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Example:
    """One dialogue: turns alternate, the user's first."""

    turns: tuple[str, ...]
    id: str
    source: str = ""
    system: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Keys of the row that have no meaning here; they are written back unchanged."""

    @property
    def prompt(self) -> str:
        """The first turn, the user's."""
        return self.turns[0]

    def messages(self) -> list[dict[str, str]]:
        """The dialogue as OpenAI messages, the form chat templates take."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        roles = ("user", "assistant")
        return system + [{"role": roles[i % 2], "content": t} for i, t in enumerate(self.turns)]

    def to_json(self) -> str:
        """One line of LIMA JSONL."""
        row: dict[str, Any] = {"conversations": list(self.turns), "source": self.source}
        row |= {"id": self.id} | ({"system": self.system} if self.system else {}) | self.extra
        return json.dumps(row, ensure_ascii=False)


def read(
    reference: str,
    split: str = "train",
    *,
    dialogues: bool = True,
    invalid: Literal["stop", "drop"] = "stop",
) -> list[Example]:
    """Read every example of a file, a directory's split, or a dataset of the hub.

    Args:
        reference: path, or the hub's `owner/name`.
        split: which file of a directory or split of a hub's dataset.
        dialogues: every row must end with the assistant; otherwise prompts alone are rows too.
        invalid: stop at rows with wrong turns, or drop them and say which.

    Raises:
        UserError: nothing there, not JSON or UTF-8 (the line is named), or rows with wrong turns.
    """
    examples, problems = [], []
    for place, row in rows_of(reference, split):
        try:
            examples.append(example_of(row, place, dialogues))
        except UserError as error:
            problems.append(str(error))
    if problems:
        shown = "\n  ".join(problems[:SHOWN_ERRORS])
        more = len(problems) - SHOWN_ERRORS
        shown += f"\n  and {more} more" if more > 0 else ""
        if invalid == "stop":
            raise UserError(
                f"{len(problems)} of {len(problems) + len(examples)} rows are not usable; mend or "
                f"remove them, or drop such rows with --data.invalid drop:\n  {shown}"
            )
        print(f"dropped {len(problems)} rows that are not usable:\n  {shown}")
    if not examples:
        raise UserError(f"{reference} ({split}) holds no rows")
    return examples


def rows_of(reference: str, split: str) -> Iterator[tuple[str, Any]]:
    """Yield `(where, row)` for every raw row that a reference names."""
    path = resolve(reference)
    if path is None and re.fullmatch(r"[\w.-]+/[\w.-]+", reference) and not is_file_name(reference):
        yield from hub_rows(reference, split)
    elif path is None:
        raise UserError(
            f"no data at {reference}: it is no file, no directory, and not the form owner/name "
            "of a dataset on the hub"
        )
    else:
        yield from file_rows(split_file(path, split) if path.is_dir() else path)


def file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a `.jsonl` file (one a line) or a `.json` file (one array)."""
    if path.suffix not in READERS:
        raise UserError(f"{path} ends in {path.suffix!r}; data files end in .jsonl or .json")
    try:
        yield from READERS[path.suffix](path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """One JSON object a line; blank lines are passed over."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{path}:{number}"
                yield where, decode_json(line, where)


def json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """One JSON array of objects."""
    array = decode_json(path.read_bytes(), str(path))
    if not isinstance(array, list):
        raise UserError(f"{path} holds a JSON {type(array).__name__}; it needs an array of rows")
    for number, row in enumerate(array):
        yield f"{path}[{number}]", row


READERS: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {
    ".jsonl": jsonl_rows,
    ".json": json_rows,
}


def decode_json(text: bytes, where: str) -> Any:
    """Parse JSON, naming the place of what is wrong in it."""
    try:
        return json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        at = where if where.rsplit(":", 1)[-1].isdigit() else f"{where}:{line}"
        raise UserError(
            f"{at} is not UTF-8: byte {error.start} is 0x{text[error.start]:02x}"
        ) from error
    except json.JSONDecodeError as error:
        at = where if where.rsplit(":", 1)[-1].isdigit() else f"{where}:{error.lineno}"
        raise UserError(f"{at} is not JSON: {error.msg} at column {error.colno}") from error


def split_file(folder: Path, split: str) -> Path:
    """The file of a directory that holds a split."""
    files = sorted(p for p in folder.iterdir() if p.suffix in READERS)
    named = [p for p in files if p.stem == split]
    found = named or (files if len(files) == 1 and split == "train" else [])
    if not found:
        names = ", ".join(p.name for p in files) or "no .jsonl or .json file"
        raise UserError(f"{folder} has no {split}.jsonl or {split}.json; it has {names}")
    return found[0]


def is_file_name(reference: str) -> bool:
    """Whether a missing path was surely meant as a file."""
    return Path(reference).suffix in {*READERS, ".parquet", ".csv", ".txt", ".gz"}


def hub_rows(dataset: str, split: str) -> Iterator[tuple[str, Any]]:
    """Rows of a hub's dataset: its `<split>.jsonl` where it has one, else through `datasets`.

    GAIR/lima is read the first way: `datasets` 4 and later refuse its loading script.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # httpx's, or httpx2's
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    page = f"https://huggingface.co/datasets/{dataset}"
    try:
        path = hf_hub_download(dataset, f"{split}.jsonl", repo_type="dataset")
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"the hub cannot be reached for {dataset}, and no copy is cached"
        ) from error
    except EntryNotFoundError:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        try:
            table = load_dataset(dataset, split=split)
        except (DatasetsError, ValueError, RuntimeError, OSError) as error:
            raise UserError(f"{page} has no split {split!r} that can be read: {error}") from error
        for number, row in enumerate(table):
            yield f"{dataset}/{split}[{number}]", row
        return
    except GatedRepoError as error:
        raise UserError(
            f"{dataset} is gated. Accept its licence at {page} with your account, then give a read "
            "token: HF_TOKEN (from https://huggingface.co/settings/tokens) or use `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{page} does not exist or is private; a private dataset needs HF_TOKEN"
        ) from error
    except HFValidationError as error:
        raise UserError(
            f"no data at {dataset}: it is no file, no directory, and {error}"
        ) from error
    except (HTTPError, OSError) as error:
        raise UserError(f"{page} cannot be fetched: {error}") from error
    yield from file_rows(Path(path))


def example_of(row: Any, where: str, dialogues: bool) -> Example:
    """Recognise a row's form, check its turns, and make it an Example.

    Raises:
        UserError: what is wrong with the row at `where`.
    """
    if not isinstance(row, dict):
        raise UserError(f"{where} is a JSON {type(row).__name__}; a row is an object")
    form = next((form for key, form in FORMS.items() if key in row), None)
    if form is None:
        keys = ", ".join(map(str, row)) or "none"
        hint = "".join(nearest(str(k), list(FORMS)) for k in row)[:80]
        raise UserError(
            f"{where} has the keys {keys}; a row has conversations, messages or instruction{hint}"
        )
    parse, used = form
    turns, system = parse(row, where)
    if system is not None and not isinstance(system, str):
        raise UserError(f"{where} system message is a {type(system).__name__}; it needs a string")
    check_turns(turns, where, dialogues)
    extra = {k: v for k, v in row.items() if k not in {*used, "source", "id"}}
    place = where.rsplit("/", 1)[-1]
    id_, source = row.get("id"), row.get("source")
    return Example(
        tuple(turns), str(place if id_ is None else id_), str(source or ""), system, extra
    )


def check_turns(turns: list[Any], where: str, dialogues: bool) -> None:
    """Refuse dialogues that no chat could have produced."""
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, str):
            kind = type(turn).__name__
            raise UserError(f"{where} turn {number} is a {kind} ({turn!r}); turns are strings")
        if not turn.strip():
            raise UserError(f"{where} turn {number} is empty")
        if lone := LONE_SURROGATE.search(turn):
            raise UserError(f"{where} turn {number} has half of a character: {lone[0]!a}")
    if not turns:
        raise UserError(f"{where} has no turns")
    if dialogues and len(turns) % 2:
        noun = "turn" if len(turns) == 1 else "turns"
        raise UserError(
            f"{where} has {len(turns)} {noun}; a dialogue ends with the assistant, so it needs an "
            "even number"
        )


def conversation_turns(row: dict[str, Any], where: str) -> tuple[list[Any], str | None]:
    """LIMA's alternating strings, or ShareGPT's `{"from", "value"}` objects."""
    turns = row["conversations"]
    if isinstance(turns, list) and turns and isinstance(turns[0], dict):
        return message_turns({"messages": turns}, where)
    if not isinstance(turns, list):
        raise UserError(f"{where} conversations is a {type(turns).__name__}; it needs a list")
    return turns, row.get("system") or None


def message_turns(row: dict[str, Any], where: str) -> tuple[list[Any], str | None]:
    """OpenAI's `{"role", "content"}` objects, an optional system message first."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise UserError(f"{where} messages must be a list of objects")
    turns: list[Any] = []
    system = row.get("system")
    for number, message in enumerate(messages):
        name = message.get("role", message.get("from"))
        role = ROLES.get(name) if isinstance(name, str) else None
        if role is None:
            raise UserError(
                f"{where} message {number + 1} has the role {name!r}; roles are user, "
                "assistant and system"
            )
        content = message.get("content", message.get("value"))
        if role == "system":
            if number:
                raise UserError(f"{where} message {number + 1} is a system message; it comes first")
            system = content
            continue
        if role != ("user", "assistant")[len(turns) % 2]:
            raise UserError(
                f"{where} message {number + 1} is the {role}'s; turns alternate and the "
                "user's comes first"
            )
        turns.append(content)
    return turns, system or None


def alpaca_turns(row: dict[str, Any], where: str) -> tuple[list[Any], str | None]:
    """Alpaca's instruction, input and output, after the exchanges of `history`."""
    history = row.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(h, list) and len(h) == 2 for h in history
    ):
        raise UserError(f"{where} history must be a list of [user, assistant] pairs")
    instruction, context = row["instruction"], row.get("input")
    if isinstance(instruction, str) and context:
        instruction = f"{instruction}\n\n{context}"
    last = [instruction] + ([row["output"]] if "output" in row else [])
    return [*chain.from_iterable(history), *last], row.get("system") or None


FORMS: dict[str, tuple[Callable[[dict[str, Any], str], tuple[list[Any], str | None]], set[str]]] = {
    "conversations": (conversation_turns, {"conversations", "system"}),
    "messages": (message_turns, {"messages", "system"}),
    "instruction": (alpaca_turns, {"instruction", "input", "output", "history", "system"}),
}


def write(examples: list[Example], path: Path) -> None:
    """Write LIMA JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{e.to_json()}\n" for e in examples), encoding="utf-8")


def normal_prompt(example: Example) -> str:
    """The prompt as the leak check compares it: case and runs of white space do not count."""
    return " ".join(example.prompt.casefold().split())


def convert(
    inputs: tyro.conf.Positional[list[str]],
    out: Path,
    split: str = "train",
    prompts: bool = False,
    invalid: Literal["stop", "drop"] = "stop",
) -> None:
    """Read rows in any known form and write them as LIMA JSONL.

    Args:
        inputs: files, directories or datasets of the hub.
        out: file to write.
        split: which split of a directory or dataset.
        prompts: rows may end with the user (prompts without a reply).
        invalid: stop at rows with wrong turns, or drop them.
    """
    examples = [e for i in inputs for e in read(i, split, dialogues=not prompts, invalid=invalid)]
    write(examples, out)
    turns = Counter(len(e.turns) for e in examples)
    counts = ", ".join(f"{count} of {n} turns" for n, count in sorted(turns.items()))
    print(f"{out}: {len(examples)} rows ({counts})")


def main(argv: list[str] | None = None) -> None:
    """`python -m lima_ray.example ROWS`."""
    flags.read(convert, "python -m lima_ray.example", __doc__, argv)


if __name__ == "__main__":
    from lima_ray.command_line import run

    run("example")
