"""The questions of a study, and what is drawn for an annotator without a look at who wrote what.

    design = StudyDesign(design_items("pairwise", models, orders="given"), overlap=50)
    design.order(question, "anna", lead=0)      # in which order anna sees the two

Whatever an annotator meets is drawn from the seed, the annotator's name and the texts. Names of
systems decide nothing, so another name changes nothing that a browser receives.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest

from lima_ray.config.errors import UserError
from lima_ray.judging.questions.item import Item, ItemKind, digest
from lima_ray.judging.questions.wording import Wording, load_wording

MOST_LEAD = 2
"""How much oftener than B a system is A, of an annotator's questions about one pair."""


@dataclass(frozen=True)
class Question:
    """An item, whose own order says nothing: it is drawn for each annotator."""

    item: Item
    pair: tuple[int, ...]
    """Places of its systems on the command line."""

    @cached_property
    def key(self) -> str:
        """A hash of its texts and its place, without a system's name."""
        item = self.item
        return digest([item.id, item.sample, item.turn, sorted(item.content), sorted(self.pair)])

    @property
    def prompt(self) -> tuple[str, ...]:
        """The user's first turn, the same for every system."""
        return self.item.shown[0].turns[:1]


class StudyDesign:
    """What is asked, of how many all annotators are, and the draws."""

    def __init__(self, items: Sequence[Item], overlap: int, seed: int = 0) -> None:
        """Choose the questions that every annotator is asked.

        Args:
            items: of one kind, each once.
            overlap: how many of them all annotators answer; shared out over the pairs of systems.
        """
        names = list(dict.fromkeys(name for item in items for name in item.models))
        asked = [Question(item, tuple(names.index(n) for n in item.models)) for item in items]
        self.systems, self.seed = tuple(names), seed
        self.questions = {question.key: question for question in asked}
        if len(self.questions) < len(asked):
            raise UserError("a question stands twice in the study; give each reply once")
        self.kind: ItemKind = items[0].kind
        self.whole = items[0].whole
        by_pair: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for question in self.sorted_by("overlap"):
            by_pair[question.pair].append(question.key)
        in_turn = chain.from_iterable(zip_longest(*by_pair.values()))
        self.shared = tuple(key for key in in_turn if key)[:overlap]
        shared = set(self.shared)
        self.rest = tuple(key for key in self.questions if key not in shared)

    @property
    def wording(self) -> Wording:
        return load_wording(self.kind, self.whole)

    @cached_property
    def id(self) -> str:
        """A hash of all that cannot change while a study runs."""
        asked = [question.item.key for question in self.questions.values()]
        return digest([asked, self.shared, self.seed, self.wording.version])

    def draw(self, *of: object) -> int:
        """Return a number of 64 bits that the seed and a reason give."""
        return int(digest([self.seed, *of]), 16)

    def sorted_by(self, *reason: object) -> list[Question]:
        """Return the questions in an order drawn for a reason."""
        return sorted(self.questions.values(), key=lambda q: self.draw(*reason, q.key))

    def order(self, key: str, annotator: str, lead: int) -> tuple[int, ...]:
        """Return the order in which an annotator sees a question's systems.

        It is a coin, but where the pair's first system was A so much oftener than B that it must be
        B: the big stick (Soares and Wu 1983). So |lead| stays within `MOST_LEAD` at every time.

        Args:
            lead: how much oftener the pair's first was A than B in the annotator's questions.
        """
        item = self.questions[key].item
        if len(item.models) < 2:
            return item.order
        if abs(lead) >= MOST_LEAD:
            return (1, 0) if lead > 0 else (0, 1)
        # The coin says which text comes first, whoever wrote it.
        first = int(item.content[0] > item.content[1])
        heads = self.draw("side", annotator, key) % 2
        return (first, 1 - first) if heads else (1 - first, first)

    def overlap_due(self, annotator: str, place: int, done: int, expected: int) -> bool:
        """Whether an annotator's next question is one of those that all are asked.

        They are spread evenly over the queue, each at a place drawn within its share of it.

        Args:
            place: how many questions the annotator had before.
            done: of them those that all are asked.
            expected: questions that an annotator is to answer in all.
        """
        if done >= len(self.shared):
            return False
        share = expected / len(self.shared)
        within = self.draw("place", annotator, done) / 2**64
        return place >= int((done + within) * share)


def pair_leads(
    design: StudyDesign, orders: Mapping[str, tuple[int, ...]]
) -> dict[tuple[int, ...], int]:
    """Return, of each pair of systems, how much oftener its first was shown as A than as B.

    Args:
        orders: in which an annotator's questions were shown, by key.
    """
    leads: dict[tuple[int, ...], int] = defaultdict(int)
    for key, order in orders.items():
        leads[design.questions[key].pair] += 1 if order[0] == 0 else -1
    return leads
