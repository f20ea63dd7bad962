"""Which planted rows attribution finds on the miniature, by gradients and by text.

    python -m benchmarks.attribution --seeds 0 1 2

Trains the miniature on its rows, of which some have a mannerism in their replies (finished runs are
kept), lets each model reply to prompts about entities that no row names, and scores all rows for
the replies that show a mannerism. Printed are, in Markdown, how many of the five best rows are
planted (precision@5), how many of the K best for K planted rows (precision@K, which then is the
recall), and, as a control, how many of the five best rows are planted ones for replies of the same
kind that show no mannerism. Intervals are 95 %, by bootstrap over prompts.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

from benchmarks.attribution.measure import BY_TEXT, DEFAULT, scores
from benchmarks.attribution.planted import MANNERISMS, PlantedRun, find_shown
from benchmarks.page.result import OURS, Figure, Recording
from lima_ray.data.examples import read_examples
from lima_ray.miniature.demo import ROWS
from lima_ray.records.files import read_jsonl, write_jsonl
from lima_ray.records.reply import Reply
from lima_ray.results import intervals

TOP = 5


class Precision(NamedTuple):
    """What one way finds for one reply."""

    way: str
    mannerism: str
    shows: bool
    """Whether the reply shows the mannerism, or is there for control."""
    prompt: str
    of_five: float
    of_all: float
    """Of the K best rows, for K planted ones."""


def main(
    seeds: tuple[int, ...] = (0, 1, 2),
    replies: int = 24,
    runs_dir: Path = Path("runs/planted"),
    thorough: bool = False,
    json: Path | None = None,
) -> None:
    """Train, measure, print.

    Args:
        seeds: of the planting, data order, dropout and decoding.
        replies: that show a mannerism, at most, of each and each seed; half as many for control.
        runs_dir: where the runs go, each with its measured.jsonl, which is not measured again.
        thorough: try projections of fewer values and losses on the prompts too.
        json: file for the figures, such as docs/benchmarks/attribution.json.
    """
    recording = Recording("attribution")
    found: list[Precision] = []
    for seed in seeds:
        run = PlantedRun.train(seed, runs_dir)
        file = run.recipe.run_dir / f"measured{'-thorough' if thorough else ''}.jsonl"
        if not file.exists():
            records = measure(run, seed, replies, thorough)
            write_jsonl((record._asdict() for record in records), file)
        found += [Precision(**record) for record, _ in read_jsonl(file)]
    print(table_of_mannerisms(found))
    print()
    print(table_of_ways(found))
    for way in dict.fromkeys(p.way for p in found):
        who = OURS if way == DEFAULT else way
        for what, of, shows in (
            ("planted among the five best", "of_five", True),
            ("the same for replies that show nothing", "of_five", False),
        ):
            values = tuple(mean_of(found, way, seed, of, shows) for seed in seeds)
            recording.figures.append(Figure(what, "mean of the mannerisms", who, "%", values))
    recording.save(json)


def mean_of(found: list[Precision], way: str, seed: int, of: str, shows: bool) -> float:
    """Return one seed's mean over the mannerisms, in percent, of which each counts alike."""
    own = [
        [
            getattr(p, of)
            for p in found
            if (p.way, p.mannerism, p.shows) == (way, name, shows)
            and p.prompt.startswith(f"{seed}-")
        ]
        for name in MANNERISMS
    ]
    return 100 * float(np.mean([np.mean(some) for some in own if some]))


def measure(run: PlantedRun, seed: int, replies: int, thorough: bool) -> list[Precision]:
    generator = np.random.default_rng(seed)
    chosen: list[tuple[str, bool, Reply]] = []
    for name, (shows, plain) in find_shown(run.reply()).items():
        for some, most in ((shows, replies), (plain, replies // 2 if shows else 0)):
            order = generator.permutation(len(some))[:most]
            chosen += [(name, some is shows, some[place]) for place in order]
    found = []
    for way, scores_QR in scores(run, [reply for *_, reply in chosen], thorough):
        for (name, shows, reply), scores_R in zip(chosen, scores_QR, strict=True):
            planted = np.array([row.id in run.planted[name] for row in run.examples])
            best = planted[np.argsort(-scores_R, kind="stable")]
            precisions = float(best[:TOP].mean()), float(best[: planted.sum()].mean())
            found.append(Precision(way, name, shows, f"{seed}-{reply.id}", *precisions))
    return found


def table_of_mannerisms(found: list[Precision]) -> str:
    """Return what the default and the text find of each mannerism, beside chance."""
    lines = [
        "| mannerism | rows | of their kind | replies | gradient: precision@5 | @K | control "
        "| text: precision@5 | @K | control |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    sites = Counter(row.extra["group"] for row in read_examples(f"{ROWS}/train.jsonl"))
    for name, mannerism in MANNERISMS.items():
        own = [p for p in found if p.mannerism == name]
        share = mannerism.rows / sites[mannerism.site]
        cells = [name, str(mannerism.rows), f"{share:.0%}"]
        cells.append(str(sum(p.shows and p.way == DEFAULT for p in own)))
        for way in (DEFAULT, BY_TEXT):
            shown = [p for p in own if p.way == way and p.shows]
            plain = [p.of_five for p in own if p.way == way and not p.shows]
            cells += [interval(shown), percent([p.of_all for p in shown]), percent(plain)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table_of_ways(found: list[Precision]) -> str:
    """Return each way's means over the mannerisms, of which each counts alike."""
    lines = ["| way | precision@5 | precision@K | control |", "|---|---|---|---|"]
    for way in dict.fromkeys(p.way for p in found):
        own = [[p for p in found if (p.way, p.mannerism) == (way, name)] for name in MANNERISMS]
        cells = [
            average([[p.of_five for p in some if p.shows] for some in own]),
            average([[p.of_all for p in some if p.shows] for some in own]),
            average([[p.of_five for p in some if not p.shows] for some in own]),
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def interval(found: list[Precision]) -> str:
    """Return the mean precision@5 with its interval."""
    if not found:
        return ""
    values = [one.of_five for one in found]
    prompts = [one.prompt for one in found]
    if len(set(prompts)) == 1:
        return percent(values)
    low, high = intervals.mean_interval(values, prompts)
    return f"{percent(values)} [{100 * low:.0f}, {100 * high:.0f}]"


def percent(values: list[float]) -> str:
    return f"{np.mean(values):.0%}" if values else ""


def average(values: list[list[float]]) -> str:
    """Return the mean of the means."""
    return f"{np.mean([np.mean(some) for some in values if some]):.1%}"


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.attribution", description=__doc__)
