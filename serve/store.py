"""Write the chat page's conversations and verdicts to files.

    python -m serve.store verdicts --out verdicts.jsonl
    python -m serve.store conversations --out data.jsonl --db postgresql+psycopg://host/name

`verdicts` writes votes and thumbs in the judge's format; `conversations` writes every dialogue
that ends with a reply as LIMA JSONL, which `python -m lima_ray.train --data.train` reads.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tyro.extras import SubcommandApp

from lima_ray.config.errors import UserError
from lima_ray.data.examples import write_examples
from lima_ray.records.files import write_jsonl
from lima_ray.web.database import DEFAULT_URL, DatabaseError, masked
from serve.conversations.store import Store

T = TypeVar("T")
app = SubcommandApp()


@app.command
def verdicts(out: Path, db: str = DEFAULT_URL) -> None:
    """Write votes and thumbs as verdicts, one a line.

    Args:
        out: file to write.
        db: URL of the database.
    """
    found = read(db, Store.verdicts)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl((verdict.to_json() for verdict in found), out)
    print(f"{out}: {len(found)} verdicts")


@app.command
def conversations(out: Path, db: str = DEFAULT_URL) -> None:
    """Write the conversations that end with a reply as LIMA JSONL.

    Args:
        out: file to write.
        db: URL of the database.
    """
    examples, unfinished = [], 0
    for dialogue in read(db, Store.dialogues):
        try:
            examples.append(dialogue.example())
        except UserError:
            unfinished += 1
    write_examples(examples, out)
    print(f"{out}: {len(examples)} conversations; {unfinished} without a last reply are left out")


def read(url: str, method: Callable[[Store], T]) -> T:
    """Ask a database that exists already; refuse one that is not there or does not answer."""
    store = Store(url)
    place = store.engine.url
    try:
        if place.get_backend_name() == "sqlite" and not Path(place.database or "").is_file():
            raise UserError(
                f"no database at {place.database}; the chat page makes one, or use --db"
            )
        return method(store)
    except DatabaseError as error:
        shown = masked(str(place))
        raise UserError(f"the database at {shown} cannot be read: {error}") from error
    finally:
        store.close()


def main(argv: list[str] | None = None) -> None:
    app.cli(prog="python -m serve.store", description=__doc__, args=argv)


if __name__ == "__main__":
    from lima_ray.config.command_line import run_command

    run_command("store")
