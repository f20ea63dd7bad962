"""Kill what a run depends on, one thing after another, and tell what was lost and for how long.

    python -m benchmarks.drill [NAMES ...] --out runs/drill
    make drill                                      # all of them, into cluster/README.md

Each fault has a cluster of its own: several `ray start` on this machine. A drill that was stopped
goes on with the same command; one that is complete begins anew. It is compared with the last table;
the status is 1 where a promise is broken or something takes over twice as long.
"""

import time
import traceback
from dataclasses import asdict
from pathlib import Path

import tyro

from benchmarks.drill import judging, rpc, serving, storage, sweep, training
from benchmarks.drill.outcome import Fault, NotHeldError, Outcome
from benchmarks.drill.table import Row, is_worse, read_table, write_table
from benchmarks.servers import ROOT
from lima_ray.config.display import ProgressDisplay
from lima_ray.config.errors import UserError
from lima_ray.records.files import read_json, write_json

OUTCOME = "outcome.json"
"""Of a fault, in its folder."""
TABLE = ROOT / "cluster" / "README.md"
FAULTS = [
    *training.FAULTS,
    *storage.FAULTS,
    *sweep.FAULTS,
    *judging.FAULTS,
    *serving.FAULTS,
    *rpc.FAULTS,
]


def main(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    out: Path = Path("runs/drill"),
    write: bool = False,
) -> None:
    """Run faults, print the table, and compare it with the last one.

    Args:
        names: which faults; none runs all.
        out: where runs, logs and outcomes go.
        write: put the rows into cluster/README.md.
    """
    known = {fault.name: fault for fault in FAULTS}
    if unknown := set(names) - set(known):
        raise SystemExit(f"no fault {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    wanted = [fault for fault in FAULTS if not names or fault.name in names]
    rows, broken = run_all(wanted, out.resolve())
    last = read_table(TABLE)
    worse = [row for row in rows if row.title in last and is_worse(row, last[row.title])]
    for row in rows:
        print(row.line())
    for row in worse:
        print(f"worse: {row.title} takes {row.seconds} s, last time {last[row.title].seconds} s")
    for title, why in broken.items():
        print(f"broken: {title}: {why}")
    if write:
        now = last | {row.title: row for row in rows}
        order = [fault.title for fault in FAULTS if fault.title in now]
        write_table(TABLE, [now[title] for title in order])
    if broken or worse:
        raise SystemExit(1)


def run_all(faults: list[Fault], out: Path) -> tuple[list[Row], dict[str, str]]:
    """Cause each fault that has no outcome yet; return rows, and why others have none, by title."""
    rows, broken = list[Row](), dict[str, str]()
    if all((out / fault.name / OUTCOME).exists() for fault in faults):
        for fault in faults:
            (out / fault.name / OUTCOME).unlink()
    with ProgressDisplay(len(faults), "faults", count=True) as display:
        for number, fault in enumerate(faults):
            display.update(number, numbers=fault.title)
            began = time.monotonic()
            try:
                outcome = run_one(fault, out / fault.name)
            except (NotHeldError, UserError, OSError, RuntimeError) as error:
                (out / fault.name / "error.txt").write_text(traceback.format_exc())
                broken[fault.title] = str(error).splitlines()[0]
                display.print(
                    f"{fault.name}: BROKEN after {time.monotonic() - began:.0f} s: {error}"
                )
                continue
            if outcome.skipped:
                display.print(f"{fault.name}: not tried: {outcome.skipped}")
                continue
            rows.append(Row.of(fault.title, outcome))
            display.print(f"{fault.name}: {rows[-1].line()} in {time.monotonic() - began:.0f} s")
        display.update(len(faults))
    return rows, broken


def run_one(fault: Fault, folder: Path) -> Outcome:
    """Return a fault's outcome, from an earlier start where there is one."""
    file = folder / OUTCOME
    if known := read_json(file):
        return Outcome(**known)
    folder.mkdir(parents=True, exist_ok=True)
    attempt = folder / f"{time.time_ns()}"
    attempt.mkdir()
    outcome = fault.run(attempt)
    write_json(file, asdict(outcome))
    return outcome


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.drill", description=__doc__)
