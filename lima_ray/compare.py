"""Show two models' replies to the same prompts side by side, in the terminal or as a page.

    python -m lima_ray.compare replies/BASE replies/NEW
    python -m lima_ray.compare replies/BASE replies/NEW --open

Each is a directory of replies, as `lima_ray.generate` and a run's `dev/NN` have them, or its
replies.jsonl. Nothing is judged: this is for reading, in the order of the prompts.
"""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lima_ray.config.command_line import parse_flags
from lima_ray.config.errors import UserError
from lima_ray.config.sections import ReadPath, Section
from lima_ray.config.terminal import printable
from lima_ray.records.files import explain_write_errors
from lima_ray.records.reply import Reply, read_replies
from lima_ray.results.page.blocks import Heading, Line, Lines, Small, text
from lima_ray.results.page.blocks import Table as PageTable
from lima_ray.results.page.html import html_page

ReplyKey = tuple[str, int, int]
"""Id of a prompt, number of the sample, and the turn."""
NOT_STOPPED, PAGE_TITLE = "did not stop", "Replies side by side"


class CompareCommand(Section):
    """What the command line says."""

    first: Annotated[ReadPath, tyro.conf.Positional, tyro.conf.arg(metavar="REPLIES")]
    """Directory of replies, or its replies.jsonl."""
    second: Annotated[ReadPath, tyro.conf.Positional, tyro.conf.arg(metavar="REPLIES")]
    """The other."""
    open: bool = False
    """Write a page and open it in the browser, instead of printing."""
    out: Path = Path("compare.html")
    """Where --open writes the page."""
    limit: int = 0
    """Replies to show at most; 0 shows all."""
    same: bool = True
    """Show equal replies too."""


@dataclass(frozen=True)
class Pair:
    first: Reply
    second: Reply

    @property
    def prompt(self) -> str:
        """The user's last turn, and how many turns came before it."""
        turns = self.first.conversations
        return turns[0] if len(turns) == 1 else f"({len(turns) - 1} turns before)\n{turns[-1]}"


def read_replies_by_key(reference: Path) -> dict[ReplyKey, Reply]:
    """Return replies by prompt, sample and turn, in their order; refuse where none is."""
    file = reference / "replies.jsonl" if reference.is_dir() else reference
    if not file.is_file():
        raise UserError(f"no replies at {reference}: it is no replies.jsonl, nor a folder with one")
    found = {(record.id, record.sample, record.turn): record for record in read_replies(file)}
    if not found:
        raise UserError(f"{file} holds no replies")
    return found


def pair_replies(first: dict[ReplyKey, Reply], second: dict[ReplyKey, Reply]) -> list[Pair]:
    """Return replies to what both were asked, in the order of the first; refuse where none is."""
    both = [Pair(record, second[place]) for place, record in first.items() if place in second]
    if not both:
        ids = next(iter(first))[0], next(iter(second))[0]
        raise UserError(
            f"the two reply to no prompt in common; the first has {ids[0]!r}, say, and the second "
            f"{ids[1]!r}"
        )
    return both


def summarise(first: dict[ReplyKey, Reply], second: dict[ReplyKey, Reply], both: list[Pair]) -> str:
    """Return counts: common prompts, equal replies, shares that stopped, and what only one has."""
    equal = sum(pair.first.reply == pair.second.reply for pair in both)
    sides = [pair.first for pair in both], [pair.second for pair in both]
    stopped = [sum(reply.stopped for reply in side) / len(both) for side in sides]
    words = [sum(len(reply.reply.split()) for reply in side) / len(both) for side in sides]
    counts = (
        f"{len(both)} replies to the same prompts, {equal} equal; {stopped[0]:.0%} and "
        f"{stopped[1]:.0%} stopped; {words[0]:.0f} and {words[1]:.0f} words on average"
    )
    alone = [len(first) - len(both), len(second) - len(both)]
    return f"{counts}; {alone[0]} and {alone[1]} that only one has" if any(alone) else counts


def column_names(both: list[Pair]) -> tuple[str, str]:
    """Return both models' names, told apart where they are equal."""
    found = both[0].first.model, both[0].second.model
    return found if found[0] != found[1] else (f"{found[0]} (first)", f"{found[1]} (second)")


def build_table(both: list[Pair], title: str) -> Table:
    shown = Table(title=Text(title), title_justify="left", show_lines=True)
    for heading in ("prompt", *column_names(both)):
        shown.add_column(Text(printable(heading)), ratio=1, overflow="fold")
    for pair in both:
        cells = [Text(printable(pair.prompt))]
        for record in (pair.first, pair.second):
            cells.append(Text(printable(record.reply.strip())))
            cells[-1].append("" if record.stopped else f"\n{NOT_STOPPED}", style="dim")
        shown.add_row(*cells)
    return shown


def build_page(both: list[Pair], title: str) -> str:
    """Return the pairs as one HTML file that needs nothing else."""
    headings = ("prompt", *column_names(both)) if both else ()
    rows = [[Lines(pair.prompt), page_cell(pair.first), page_cell(pair.second)] for pair in both]
    blocks = [Heading(PAGE_TITLE, 1), text(title)]
    return html_page(PAGE_TITLE, [*blocks, PageTable(headings, rows, len(headings), is_even=True)])


def page_cell(reply: Reply) -> Line:
    """Return a reply, and whether it did not stop."""
    note = "" if reply.stopped else NOT_STOPPED
    return (Lines(reply.reply.strip()), *((Lines("\n"), Small(note)) if note else ()))


def compare(command: CompareCommand) -> None:
    """Show two directories of replies side by side; refuse them where no prompt is common."""
    first, second = read_replies_by_key(command.first), read_replies_by_key(command.second)
    both = pair_replies(first, second)
    title = summarise(first, second, both)
    shown = [p for p in both if command.same or p.first.reply != p.second.reply]
    shown = shown[: command.limit or None]
    if not command.open:
        console = Console(highlight=False)
        if shown:
            console.print(build_table(shown, title))
        else:
            console.print(title)
        return
    with explain_write_errors(command.out, "--out"):
        command.out.parent.mkdir(parents=True, exist_ok=True)
        command.out.write_text(build_page(shown, title), encoding="utf-8")
    print(f"{title}\npage         {command.out.absolute()}")
    webbrowser.open(command.out.absolute().as_uri())


def main(argv: list[str] | None = None) -> None:
    nothing, prog = tyro.MISSING_NONPROP, "python -m lima_ray.compare"
    compare(parse_flags(CompareCommand, nothing, prog, __doc__, argv))


if __name__ == "__main__":
    from lima_ray.config.command_line import run_command

    run_command("compare")
