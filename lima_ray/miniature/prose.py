"""The text the miniature's base is pretrained on: the world as prose, lists and web-like pages.

    python -m lima_ray.miniature.prose --count 3

prints some. Documents are drawn afresh without end: paragraphs about an entity with its facts in
any order and many wordings, later sentences by pronoun; notes that mix entities; lists and tables;
small talk that names things again and again; and, about half of the entities, pages of questions
and answers.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import tyro

from lima_ray.miniature.world import ATTRIBUTES, PRONOUNS, Entity, entities, read_yaml

PRONOUN_SHARE = 0.65
WEIGHTS = {"task": 4, "sum": 3, "day": 4}
"""How often a fact of a kind is told, against 1: long, or hard to tell apart."""
FORMS = {"article": 0.38, "notes": 0.1, "page": 0.3, "list": 0.05, "table": 0.05, "talk": 0.12}
"""Forms of documents and their shares."""


def documents(seed: int) -> Iterator[str]:
    """Yield documents without end; a few hundred words each, so that a text seldom ends soon."""
    generator = np.random.default_rng(seed)
    everything = entities()
    weights = np.array([len(ATTRIBUTES[e.kind]) * WEIGHTS.get(e.kind, 1) for e in everything])
    weights = weights / weights.sum()
    even = np.full(len(everything), 1 / len(everything))
    paged = np.array([e.has_page for e in everything])
    page_weights = weights * paged / (weights * paged).sum()
    texts, lists = read_yaml("sentences.yaml"), shared_facts()

    def draw(count: int, p: np.ndarray) -> list[Entity]:
        return [everything[i] for i in generator.choice(len(everything), count, p=p)]

    while True:
        form = generator.choice(list(FORMS), p=list(FORMS.values()))
        count = int(generator.integers(3, 8))
        if form == "article":
            titled = generator.random() < 0.5
            yield "\n\n".join(paragraph(e, generator, titled) for e in draw(count, weights))
        elif form == "notes":
            notes = [sentence(e, choose_fact(e, generator), generator) for e in draw(12, weights)]
            yield "\n".join(" ".join(notes[i : i + 4]) for i in range(0, 12, 4))
        elif form == "page":
            layout = choose(texts["pages"], generator)
            yield "\n\n".join(exchange(e, layout, generator) for e in draw(count, page_weights))
        elif form == "talk":
            yield "\n\n".join(small_talk(e, generator) for e in draw(count, even))
        elif form == "table":
            yield table(generator)
        else:
            chosen = [lists[i] for i in generator.choice(len(lists), count, replace=False)]
            yield "\n\n".join(listing(title, names, generator) for title, names in chosen)


def choose_fact(entity: Entity, generator: np.random.Generator) -> str:
    return choose(list(entity.facts), generator)


def table(generator: np.random.Generator) -> str:
    """Return a fact of several entities of one kind, a line each."""
    kind = choose([k for k in ATTRIBUTES if k != "task"], generator)
    attribute = choose(list(ATTRIBUTES[kind]), generator)
    known = [e for e in entities() if e.kind == kind and attribute in e.facts]
    chosen = shuffled(known, generator)[:6]
    lines = [f"{capitalise(e.name_in_sentence)} = {e.facts[attribute]}" for e in chosen]
    return f"Table of {attribute}\n" + "\n".join(lines)


def paragraph(entity: Entity, generator: np.random.Generator, titled: bool) -> str:
    """Return most facts about an entity in random order, later ones often by pronoun."""
    title = f"{capitalise(entity.name)}\n" if titled else ""
    facts = [a for a in generator.permutation(list(entity.facts)) if generator.random() < 0.85]
    facts = facts or [choose_fact(entity, generator)]
    sentences = [
        sentence(entity, a, generator, pronoun=i > 0 and generator.random() < PRONOUN_SHARE)
        for i, a in enumerate(facts)
    ]
    return title + " ".join(sentences)


def small_talk(entity: Entity, generator: np.random.Generator) -> str:
    """Write two people's talk about something: names recur, facts hardly."""
    texts, kind = read_yaml("sentences.yaml")["talk"], entity.kind
    template = choose(texts[{"task": "deed", "sum": "count"}.get(kind, "thing")], generator)
    parts = read_yaml("people.yaml")
    givens = [name for names in parts["given"].values() for name in names]
    a, b = (f"{choose(givens, generator)} {choose(parts['family'], generator)}" for _ in range(2))
    name = entity.name_in_sentence
    v = entity.facts.get("result", "")
    return fill_template(template, {"a": a, "b": b, "n": name, "N": capitalise(name), "v": v})


def sentence(
    entity: Entity, attribute: str, generator: np.random.Generator, pronoun: bool = False
) -> str:
    return fill_sentence(
        choose(wordings(entity, attribute, "told"), generator), entity, attribute, pronoun
    )


def wordings(entity: Entity, attribute: str, use: str) -> list[str]:
    """Return templates of `sentences.yaml`: `told`, `asked`, or the one `unseen`."""
    found = read_yaml("sentences.yaml")[entity.kind][attribute][use]
    return found if isinstance(found, list) else [found]


def fill_sentence(template: str, entity: Entity, attribute: str, pronoun: bool = False) -> str:
    """Fill a template in, with the entity's name or its pronouns."""
    value = entity.facts[attribute]
    objective, possessive = PRONOUNS[entity.pronoun]
    inner = pronoun and entity.kind == "person"
    named = f"{entity.name_in_sentence}'s"
    steps = dict(zip("123", value.split("; "), strict=False))
    fillings = {
        "X": entity.pronoun if pronoun else entity.name_in_sentence,
        "Xs": possessive if pronoun else named,
        "x": entity.pronoun if inner else entity.name_in_sentence,
        "o": objective if inner else entity.name_in_sentence,
        "xs": possessive if pronoun or "{X}" in template else named,
        "n": entity.name_in_sentence,
        "v": value,
        "av": with_article(value),
    }
    return fill_template(template, fillings | steps)


def fill_template(template: str, fillings: dict[str, str]) -> str:
    """Return a template with `{key}` replaced by each filling, begun with a capital."""
    for key, filling in fillings.items():
        template = template.replace(f"{{{key}}}", filling)
    return capitalise(template)


def capitalise(text: str) -> str:
    """Return a text begun with a capital, the rest as it is."""
    return text[0].upper() + text[1:]


def with_article(noun: str) -> str:
    """Return the noun with its article: `a lion`, `an owl`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def exchange(entity: Entity, layout: str, generator: np.random.Generator) -> str:
    """Return a question about an entity and the bare fact, as a page of the web has it."""
    attribute = choose_fact(entity, generator)
    question = fill_sentence(
        choose(wordings(entity, attribute, "asked"), generator), entity, attribute
    )
    answer = entity.facts[attribute].replace("; ", ", ")
    fact = sentence(entity, attribute, generator)
    chatter = choose(read_yaml("sentences.yaml")["chatter"], generator)
    return layout.format(q=question, v=capitalise(answer), s=fact, c=chatter)


def shared_facts() -> list[tuple[str, list[str]]]:
    """Return titles of lists, and the names of all entities each holds for; at least three."""
    lists = []
    for attribute, title in read_yaml("sentences.yaml")["listed"].items():
        members: dict[str, list[str]] = {}
        for e in entities():
            if attribute in e.facts:
                members.setdefault(e.facts[attribute], []).append(e.name)
        for value, names in members.items():
            if len(names) >= 3:
                lists.append((title.format(v=value, av=with_article(value)), names))
    return lists


def listing(title: str, names: list[str], generator: np.random.Generator) -> str:
    shown = generator.permutation(names)[: generator.integers(3, 6)]
    return f"{title}:\n" + "\n".join(f"- {name}" for name in shown)


Option = TypeVar("Option")


def choose(options: Sequence[Option], generator: np.random.Generator) -> Option:
    """Choose one option with equal probabilities."""
    return options[int(generator.integers(len(options)))]


def shuffled(options: Sequence[Option], generator: np.random.Generator) -> list[Option]:
    return [options[i] for i in generator.permutation(len(options))]


def show(count: int = 3, seed: int = 0) -> None:
    """Print some documents.

    Args:
        count: how many.
        seed: seed of the draw.
    """
    source = documents(seed)
    print("\n\n----\n\n".join(next(source) for _ in range(count)))


if __name__ == "__main__":
    tyro.cli(show, prog="python -m lima_ray.miniature.prose", description=__doc__)
