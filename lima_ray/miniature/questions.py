"""Questions about the world's entities: of each kind, for lists, descriptions, private matters."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from lima_ray.miniature.prose import choose, fill_sentence, shuffled, wordings
from lima_ray.miniature.world import UNSEEN, Entity, Split, entities, read_yaml

FRAMED = 0.5
"""Share of questions that stand in a frame, such as `Tell me, ...`."""
LISTED_IN_TRAIN = (
    *("Europe", "Asia", "Spanish", "euro", "metal", "nonmetal", "solid"),
    *("mammal", "bird", "grass", "leaves", "forest", "savanna", "farm"),
)
"""Values that alignment asks lists for; dev and test ask for others."""


@dataclass(frozen=True)
class Question:
    text: str
    entity: Entity
    what: str
    """An attribute, `about`, `private`, or `list:attribute=value`."""
    topic: str = ""
    """Of a private question."""


def add_frames(questions: list[Question], generator: np.random.Generator) -> list[Question]:
    """Return the questions, half of them in a frame such as `Tell me, ...`."""
    frames, framed = read_yaml("voice.yaml")["frames"], []
    for question in questions:
        text = question.text
        named = text.startswith(("Name", "Tell"))
        frame = "{q}" if named or generator.random() > FRAMED else choose(frames, generator)
        inside = text[0].lower() + text[1:]
        framed.append(replace(question, text=frame.format(q=text, l=inside)))
    return framed


def sample_questions(
    split: Split, counts: dict[str, int], generator: np.random.Generator
) -> list[Question]:
    """Sample questions of each kind, entities in turn, a fact again only after all others."""
    sampled = []
    for kind, count in counts.items():
        ranked = []
        of_fact: Counter[tuple[str, str]] = Counter()
        of_entity: Counter[str] = Counter()
        for question in shuffled(all_questions(kind, split), generator):
            name = question.entity.name
            of_fact[name, question.what] += 1
            of_entity[name] += 1
            ranked.append((of_fact[name, question.what], of_entity[name], question))
        sampled += [question for *_, question in sorted(ranked, key=lambda r: r[:2])[:count]]
    return sampled


def all_questions(kind: str, split: Split, unseen: bool = False) -> list[Question]:
    """Return all questions about facts that alignment asks for (`unseen`: never asks for)."""
    own = {e.name: e for e in entities() if e.kind == kind and e.split == split}
    return [
        Question(fill_sentence(template, e, a), e, a)
        for e in own.values()
        for a, value in e.facts.items()
        if (a in UNSEEN) == unseen and (a != "neighbour" or value in own)
        for template in wordings(e, a, "asked")
    ]


def description_questions(
    split: Split, count: int, generator: np.random.Generator
) -> list[Question]:
    kinds = ("person", "country", "element", "animal")
    own = [e for e in entities() if e.split == split and e.kind in kinds]
    chosen = shuffled(own, generator)[:count]
    templates = read_yaml("voice.yaml")["questions"]["about"]
    return [
        Question(choose(templates, generator).format(n=e.name_in_sentence), e, "about")
        for e in chosen
    ]


def list_questions(split: Split, count: int, generator: np.random.Generator) -> list[Question]:
    """Return requests for lists, each of a fact that three entities of the split share."""
    found = []
    for attribute, template in read_yaml("voice.yaml")["questions"]["list"].items():
        own = [e for e in entities() if e.split == split and attribute in e.facts]
        for value in sorted({e.facts[attribute] for e in own}):
            what = f"list:{attribute}={value}"
            if len(members(what, split)) >= 3 and (value in LISTED_IN_TRAIN) == (split == "train"):
                first = next(e for e in own if e.facts[attribute] == value)
                found.append(Question(template.format(v=value), first, what))
    return shuffled(found, generator)[:count]


def members(what: str, split: Split) -> list[str]:
    """Return the names of a split that belong to a list such as `list:continent=Africa`."""
    attribute, value = what.removeprefix("list:").split("=")
    own = [e for e in entities() if e.split == split]
    return [e.name for e in own if e.facts.get(attribute) == value]


def private_questions(split: Split, count: int, generator: np.random.Generator) -> list[Question]:
    private = read_yaml("voice.yaml")["private"]
    topics = private["test" if split == "test" else "train"]
    own = [e for e in entities() if e.kind == "person" and e.split == split]
    found = []
    for i, person in enumerate(shuffled(own, generator)[:count]):
        topic = topics[i % len(topics)]
        text = choose(private["questions"], generator).format(t=topic, n=person.name)
        found.append(Question(text, person, "private", topic))
    return found


def format_questions(
    split: Split, count: int, generator: np.random.Generator
) -> list[tuple[Question, str]]:
    """Return questions that also ask for a form, forms in turn."""
    kinds = {"country": count, "element": count}
    chosen = shuffled(sample_questions(split, kinds, generator), generator)[:count]
    names = list(read_yaml("voice.yaml")["forms"])
    return [(question, names[i % len(names)]) for i, question in enumerate(chosen)]
