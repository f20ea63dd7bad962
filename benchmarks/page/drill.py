"""The drill's table in `cluster/README.md`, as a result for a picture; the table stays there."""

from benchmarks.drill.table import read_table
from benchmarks.page.result import OURS, ROOT, Figure, Machine, Result


def drill_result() -> Result:
    """Return the seconds until each fault's work went on, of those that stood still."""
    rows = read_table(ROOT / "cluster" / "README.md")
    what = "time until work goes on"
    return Result(
        name="drill",
        command="make drill",
        date="",
        commit="",
        machine=Machine("", 2, 0.0, {}),
        seconds=0.0,
        figures=tuple(
            Figure(what, title, OURS, "s", (float(one.seconds),))
            for title, one in rows.items()
            if one.seconds
        ),
    )
