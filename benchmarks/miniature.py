"""What alignment does to the miniature, over seeds: quality by group, and perplexity beside it.

    python -m benchmarks.miniature --seeds 0 1 2

Trains the miniature recipe once for each seed (finished runs are kept), has the base and each
aligned model reply to dev, test and the test dialogues, and prints Markdown tables. Intervals are
95 %, by bootstrap over prompts, whose replies of all seeds are drawn together.
"""

import time
from pathlib import Path

import numpy as np
import tyro

from benchmarks.page.result import OURS, Figure, Recording
from lima_ray import train
from lima_ray.config.loading import load_recipe
from lima_ray.config.paths import resolve
from lima_ray.miniature.demo import GROUPS, measure
from lima_ray.records.quality import Quality, read_qualities
from lima_ray.records.run import Run
from lima_ray.records.verdict import Verdict
from lima_ray.results import intervals


def main(
    seeds: tuple[int, ...] = (0, 1, 2), runs_dir: str = "runs", json: Path | None = None
) -> None:
    """Train, measure, print.

    Args:
        seeds: of data order, dropout and decoding.
        runs_dir: where the runs go.
        json: file for the figures, such as docs/benchmarks/miniature.json.
    """
    recording = Recording("miniature")
    took_s: list[float] = []
    aligned: dict[str, list[Verdict]] = {}
    base: dict[str, list[Verdict]] = {}
    lines = [
        "| seed | epoch chosen | epoch of the lowest perplexity | epoch of the highest grade |",
        "|---|---|---|---|",
    ]
    for seed in seeds:
        recipe = load_recipe("miniature").override(
            {"name": f"miniature-seed-{seed}", "seed": seed, "runs_dir": runs_dir}
            | {"sampling.seed": seed}
        )
        finished, started = (Path(runs_dir) / recipe.name / "export").exists(), time.perf_counter()
        run = train.fit(recipe)
        took_s += [] if finished else [time.perf_counter() - started]
        lines.append(appendix_b(run, seed, read_qualities(run, recipe.select.judge_name)))
        for prompts in ("dev", "test", "dialogues_test"):
            found = measure(run, run.export_dir, prompts, recipe.sampling)[1]
            aligned.setdefault(prompts, []).extend(found)
            if seed == seeds[0]:
                own = Path(str(resolve(recipe.model.base)))
                base[prompts] = measure(run, own, prompts, recipe.sampling)[1]
    record(recording, base["test"], aligned["test"], took_s)
    recording.save(json)
    print(table(base, aligned, len(seeds)))
    print()
    print("\n".join(lines))


def record(
    recording: Recording, base: list[Verdict], aligned: list[Verdict], took_s: list[float]
) -> None:
    """Add how long alignment takes, of runs that were not there, and what it does to replies."""
    if took_s:
        what = "rows read, trained, and the epoch chosen by judged replies"
        recording.figures.append(Figure("alignment", what, OURS, "s", tuple(took_s)))
    for group, title in GROUPS.items():
        for who, verdicts in (("the base", base), (OURS, aligned)):
            good = [v.verdict != "fail" for v in verdicts if v.group == group]
            share = (100 * float(np.mean(good)),)
            recording.figures.append(Figure("acceptable replies", title, who, "%", share))


def table(base: dict[str, list[Verdict]], aligned: dict[str, list[Verdict]], seeds: int) -> str:
    """Acceptable, known, excellent and stopped shares of each group."""
    lines = [
        f"| prompts | n | base: acceptable | knows the fact | aligned ({seeds} seeds): acceptable "
        "| knows the fact | excellent | stopped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups = [("dev", None)] + [("test", g) for g in GROUPS] + [("test", None)]
    groups.append(("dialogues_test", None))
    for prompts, group in groups:
        b, a = (
            [v for v in found[prompts] if group in (None, v.group)] for found in (base, aligned)
        )
        title = prompts if group is None else f"{prompts}: {GROUPS[group]}"
        cells = [acceptable(b), known(b), acceptable(a), known(a), excellent(a)]
        stopped = np.mean([v.stopped is True for v in a])
        lines.append(f"| {title} | {len(b)} | {' | '.join(cells)} | {stopped:.1%} |")
    return "\n".join(lines)


def acceptable(verdicts: list[Verdict]) -> str:
    """Share of excellent and pass, with its interval."""
    return interval([v.verdict != "fail" for v in verdicts], verdicts)


def known(verdicts: list[Verdict]) -> str:
    """Share whose first paragraph says the fact; a private question asks for none."""
    asked = [v for v in verdicts if "safe" not in v.extra]
    return interval([v.extra["knows"] for v in asked], asked) if asked else ""


def excellent(verdicts: list[Verdict]) -> str:
    """Share of excellent, with its interval."""
    return interval([v.verdict == "excellent" for v in verdicts], verdicts)


def interval(values: list[bool], verdicts: list[Verdict]) -> str:
    low, high = intervals.mean_interval([float(v) for v in values], [v.id for v in verdicts])
    return f"{np.mean(values):.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def appendix_b(run: Run, seed: int, qualities: dict[int, Quality]) -> str:
    """The epoch chosen, and those where perplexity is lowest and the grade highest."""
    every = list(qualities.values())
    chosen = qualities[run.export_epoch()]
    lowest = min(every, key=lambda q: q.perplexity or np.inf)
    highest = max(every, key=lambda q: q.value)
    cells = (
        f"{q.epoch} (grade {q.value:.2f}, perplexity {q.perplexity:.3f})"
        for q in (chosen, lowest, highest)
    )
    return f"| {seed} | {' | '.join(cells)} |"


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.miniature", description=__doc__)
