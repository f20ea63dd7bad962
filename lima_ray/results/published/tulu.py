"""The human study of Tulu 1 (Wang et al. 2023, arXiv:2306.04751), counted as the authors count.

allenai/open-instruct @ e6c3044, Apache-2.0: 1,150 annotations of 332 prompts by 16 people.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from lima_ray.results.published.anchor import Anchor, Missing, printed, read_rows
from lima_ray.results.statistics.agreement import percent_agreement, tie_discounted_accuracy
from lima_ray.results.statistics.clustered import rate
from lima_ray.results.statistics.preference import Outcome, win_tie_lose

SOURCE = "Tulu 1 human study"
SYSTEM, RIVAL = "tulu_65B", "chatgpt"
ANNOTATED_TWICE = ("chatgpt", "tulu_7B")
ACCEPTED = {"chatgpt": 90.1, "tulu_65B": 79.8, "tulu_human_only_65B": 72.3, "tulu_7B": 68.7}
PREFERRED = {"win": 27.7, "tie": 33.1, "lose": 39.2}

Row = dict[str, str]
Instances = dict[tuple[str, str], list[Row]]
"""Annotations of each comparison, by the other system and the prompt, the earliest first."""


def tulu(folder: Path) -> Iterator[Anchor | Missing]:
    """Yield the study's figures from `folder/open_instruct`."""
    file = folder / "open_instruct" / "tulu_annotations_min.csv"
    if not file.is_file():
        yield Missing(SOURCE, file)
        return
    rows = list(read_rows(file))
    yield printed(SOURCE, "annotations", len(rows), 1150, 0)
    instances = read_instances(rows)
    yield from shares(instances)
    yield from agreements(instances)


def read_instances(rows: list[Row]) -> Instances:
    """Return the annotations of each comparison; an annotator's latest word holds."""
    in_order = sorted(rows, key=lambda row: row["timestamp"])
    latest = {(row["instance_index"], row["evaluator"]): row for row in in_order}
    found: Instances = defaultdict(list)
    for row in sorted(latest.values(), key=lambda row: row["timestamp"]):
        (rival,) = {row["model_a"], row["model_b"]} - {SYSTEM}
        found[rival, row["instance_id"]].append(row)
    return found


def shares(instances: Instances) -> Iterator[Anchor]:
    """Yield figures 3 and 4: of several annotations the first counts."""
    accepted: dict[str, list[float]] = defaultdict(list)
    outcomes: list[Outcome] = []
    for (rival, _), (row, *_) in instances.items():
        for side in "ab":
            said = row[f"completion_{side}_is_acceptable"]
            accepted[row[f"model_{side}"]].append(float(said == "yes"))
        if rival == RIVAL:
            outcomes.append(outcome(row))
    found = win_tie_lose(outcomes, range(len(outcomes)))
    for name, percent in PREFERRED.items():
        got = 100 * found.rates[name].value
        yield printed(SOURCE, f"figure 4, {SYSTEM} against {RIVAL}, {name}", got, percent, 1)
    for system, percent in ACCEPTED.items():
        got = 100 * rate(accepted[system], range(len(accepted[system]))).value
        yield printed(SOURCE, f"figure 3, {system} acceptable", got, percent, 1)


def agreements(instances: Instances) -> Iterator[Anchor]:
    """Yield appendix G.2: agreement of two people, the mean over the two comparisons it names.

    The paper prints 0.72 and 0.84; the third decimal is of the same annotations.
    """
    discounted, accepted, count = [], [], 0
    for rival in ANNOTATED_TWICE:
        twice = [rows[:2] for (other, _), rows in instances.items() if other == rival and rows[1:]]
        first, second = ([outcome(rows[n]) for rows in twice] for n in (0, 1))
        found = tie_discounted_accuracy(first, second, tie="tie")
        discounted.append(found.value)
        count += found.n_items
        first, second = ([said for rows in twice for said in acceptable(rows[n])] for n in (0, 1))
        accepted.append(percent_agreement(first, second).value)
    yield printed(SOURCE, "comparisons annotated twice", count, 119, 0)
    yield printed(SOURCE, "tie-discounted accuracy", sum(discounted) / 2, 0.716, 3)
    yield printed(SOURCE, "agreement on acceptable", sum(accepted) / 2, 0.845, 3)


def acceptable(row: Row) -> list[str]:
    """Return whether the replies are acceptable, in order of the models' names."""
    sides = sorted("ab", key=lambda side: row[f"model_{side}"])
    return [row[f"completion_{side}_is_acceptable"] for side in sides]


def outcome(row: Row) -> Outcome:
    """Return an annotation from the side of the system; clearly and slightly better are one."""
    if row["preference"] == "tie":
        return "tie"
    return "win" if row[f"model_{row['preference'][0]}"] == SYSTEM else "lose"
