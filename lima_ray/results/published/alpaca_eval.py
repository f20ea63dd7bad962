"""AlpacaEval's leaderboards, recomputed from the judges' preferences on each instruction.

tatsu-lab/alpaca_eval @ cd543a1, Apache-2.0: `*_leaderboard.csv` and `*_preferences.csv.gz`.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lima_ray.results.intervals import bootstrap
from lima_ray.results.published.anchor import Anchor, Missing, bounded, printed, read_rows
from lima_ray.results.statistics.clustered import clustered_mean
from lima_ray.results.statistics.length import length_adjusted

LEADERBOARDS = {
    "AlpacaEval 1": ("alpaca_eval_gpt4", 52),
    "AlpacaEval 2": ("weighted_alpaca_eval_gpt4_turbo", 57),
}
LENGTH_CONTROLLED = "AlpacaEval 2"
"""Whose length-controlled rates the notes on the formula speak of."""


@dataclass
class Answers:
    """One model's preferences, instruction by instruction."""

    points: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    baseline_lengths: list[float] = field(default_factory=list)


def alpaca_eval(folder: Path) -> Iterator[Anchor | Missing]:
    """Yield how both leaderboards follow from their preferences in `folder/alpaca_eval`."""
    for source, (name, count) in LEADERBOARDS.items():
        files = [
            folder / "alpaca_eval" / f"{name}_{part}"
            for part in ("leaderboard.csv", "preferences.csv.gz")
        ]
        if missing := [file for file in files if not file.is_file()]:
            yield Missing(source, missing[0])
            continue
        board = {row[""]: row for row in read_rows(files[0])}
        answers = {m: a for m, a in read_answers(files[1]).items() if m in board}
        yield from leaderboard(source, board, answers, count)
        if source == LENGTH_CONTROLLED:
            yield from length_controlled(source, board, answers)


def read_answers(file: Path) -> dict[str, Answers]:
    """Return each model's answers; a preference of 1 is the baseline's, 2 the model's."""
    found: dict[str, Answers] = defaultdict(Answers)
    for row in read_rows(file):
        if row["preference"]:  # what the judge did not answer is left out there too
            one = found[row["model"]]
            one.points.append((float(row["preference"]) or 1.5) - 1)  # 0 is a draw
            one.lengths.append(float(row["len_output_2"]))
            one.baseline_lengths.append(float(row["len_output_1"]))
    return found


def leaderboard(
    source: str, board: dict[str, dict[str, str]], answers: dict[str, Answers], count: int
) -> Iterator[Anchor]:
    """Yield how many win rates and standard errors are the published ones."""
    rates, errors, ratios = 0, 0, []
    for model, one in answers.items():
        prompts = range(len(one.points))
        found = clustered_mean([100 * point for point in one.points], prompts)
        rates += abs(found.mean - float(board[model]["win_rate"])) < 1e-9
        errors += abs(found.standard_error - float(board[model]["standard_error"])) < 1e-9
        if found.standard_error:  # the baseline against itself has none
            resampled = bootstrap(one.points, [str(prompt) for prompt in prompts])
            ratios.append(100 * resampled.standard_error / found.standard_error)
    yield printed(source, "win rates equal to 1e-9", rates, count, 0)
    yield printed(source, "standard errors equal to 1e-9", errors, count, 0)
    for name, ratio in (("least", min(ratios)), ("greatest", max(ratios))):
        figure = f"bootstrap's standard error over theirs, {name}"
        yield bounded(source, figure, ratio, 0.93, 1.04, 3)


def length_controlled(
    source: str, board: dict[str, dict[str, str]], answers: dict[str, Answers]
) -> Iterator[Anchor]:
    """Yield how near our length-adjusted rates come to their length-controlled ones.

    Theirs share a term for each instruction's difficulty over all models, which public files lack.
    """
    from scipy import stats

    ours, theirs = [], []
    for model, one in answers.items():
        published = board[model]["length_controlled_winrate"]
        if published and np.ptp(one.points):
            prompts = range(len(one.points))
            found = length_adjusted(one.points, one.lengths, one.baseline_lengths, prompts)
            ours.append(100 * found.value)
            theirs.append(float(published))
    gap = float(np.abs(np.array(ours) - np.array(theirs)).mean())
    figure = "length-controlled win rate, mean distance in points"
    yield bounded(source, figure, gap, float("-inf"), 1.25, 2)
    order = float(np.corrcoef(stats.rankdata(ours), stats.rankdata(theirs))[0, 1])
    yield printed(source, "length-controlled win rate, Spearman", order, 0.977, 3)
