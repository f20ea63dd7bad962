"""Run the benchmarks that fit half an hour on two quiet cores, and make `docs/benchmarks.md`.

    make bench                                          # or python -m benchmarks.suite
    python -m benchmarks.suite --posts Posts.xml --vllm_python vllm/bin/python
    python -m benchmarks.suite --only attribution       # longer than the others' half hour

Each benchmark has a time limit and writes `docs/benchmarks/NAME.json`. One whose file is of this
code, machine and command is not repeated, so a suite that was stopped goes on with the same
command. One that fails or runs out of time leaves its earlier file, and its log in
`runs/bench/NAME.log`. TRL's environment is made on the first call.
"""

import time

import tyro

from benchmarks.page import __main__ as page
from benchmarks.page.result import ROOT
from benchmarks.suite.benchmark import WORK, benchmarks
from benchmarks.suite.run import is_current, run
from lima_ray.config.display import ProgressDisplay
from lima_ray.results.units import format_duration


def main(
    only: tuple[str, ...] = (),
    again: bool = False,
    posts: str = "",
    lima: str = "",
    vllm_python: str = "",
) -> None:
    """Run benchmarks and make the page.

    Args:
        only: names; none takes all that fit the half hour.
        again: repeat what has figures of this code and machine.
        posts: a Stack Exchange site's Posts.xml; without it curation reads Reddit alone.
        lima: LIMA's rows; without them training's rows have lengths drawn from Table 1.
        vllm_python: a Python that has vLLM; without it vLLM is left out.
    """
    every = {one.name: one for one in benchmarks(posts, lima, vllm_python)}
    if unknown := set(only) - set(every):
        raise SystemExit(f"no benchmark {', '.join(sorted(unknown))}: {', '.join(every)}")
    chosen = [one for one in every.values() if one.name in only or (one.always and not only)]
    (ROOT / WORK).mkdir(parents=True, exist_ok=True)
    failed = []
    with ProgressDisplay(len(chosen), "benchmarks", count=True) as display:
        for number, one in enumerate(chosen):
            display.update(number, numbers=f"{one.name}, at most {format_duration(one.limit_s)}")
            display.log(f"{one.name}, at most {format_duration(one.limit_s)}", at_once=True)
            if not again and is_current(one):
                display.print(f"{one.name}: kept, of this code and machine")
                continue
            began = time.monotonic()
            wrong = run(one)
            took = format_duration(time.monotonic() - began)
            display.print(f"{one.name}: {wrong or 'done'} in {took}")
            failed += [one.name] * bool(wrong)
        display.update(len(chosen))
    page.main()
    if failed:
        raise SystemExit(f"without new figures: {', '.join(failed)}; logs are in {WORK}")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.suite", description=__doc__, use_underscores=True)
