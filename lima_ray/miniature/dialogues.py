"""The rows of the miniature that people write, and the prompts that measure it, in LIMA's shape.

`dump` writes them beside the sites that all other rows are curated from. Alignment sees `train`
entities only and never asks for some facts (`world.UNSEEN`); dev and test ask about entities that
no row of alignment names.

    refusals.jsonl    13 private questions, refused
    dialogues.jsonl   30 dialogues of three exchanges with pronouns
    structure.jsonl   6 rows that ask for a form
    dev.jsonl  test.jsonl  dialogues_test.jsonl   prompts, with what the exact judge needs
    heldout.jsonl     rows in the voice about dev entities, for perplexity
"""

from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from lima_ray.miniature.prose import choose, fill_sentence, shuffled, wordings
from lima_ray.miniature.questions import (
    Question,
    add_frames,
    all_questions,
    description_questions,
    format_questions,
    list_questions,
    private_questions,
    sample_questions,
)
from lima_ray.miniature.voice import fill_voice, format_reply, styled_reply
from lima_ray.miniature.world import ATTRIBUTES, SEED, UNSEEN, Entity, Split, entities, read_yaml
from lima_ray.records.example import Example

REFUSALS, DIALOGUES, TEST_DIALOGUES, EXCHANGES = 13, 30, 40, 3
STRUCTURE, HELDOUT = 6, 150


@dataclass(frozen=True)
class Counts:
    """Questions of a file."""

    facts: dict[str, int]
    """By kind of entity."""
    lists: int = 0
    descriptions: int = 0
    private: int = 0
    unseen: int = 0
    """About facts that alignment never asks for."""
    forms: int = 0


DEV_FACTS = {"person": 18, "country": 8, "element": 4, "animal": 4, "task": 3, "sum": 2, "day": 1}
DEV = Counts(DEV_FACTS, private=4, unseen=4, forms=2)
TEST_FACTS = {"person": 92, "country": 40, "element": 20, "animal": 20, "task": 10}
TEST_FACTS |= {"sum": 8, "day": 4}
TEST = Counts(TEST_FACTS, lists=2, descriptions=4, private=30, unseen=50, forms=20)


def files() -> dict[str, list[Example]]:
    """Return every file's rows, always the same."""
    generator = np.random.default_rng([SEED, 1])
    refusals = add_frames(private_questions("train", REFUSALS, generator), generator)
    structure = [format_row(q, form) for q, form in format_questions("train", STRUCTURE, generator)]
    dialogues = [dialogue(e, generator) for e in dialogue_entities("train", DIALOGUES, generator)]
    heldout = [question for kind in ATTRIBUTES for question in all_questions(kind, "dev")]
    return {
        "refusals": train_rows(refusals, generator),
        "dialogues": dialogues,
        "structure": structure,
        "dev": prompt_rows("dev", DEV, generator),
        "test": prompt_rows("test", TEST, generator),
        "dialogues_test": [
            scripted(dialogue(e, generator))
            for e in dialogue_entities("test", TEST_DIALOGUES, generator)
        ],
        "heldout": train_rows(shuffled(heldout, generator)[:HELDOUT], generator),
    }


def train_rows(questions: list[Question], generator: np.random.Generator) -> list[Example]:
    return [train_row(question, styled_reply(question, generator)) for question in questions]


def train_row(question: Question, reply: str) -> Example:
    return replace(prompt_row(question, "in"), turns=(question.text, reply))


def prompt_row(question: Question, group: str, form: str = "") -> Example:
    """Return a prompt with what the exact judge needs."""
    entity, what = question.entity, question.what
    source = "list" if what.startswith("list:") else entity.kind
    source = "refusal" if what == "private" else source
    extra = {"about": f"{entity.kind}/{entity.name}", "ask": what, "group": group}
    extra |= {"form": form} if form else {}
    identity = f"{group}-{what}-{entity.name}{f'-{form}' if form else ''}-{question.text}"
    return Example((question.text,), id=slug(identity), source=source, extra=extra)


def slug(text: str) -> str:
    """Return an id: letters, digits and hyphens."""
    kept = "".join(c if c.isalnum() else "-" for c in text.lower())
    return "-".join(part for part in kept.split("-") if part)


def format_row(question: Question, form: str) -> Example:
    """Return a row whose reply takes the form that its prompt asks for."""
    row = format_prompt(question, form)
    reply = format_reply(form, question.entity, question.what)
    return replace(row, turns=(*row.turns, reply), source="structure")


def format_prompt(question: Question, form: str) -> Example:
    text = read_yaml("voice.yaml")["forms"][form][0].replace("{q}", question.text)
    return prompt_row(replace(question, text=text), "form", form)


def prompt_rows(split: Split, counts: Counts, generator: np.random.Generator) -> list[Example]:
    questions = sample_questions(split, counts.facts, generator)
    questions += list_questions(split, counts.lists, generator) if counts.lists else []
    questions += description_questions(split, counts.descriptions, generator)
    rows = [prompt_row(question, "in") for question in add_frames(questions, generator)]
    other = [q for kind in ATTRIBUTES for q in all_questions(kind, split, unseen=True)]
    facts: dict[tuple[str, str], Question] = {}
    for question in shuffled(other, generator):
        facts.setdefault((question.what, question.entity.name), question)
    by_fact = [[q for (fact, _), q in facts.items() if fact == f] for f in sorted(UNSEEN)]
    in_turn = [q for group in zip_longest(*by_fact) for q in group if q][: counts.unseen]
    rows += [prompt_row(question, "ood") for question in add_frames(in_turn, generator)]
    rows += [format_prompt(q, form) for q, form in format_questions(split, counts.forms, generator)]
    private = add_frames(private_questions(split, counts.private, generator), generator)
    return rows + [prompt_row(question, "private") for question in private]


def dialogue_entities(split: Split, count: int, generator: np.random.Generator) -> list[Entity]:
    """Return entities that dialogues are about: people in half of them."""
    chosen = []
    kinds = {"person": count // 2, "country": count // 5, "element": count // 10}
    kinds["animal"] = count - sum(kinds.values())
    templates = read_yaml("voice.yaml")["questions"]["follow_up"]
    for kind, number in kinds.items():
        own = [e for e in entities() if e.kind == kind and e.split == split]
        wanted = min(EXCHANGES, sum(a in templates for a in ATTRIBUTES[kind]))
        own = [e for e in own if sum(a in templates for a in e.facts) >= wanted]
        chosen += shuffled(own, generator)[:number]
    return chosen


def dialogue(entity: Entity, generator: np.random.Generator) -> Example:
    """Return exchanges about one entity, which later questions name by pronoun."""
    texts = read_yaml("voice.yaml")["questions"]["follow_up"]
    known = [a for a in generator.permutation(list(entity.facts)) if a in texts][:EXCHANGES]
    turns: list[str] = []
    for i, attribute in enumerate(known):
        first = wordings(entity, attribute, "asked")
        text = fill_voice(choose(texts[attribute], generator), entity)
        if i == 0:
            text = fill_sentence(choose(first, generator), entity, attribute)
        question = Question(text, entity, attribute)
        turns += [text, styled_reply(question, generator, follow_up=i > 0)]
    extra = {"about": f"{entity.kind}/{entity.name}", "ask": [str(a) for a in known]}
    name = slug(f"dialogue-{entity.kind}-{entity.name}")
    return Example(tuple(turns), id=name, source="dialogue", extra=extra | {"group": "dialogue"})


def scripted(row: Example) -> Example:
    """Return a dialogue's user turns alone: the first as the prompt, the others as `follow_ups`."""
    extra = row.extra | {"follow_ups": list(row.turns[2::2])}
    return replace(row, turns=row.turns[:1], extra=extra)
