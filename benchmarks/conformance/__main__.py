"""Print which fields a server honours: see the package."""

import sys

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import conformance
from benchmarks.conformance.checks import CHECKS
from benchmarks.conformance.peer import COLOURS, Peer, Verdict


def main(url: str, model: str, key: str | None = None) -> None:
    """Print what a server makes of each field.

    Args:
        url: with the version, such as http://127.0.0.1:8000/v1.
        model: a name that the server lists.
        key: its API key.
    """
    peer, console = Peer(url, model, key), Console()
    table = Table("", "field", "verdict", "what came back", title=f"{model} at {url}")
    counts: dict[Verdict, int] = {"honoured": 0, "refused": 0, "ignored": 0, "wrong": 0}
    for check in CHECKS:
        found = check.run(peer)
        counts[found.verdict] += 1
        colour = COLOURS[found.verdict]
        name = f"{check.field} ({check.note})" if check.note else check.field
        verdict = f"[{colour}]{found.verdict}[/{colour}]"
        table.add_row(check.kind, name, verdict, found.detail[:90].replace("[", "\\["))
    console.print(table)
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    sys.exit(bool(counts["ignored"] or counts["wrong"]))


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.conformance", description=conformance.__doc__)
