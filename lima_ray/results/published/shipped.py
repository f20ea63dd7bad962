"""Published figures that follow from the slices that ship with the package."""

import math
from collections.abc import Iterator

from lima_ray.results.intervals import wilson_interval
from lima_ray.results.published.anchor import SLICES, Anchor, printed, read_rows
from lima_ray.results.statistics.agreement import (
    Level,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
)
from lima_ray.results.statistics.bradley_terry import Comparisons, bradley_terry
from lima_ray.results.statistics.calibration import corrected_rate
from lima_ray.results.statistics.order import both_orders
from lima_ray.results.statistics.preference import Outcome, flip, win_tie_lose

AUTO_J = "Auto-J"
AUTO_J_PUBLISHED = {
    # Right in both orders, consistency, right in a single order: codes/leaderboard/README.md
    "all": (54.96, 83.41, 59.99),
    "Summarization": (45.83, 73.61, 56.94),
    "Exam Questions": (38.89, 69.44, 41.67),
    "Code": (47.50, 75.83, 54.17),
    "Rewriting": (49.17, 74.17, 57.50),
    "Creative Writing": (59.72, 87.04, 63.43),
    "Functional Writing": (61.67, 81.67, 68.33),
    "General Communication": (55.21, 92.36, 57.29),
    "NLP Tasks": (57.58, 86.36, 62.12),
}
EXCHANGED = {"0": "1", "1": "0", "2": "2"}
CRITIQUE: dict[str, Outcome] = {"A": "win", "B": "lose", "C": "tie"}
BASEBALL_PUBLISHED = {
    "Cleveland": 0.68,
    "Boston": 1.11,
    "New York": 1.25,
    "Toronto": 1.29,
    "Detroit": 1.44,
    "Milwaukee": 1.58,
}
"""Log strengths beside Baltimore's."""
KRIPPENDORFF = ("*****34121133*3", "1*213343*******", "**21344*21133*4")
"""Labels of 15 items by each of three annotators; * is missing."""
FLEISS = (
    (0, 0, 0, 0, 14),
    (0, 2, 6, 4, 2),
    (0, 0, 3, 5, 6),
    (0, 3, 9, 2, 0),
    (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0),
    (3, 2, 6, 3, 0),
    (2, 5, 3, 2, 2),
    (6, 5, 2, 1, 0),
    (0, 2, 2, 3, 7),
)
"""How many of 14 raters gave each of 5 labels to each of 10 items."""
GAMES = (("A", "B", 2, 3), ("A", "D", 1, 4), ("B", "C", 5, 3), ("C", "D", 1, 3))
"""Games that the first won, and that the second won."""
GAMES_PUBLISHED = {"A": 0.640, "B": 1.043, "C": 0.660, "D": 2.270}


def shipped() -> Iterator[Anchor]:
    """Yield every figure that needs no more than the package."""
    yield from auto_j_pairwise()
    yield from auto_j_critique()
    yield from baseball()
    yield from worked_games()
    yield from textbook_agreement()
    yield from judge_correction()
    yield from newcombe()


def auto_j_pairwise() -> Iterator[Anchor]:
    """Yield consistency and correctness of Auto-J on its 1,392 pairs, and by group."""
    given: dict[str, list[tuple[str, str, str]]] = {name: [] for name in AUTO_J_PUBLISHED}
    for row in read_rows(SLICES / "auto_j_pairwise.csv"):
        pairs = list(zip(row["human"], row["given"], row["exchanged"], strict=True))
        given["all"] += pairs
        given[row["group"]] += pairs
    for name, pairs in given.items():
        found = both_orders(
            [second for _, second, _ in pairs],
            [EXCHANGED[third] for _, _, third in pairs],
            range(len(pairs)),
            [first for first, _, _ in pairs],
        )
        assert found.consistent_and_right and found.single_order
        figures = {
            "consistent and right": found.consistent_and_right,
            "consistency": found.consistency,
            "right in one order": found.single_order,
        }
        for (figure, one), percent in zip(figures.items(), AUTO_J_PUBLISHED[name], strict=True):
            yield printed(AUTO_J, f"{figure}, {name}", 100 * one.value, percent, 2)


def auto_j_critique() -> Iterator[Anchor]:
    """Yield how often GPT-4 prefers Auto-J's critiques to ChatGPT's."""
    (row,) = read_rows(SLICES / "auto_j_critique.csv")
    shown: list[Outcome] = [CRITIQUE[letter] for letter in row["verdict"]]
    signs = zip(shown, row["exchanged"], strict=True)
    outcomes: list[Outcome] = [flip(one) if sign == "1" else one for one, sign in signs]
    found = win_tie_lose(outcomes, range(len(outcomes)))
    for name, percent in (("win", 73.7), ("tie", 2.2), ("lose", 24.1)):
        yield printed("Auto-J critiques", name, 100 * found.rates[name].value, percent, 1)


def baseball() -> Iterator[Anchor]:
    """Yield Agresti's strengths, and the advantage of playing at home."""
    home, away, points = [], [], []
    for row in read_rows(SLICES / "baseball.csv"):
        for won, games in ((1.0, int(row["home_wins"])), (0.0, int(row["away_wins"]))):
            home += [row["home"]] * games
            away += [row["away"]] * games
            points += [won] * games
    source, games = "Agresti 2002, baseball", range(len(points))
    found = bradley_terry(Comparisons(home, away, points, games))
    for team, published in BASEBALL_PUBLISHED.items():
        got = found.difference(team, "Baltimore").value
        yield printed(source, f"strength of {team}", got, published, 2)
    at_home = {"home": [1.0] * len(points)}
    with_home = bradley_terry(Comparisons(home, away, points, games, at_home))
    got = with_home.covariates["home"].value
    yield printed(source, "advantage at home", got, 0.302, 3)


def worked_games() -> Iterator[Anchor]:
    """Yield Bradley-Terry's worked example, strengths with geometric mean 1."""
    first, second, points = [], [], []
    for a, b, wins, losses in GAMES:
        first += [a] * (wins + losses)
        second += [b] * (wins + losses)
        points += [1.0] * wins + [0.0] * losses
    found = bradley_terry(Comparisons(first, second, points, range(len(points))))
    for name, published in GAMES_PUBLISHED.items():
        got = math.exp(found.strengths[name].value)
        yield printed("Bradley-Terry, worked example", f"strength of {name}", got, published, 3)


def textbook_agreement() -> Iterator[Anchor]:
    """Yield the standard examples of Krippendorff, Fleiss and Cohen."""
    items = [
        [None if said == "*" else int(said) for said in labels]
        for labels in zip(*KRIPPENDORFF, strict=True)
    ]
    source = "Krippendorff, worked example"
    levels: dict[Level, float] = {"nominal": 0.691, "interval": 0.811}
    for level, published in levels.items():
        got = krippendorff_alpha(items, level).value
        yield printed(source, f"alpha, {level}", got, published, 3)
    ratings = [[k for k, count in enumerate(row) for _ in range(count)] for row in FLEISS]
    got = fleiss_kappa(ratings).value
    yield printed("Fleiss 1971, worked example", "kappa", got, 0.210, 3)
    first, second = "y" * 25 + "n" * 25, "y" * 20 + "n" * 5 + "y" * 10 + "n" * 15
    got = cohen_kappa(first, second).value
    yield printed("Cohen 1960, worked example", "kappa", got, 0.40, 2)


def judge_correction() -> Iterator[Anchor]:
    """Yield the example of Lee et al.: a judge calls 40 % of 1,000 right, q0 .7 and q1 .9."""
    source = "Lee et al. 2025, judge correction"
    found = corrected_rate(400, 1000, right_of_negative=(140, 200), right_of_positive=(180, 200))
    yield printed(source, "corrected rate", found.value, 0.1667, 4)
    yield printed(source, "low end", found.low, 0.0564, 4)
    yield printed(source, "high end", found.high, 0.2627, 4)


def newcombe() -> Iterator[Anchor]:
    """Yield Wilson's intervals as Newcombe tabulates them."""
    for successes, count, *ends in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = wilson_interval(successes, count)
        for name, got, published in zip(("low", "high"), found, ends, strict=True):
            figure = f"Wilson, {successes} of {count}, {name} end"
            yield printed("Newcombe 1998, table I", figure, got, published, 4)
