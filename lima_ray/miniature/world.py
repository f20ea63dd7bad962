"""The miniature's world: countries, elements, animals, tasks, sums, the calendar, invented people.

The real facts stand in `facts.yaml`. Some hundred people are drawn by seed from `people.yaml`, for
measurements that need more entities than a newcomer would check. Every entity falls into one split:
alignment shows the `train` ones, `dev` ones choose the epoch, and `test` ones are asked at the end.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

HERE = Path(__file__).parent
SEED = 2305
PEOPLE = 240
ATTRIBUTES = {
    "country": ("capital", "continent", "language", "currency", "neighbour"),
    "element": ("symbol", "number", "state", "family"),
    "animal": ("class", "food", "home", "young"),
    "person": ("town", "profession", "hobby", "pet", "subject"),
    "task": ("steps",),
    "sum": ("result",),
    "day": ("after", "before"),
}
"""What is known of each kind of entity."""
UNSEEN = frozenset({"currency", "young", "subject"})
"""Facts that alignment never asks for: they test what it does out of distribution."""
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
]
PRONOUNS = {"she": ("her", "her"), "he": ("him", "his"), "it": ("it", "its")}
"""Subject form: object form, possessive."""

Split = Literal["train", "dev", "test"]
SHARES = {"dev": 0.1, "test": 0.35}
PEOPLE_SHARES = {"dev": 0.1, "test": 0.45}


@dataclass(frozen=True)
class Entity:
    kind: str
    """One of `ATTRIBUTES`."""
    name: str
    facts: dict[str, str]
    """Value by attribute; a task's steps are joined by `; `."""
    pronoun: str
    """In subject form; see `PRONOUNS`."""
    split: Split
    has_page: bool
    """Whether pretraining holds a page of questions and answers about it."""

    @property
    def name_in_sentence(self) -> str:
        return f"the {self.name}" if self.kind == "animal" else self.name


@cache
def entities() -> tuple[Entity, ...]:
    """Return every entity, always the same."""
    raw: list[tuple[str, str, dict[str, str], str]] = []
    for kind, table in read_yaml("facts.yaml").items():
        for name, values in table.items():
            facts = dict(zip(ATTRIBUTES[kind], map(str, values), strict=False))
            if kind == "task":
                facts = {"steps": "; ".join(values)}
            raw.append((kind, name, {k: v for k, v in facts.items() if v != "none"}, "it"))
    raw += [("person", *person) for person in people()]
    raw += [("sum", name, {"result": value}, "it") for name, value in sums()]
    for names in (DAYS, MONTHS):
        for i, name in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            raw.append(("day", name, {"after": after, "before": before}, "it"))
    generator = np.random.default_rng(SEED)
    found = []
    for kind in ATTRIBUTES:
        own = [entry for entry in raw if entry[0] == kind]
        splits = np.array(["train"] * len(own), dtype="<U5")
        order = generator.permutation(len(own))
        shares = PEOPLE_SHARES if kind == "person" else SHARES
        dev, test = (round(shares[s] * len(own)) for s in ("dev", "test"))
        splits[order[:dev]], splits[order[dev : dev + test]] = "dev", "test"
        pages = generator.permutation(len(own)) % 2 == 0
        for entry, split, page in zip(own, splits.tolist(), pages.tolist(), strict=True):
            found.append(Entity(*entry, split=split, has_page=page))
    return tuple(found)


def people() -> list[tuple[str, dict[str, str], str]]:
    """Return invented people: name, facts, pronoun; no two share a name."""
    parts = read_yaml("people.yaml")
    generator = np.random.default_rng(SEED)
    names = [
        (f"{given} {family}", pronoun)
        for pronoun, givens in parts["given"].items()
        for given in givens
        for family in parts["family"]
    ]
    chosen = [names[i] for i in generator.permutation(len(names))[:PEOPLE]]
    return [
        (name, {a: str(generator.choice(parts[a])) for a in ATTRIBUTES["person"]}, pronoun)
        for name, pronoun in chosen
    ]


def sums() -> list[tuple[str, str]]:
    """Return sums and products of two digits, as words and signs tell them."""
    pairs = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    plus = [(f"{a} plus {b}", str(a + b)) for a, b in pairs]
    return plus + [(f"{a} times {b}", str(a * b)) for a, b in pairs if a > 1 < b]


@cache
def values(kind: str, attribute: str) -> tuple[str, ...]:
    """Return every value that an attribute takes, so that a judge can tell a wrong one."""
    own = {e.facts[attribute] for e in entities() if e.kind == kind and attribute in e.facts}
    return tuple(sorted(own))


@cache
def entities_by_name() -> dict[str, Entity]:
    """Return entities by `kind/name`."""
    return {f"{e.kind}/{e.name}": e for e in entities()}


@cache
def read_yaml(file: str) -> Any:
    return yaml.safe_load((HERE / file).read_text(encoding="utf-8"))
