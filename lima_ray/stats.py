"""Recompute published figures with the statistics of reports, and plan how many prompts to judge.

    python -m lima_ray.stats verify
    python -m lima_ray.stats verify --data evaluation
    python -m lima_ray.stats power --prompts 300 --ties 0.21

`verify` prints what the statistics give beside what was published, and ends with status 1 where
they differ: Auto-J's judge, Agresti's baseball, textbook examples, from numbers that ship. With
`--data`, a folder with `alpaca_eval/` and `open_instruct/`, also AlpacaEval's leaderboards and
Tulu's human study. `power` says which difference a study would find.
"""

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from tyro.extras import SubcommandApp

from lima_ray.config.errors import UserError, join_names
from lima_ray.results.published.alpaca_eval import alpaca_eval
from lima_ray.results.published.anchor import Anchor, Missing
from lima_ray.results.published.shipped import shipped
from lima_ray.results.published.tulu import tulu
from lima_ray.results.statistics.power import (
    POWER,
    interval_after,
    preference_deviation,
    prompts_needed,
    resolvable_difference,
)

FULL_DATA = ("AlpacaEval 1", "AlpacaEval 2", "Tulu 1 human study")
FOLDERS = ("alpaca_eval", "open_instruct")
FIGURE_WIDTH = 58
app = SubcommandApp()


@app.command
def verify(data: Path | None = None) -> None:
    """Recompute published figures; end with status 1 where one differs.

    Args:
        data: folder with `alpaca_eval/` (files of tatsu-lab/alpaca_eval) and `open_instruct/`
            (annotations of allenai/open-instruct); without it, what needs them is skipped.
    """
    if data is not None and not any((data / name).is_dir() for name in FOLDERS):
        raise UserError(
            f"--data {data} holds no {' or '.join(FOLDERS)}; give the folder above them"
        )
    equal, different, skipped = 0, 0, []
    for source, group in groupby(_figures(data), key=lambda one: one.source):
        print(f"\n{source}\n{'':{FIGURE_WIDTH}}{'got':>12}{'published':>16}  equal")
        for one in group:
            if isinstance(one, Missing):
                skipped.append(source)
                print(f"  skipped: there is no {one.file}")
                continue
            equal += one.equal
            different += not one.equal
            print(_line(one))
    if data is None:
        skipped += FULL_DATA
    print(f"\n{equal} of {equal + different} figures equal")
    if skipped:
        print(f"skipped: {join_names(list(skipped))}; their data does not ship, give --data FOLDER")
    if different:
        sys.exit(1)


@app.command
def power(prompts: int = 300, ties: float = 0.21, difference: float | None = None) -> None:
    """Say which difference a study finds with a chance of 80 %, and how many prompts another needs.

    Args:
        prompts: of the study, each judged once.
        ties: share of verdicts that prefer neither; LIMA's humans gave 21 to 25 %.
        difference: of a win rate (wins and half the ties) from 50 %, such as 0.06 for 56 %.
    """
    if prompts < 2 or not 0 <= ties < 1:
        raise UserError(
            f"--prompts {prompts} --ties {ties}: a study has two prompts or more, and a share of "
            "ties from 0 to below 1"
        )
    if difference is not None and not 0 < difference <= (1 - ties) / 2:
        raise UserError(
            f"--difference {difference} is no share between 0 and {(1 - ties) / 2:g}: who wins all "
            f"but {100 * ties:.0f} % ties has a win rate of {100 - 50 * ties:.1f} %"
        )
    margin = preference_deviation(ties)
    found = resolvable_difference(prompts, margin)
    print(
        f"{prompts} prompts, each judged once, {100 * ties:.0f} % ties; found with a chance of "
        f"{100 * POWER:.0f} % at the 5 % level:"
    )
    if found > 1 - ties:
        print("  one system against another: none, not even where one always wins but for ties")
    else:
        print(f"  one system against another: wins less losses of {100 * found:.1f} points")
        print(f"    (a win rate, with half the ties, of {50 + 50 * found:.1f} % instead of 50 %)")
    for correlation in (0.0, 0.5):
        # Two systems, each with a win rate against the same third, or a share of passes.
        deviation = margin / 2 * (2 * (1 - correlation)) ** 0.5
        gap = resolvable_difference(prompts, deviation)
        told = f"{100 * gap:.1f} points" if gap <= 1 - ties else "none"
        print(
            f"  two systems against the same third, win rates that correlate {correlation:g} over "
            f"prompts: {told}"
        )
    if difference is not None:
        needed = prompts_needed(2 * difference, margin)
        print(f"  a win rate of {50 + 100 * difference:.1f} % needs {needed} prompts")
    half = interval_after(prompts / 2, prompts, more=20)
    print(
        f"  95 % interval of a share of 50 %: {100 * half.width:.1f} points wide, "
        f"{100 * half.width_after:.1f} after 20 more answers"
    )


def _figures(data: Path | None) -> Iterator[Anchor | Missing]:
    yield from shipped()
    if data is not None:
        yield from tulu(data)
        yield from alpaca_eval(data)


def _line(one: Anchor) -> str:
    got = f"{one.got:.{one.decimals}f}"
    verdict = "yes" if one.equal else "NO"
    return f"  {one.figure:{FIGURE_WIDTH - 2}}{got:>12}{one.published:>16}  {verdict}"


def main(argv: list[str] | None = None) -> None:
    app.cli(prog="python -m lima_ray.stats", description=__doc__, args=argv)


if __name__ == "__main__":
    from lima_ray.config.command_line import run_command

    run_command("stats")
