"""Verdicts of people and judges: summarised, as a table, to and from other annotation tools.

    python -m lima_ray.verdicts summary judged/lima/verdicts.jsonl votes.jsonl
    python -m lima_ray.verdicts table judged/lima/verdicts.jsonl --out verdicts.csv
    python -m lima_ray.verdicts export a=replies/a b=replies/b --form argilla --out records.json
    python -m lima_ray.verdicts collect records.json a=replies/a b=replies/b --form argilla \\
        --out people.jsonl
    python -m lima_ray.verdicts export a=replies/a b=replies/b --form judge_rows \\
        --verdicts judged/lima/verdicts.jsonl --out data/judge.jsonl

Votes of the chat page (`python -m serve.store verdicts`) count like any other verdicts. `export`
writes questions, which name no model, in the form of Argilla or Label Studio, with the verdicts
that there are already; `collect` reads what people answered there. The form `judge_rows` is
training rows for a judge of one's own: what a model judge is sent, and the verdict given on it.
"""

if __name__ == "__main__":  # arguments first: the imports below take a second
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("verdicts"))

from pathlib import Path

from lima_ray.config.errors import UserError, join_names
from lima_ray.data.examples import write_examples
from lima_ray.judging.forms import argilla, label_studio
from lima_ray.judging.forms.judge_rows import write_judge_rows
from lima_ray.judging.forms.table import write_table
from lima_ray.judging.passport import judges_without
from lima_ray.judging.questions.design import Orders, design_items
from lima_ray.judging.questions.item import Item, ItemKind
from lima_ray.judging.questions.replies import read_models
from lima_ray.judging.questions.verdicts import latest
from lima_ray.judging.summary import summarise
from lima_ray.judging.verdict_arguments import (
    CollectCommand,
    ExportCommand,
    SummaryCommand,
    TableCommand,
    VerdictsCommand,
)
from lima_ray.records.files import (
    explain_write_errors,
    parse_json,
    write_json,
    write_jsonl,
    write_text,
)
from lima_ray.records.verdict import Verdict, read_verdicts


def main(command: VerdictsCommand) -> None:
    if isinstance(command, SummaryCommand):
        print_summary(command)
        return
    with explain_write_errors(command.out, "--out"):
        command.out.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(command, TableCommand):
            print(f"{command.out}: {write_csv(command)} verdicts")
        elif isinstance(command, ExportCommand):
            print(f"{command.out}: {export(command)}")
        else:
            print(f"{command.out}: {collect(command)}")


def print_summary(command: SummaryCommand) -> None:
    found = read_all(command.files)
    if not found:
        raise UserError(f"there is no verdict in {join_names(list(map(str, command.files)))}")
    print("\n".join(summarise(found)))
    if unknown := judges_without(found, {file.parent for file in command.files}):
        print(f"no passport of {join_names(unknown)}: how far to trust it is unknown")


def write_csv(command: TableCommand) -> int:
    """Write verdicts as CSV; return how many."""
    found = latest(read_all(command.files))
    write_text(command.out, write_table(found))
    return len(found)


def export(command: ExportCommand) -> str:
    """Write questions as tasks, or with their verdicts as training rows; return how many."""
    items = make_items(command.replies, command.kind, command.whole, command.orders, command.seed)
    found = read_all(command.verdicts)
    if command.form == "judge_rows":
        rows = write_judge_rows(items, found, command.balanced, command.seed)
        if not rows:
            raise UserError(
                "no verdict in --verdicts is about these questions; give the replies that were "
                "judged, their --kind and --orders"
            )
        write_examples(rows, command.out)
        return f"{len(rows)} rows of {len(items)} questions"
    if command.form == "argilla":
        write_json(command.out, argilla.write_records(items, found))
    else:
        write_json(command.out, label_studio.write_tasks(items, found))
        write_text(command.out.with_suffix(".xml"), label_studio.write_configuration(items))
    return f"{len(items)} questions"


def collect(command: CollectCommand) -> str:
    """Write the verdicts that another tool's file holds; return how many."""
    if not command.file.is_file():
        raise UserError(f"no file {command.file}")
    rows = parse_json(command.file.read_bytes(), str(command.file))
    if not isinstance(rows, list):
        raise UserError(f"{command.file} holds no list of records or tasks")
    read = argilla.read_records if command.form == "argilla" else label_studio.read_tasks
    items = make_items(command.replies, command.kind, command.whole, "both", 0)
    given = read(rows, items, str(command.file))
    found = latest(given)
    write_jsonl((verdict.to_json() for verdict in found), command.out)
    twice = f"; {n} that were given again count once" if (n := len(given) - len(found)) else ""
    return f"{len(found)} verdicts{twice}"


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
