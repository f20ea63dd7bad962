"""Verdicts of people and judges: summarised, as a table, to and from other annotation tools.

    python -m lima_ray.verdicts summary judged/lima/verdicts.jsonl votes.jsonl
    python -m lima_ray.verdicts table judged/lima/verdicts.jsonl --out verdicts.csv
    python -m lima_ray.verdicts export a=replies/a b=replies/b --form argilla --out records.json
    python -m lima_ray.verdicts collect records.json a=replies/a b=replies/b --form argilla \\
        --out people.jsonl

Votes of the chat page (`python -m serve.store verdicts`) count like any other verdicts. `export`
writes questions, which name no model, in the form of Argilla or Label Studio, with the verdicts
that there are already; `collect` reads what people answered there.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.extras import SubcommandApp

from lima_ray.config.errors import UserError, join_names
from lima_ray.judging.forms import argilla, label_studio
from lima_ray.judging.forms.table import write_table
from lima_ray.judging.passport import judges_without
from lima_ray.judging.questions.design import Orders, design_items
from lima_ray.judging.questions.item import Item, ItemKind
from lima_ray.judging.questions.replies import read_models
from lima_ray.judging.questions.verdicts import latest
from lima_ray.judging.summary import summarise
from lima_ray.records.files import (
    explain_write_errors,
    parse_json,
    write_json,
    write_jsonl,
    write_text,
)
from lima_ray.records.verdict import Verdict, read_verdicts

Form = Literal["argilla", "label_studio"]
Replies = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=REPLIES")]
Files = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VERDICTS")]
app = SubcommandApp()


@app.command
def summary(files: Files) -> None:
    """Print what verdicts say, judge by judge, with intervals and with what was not read.

    Args:
        files: verdicts.jsonl of judges, studies or the chat page; one given twice counts once.
    """
    found = read_all(files)
    print("\n".join(summarise(found)))
    if unknown := judges_without(found, {file.parent for file in files}):
        print(f"no passport of {join_names(unknown)}: how far to trust it is unknown")


@app.command
def table(files: Files, out: Path) -> None:
    """Write verdicts as CSV, a row each.

    Args:
        files: verdicts.jsonl of judges, studies or the chat page.
        out: file to write.
    """
    found = latest(read_all(files))
    with explain_write_errors(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, write_table(found))
    print(f"{out}: {len(found)} verdicts")


@app.command
def export(
    replies: Replies,
    form: Form,
    out: Path,
    kind: ItemKind = "pairwise",
    whole: bool = False,
    orders: Orders = "seeded",
    seed: int = 0,
    verdicts: tuple[Path, ...] = (),
) -> None:
    """Write questions about replies as tasks of another tool.

    Args:
        replies: of each model: a directory of replies, its replies.jsonl, or a table.
        form: argilla, or label_studio, which gets its labelling configuration beside it (.xml).
        out: JSON file to write.
        kind: of the questions.
        whole: ask about dialogues as a whole.
        orders: of the sides: one drawn by the seed, both, or as the models are given.
        seed: of the orders.
        verdicts: files of verdicts to show there.
    """
    items, found = make_items(replies, kind, whole, orders, seed), read_all(verdicts)
    with explain_write_errors(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        if form == "argilla":
            write_json(out, argilla.write_records(items, found))
        else:
            write_json(out, label_studio.write_tasks(items, found))
            write_text(out.with_suffix(".xml"), label_studio.write_configuration(items))
    print(f"{out}: {len(items)} questions")


@app.command
def collect(
    file: Annotated[Path, tyro.conf.Positional],
    replies: Replies,
    form: Form,
    out: Path,
    kind: ItemKind = "pairwise",
    whole: bool = False,
) -> None:
    """Read what people answered in another tool as verdicts.

    Args:
        file: JSON file that the tool wrote.
        replies: as they were exported; in which order a side stood is told by the task.
        form: argilla or label_studio.
        out: verdicts.jsonl to write.
        kind: of the questions.
        whole: the questions were about dialogues as a whole.
    """
    if not file.is_file():
        raise UserError(f"no file {file}")
    rows = parse_json(file.read_bytes(), str(file))
    if not isinstance(rows, list):
        raise UserError(f"{file} holds no list of records or tasks")
    read = argilla.read_records if form == "argilla" else label_studio.read_tasks
    given = read(rows, make_items(replies, kind, whole, "both", 0), str(file))
    found = latest(given)
    with explain_write_errors(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl((verdict.to_json() for verdict in found), out)
    twice = f"; {n} that were given again count once" if (n := len(given) - len(found)) else ""
    print(f"{out}: {len(found)} verdicts{twice}")


def make_items(
    replies: tuple[str, ...], kind: ItemKind, whole: bool, orders: Orders, seed: int
) -> list[Item]:
    """Return the questions about replies, every two models compared."""
    models = read_models(replies)
    return design_items(kind, models, whole=whole, pairs="all", orders=orders, seed=seed)


def read_all(files: tuple[Path, ...]) -> list[Verdict]:
    """Read files of verdicts; refuse one that is not there."""
    for file in files:
        if not file.is_file():
            raise UserError(f"no verdicts at {file}")
    return [verdict for file in files for verdict in read_verdicts(file)]


def main(argv: list[str] | None = None) -> None:
    app.cli(prog="python -m lima_ray.verdicts", description=__doc__, args=argv)


if __name__ == "__main__":
    from lima_ray.config.command_line import run_command

    run_command("verdicts")
