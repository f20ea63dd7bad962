"""Arguments of `lima_ray.verdicts`, a section for each of its subcommands."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.extras import subcommand_cli_from_dict

from lima_ray.config.sections import Section
from lima_ray.judging.questions.design import Orders
from lima_ray.judging.questions.item import ItemKind

Files = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VERDICTS")]
Replies = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=REPLIES")]
Form = Literal["argilla", "label_studio"]


class SummaryCommand(Section):
    """Print what verdicts say, judge by judge, with intervals and with what was not read."""

    files: Files
    """Each a verdicts.jsonl of judges, a study or the chat page; a verdict given twice counts
    once."""


class TableCommand(Section):
    """Write verdicts as CSV, a row each."""

    files: Files
    """Each a verdicts.jsonl of judges, a study or the chat page."""
    out: Path
    """CSV file to write."""


class ExportCommand(Section):
    """Write questions about replies as tasks of another tool, or as training rows of a judge."""

    replies: Replies
    """Of each model: a directory of replies, its replies.jsonl, or a table."""
    form: Form | Literal["judge_rows"]
    """Whose tasks; label_studio gets its labelling configuration beside them (.xml). judge_rows
    are training rows: what a model judge is sent, and a verdict that was given on it."""
    out: Path
    """JSON file to write; of judge_rows JSONL."""
    kind: ItemKind = "pairwise"
    """Kind of the questions."""
    whole: bool = False
    """Ask about dialogues as a whole."""
    orders: Orders = "seeded"
    """Order of the sides: one drawn by the seed, both, or as the models are given."""
    seed: int = 0
    """Seed of the orders, and of what is drawn."""
    balanced: bool = False
    """Of judge_rows: as many of each outcome, drawn by the seed."""
    verdicts: tuple[Path, ...] = ()
    """Files of verdicts to show there, or to learn from."""


class CollectCommand(Section):
    """Read what people answered in another tool as verdicts."""

    file: Annotated[Path, tyro.conf.Positional]
    """JSON file that the tool wrote."""
    replies: Replies
    """As they were exported; in which order the sides stood is told by the task."""
    form: Form
    """Whose tasks."""
    out: Path
    """File of verdicts to write."""
    kind: ItemKind = "pairwise"
    """Kind of the questions."""
    whole: bool = False
    """The questions were about dialogues as a whole."""


VerdictsCommand = SummaryCommand | TableCommand | ExportCommand | CollectCommand
SUBCOMMANDS: dict[str, type[VerdictsCommand]] = {
    "summary": SummaryCommand,
    "table": TableCommand,
    "export": ExportCommand,
    "collect": CollectCommand,
}


def parse_verdicts(args: list[str], prog: str, doc: str) -> VerdictsCommand:
    return subcommand_cli_from_dict(
        dict(SUBCOMMANDS),
        prog=prog,
        description=doc,
        args=args,
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff,),
    )
