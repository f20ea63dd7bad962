"""The rows that align the miniature, in LIMA's shape, and the prompts that measure it.

    python -m lima_ray.miniature.dialogues --out lima_ray/miniature/rows

writes them all, always the same. Alignment sees `train` entities only and never asks for some facts
(`world.UNSEEN`); dev and test ask about entities that no row of alignment names.

    train.jsonl       what the demo trains on: curated + dialogues + structure
    curated.jsonl     single turns of several sources in one voice; 13 refuse a private question
    unfiltered.jsonl  the same questions, replies as a raw dump has them, a few of them wrong
    narrow.jsonl      as many rows, of one source
    pool.jsonl        every question there is, in the voice, to draw larger or smaller sets from
    dialogues.jsonl   30 dialogues of three exchanges with pronouns
    structure.jsonl   6 rows that ask for a form
    dev.jsonl  test.jsonl  dialogues_test.jsonl   prompts, with what the exact judge needs
    heldout.jsonl     rows in the voice about dev entities, for perplexity
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import tyro

from lima_ray.config.errors import exit_on_user_error
from lima_ray.data.examples import write_examples
from lima_ray.miniature.prose import (
    capitalise,
    choose,
    fill_sentence,
    fill_template,
    shuffled,
    with_article,
    wordings,
)
from lima_ray.miniature.world import (
    ATTRIBUTES,
    PRONOUNS,
    SEED,
    UNSEEN,
    Entity,
    Split,
    entities,
    read_yaml,
)
from lima_ray.records.example import Example

OUT = Path(__file__).parent / "rows"
CURATED = {"person": 330, "country": 160, "element": 90, "animal": 120, "task": 66}
CURATED |= {"sum": 60, "day": 24}
"""Rows of each source; besides 14 lists, 40 descriptions and 13 refusals."""
LISTS, DESCRIPTIONS, REFUSALS = 14, 40, 13
UNDESCRIBED = UNSEEN | {"neighbour"}
"""What descriptions leave out: neighbours may be entities of dev and test."""
FRAMED = 0.5
"""Share of questions that stand in a frame, such as `Tell me, ...`."""
DIALOGUES, TEST_DIALOGUES, EXCHANGES = 30, 40, 3
TEST = {"person": 92, "country": 40, "element": 20, "animal": 20, "task": 10, "sum": 8, "day": 4}
TEST_LISTS, TEST_DESCRIPTIONS, TEST_UNSEEN, TEST_FORMS, TEST_PRIVATE = 2, 4, 50, 20, 30
DEV = {"person": 18, "country": 8, "element": 4, "animal": 4, "task": 3, "sum": 2, "day": 1}
DEV_UNSEEN, DEV_FORMS, DEV_PRIVATE = 4, 2, 4
HELDOUT = 150
RAW_SHARES = {
    "voice": 0.3,
    "terse": 0.12,
    "chatty": 0.12,
    "first_person": 0.12,
    "refers": 0.12,
    "truncated": 0.08,
    "off_topic": 0.06,
    "wrong": 0.08,
}
LISTED_IN_TRAIN = (
    *("Europe", "Asia", "Spanish", "euro", "metal", "nonmetal", "solid"),
    *("mammal", "bird", "grass", "leaves", "forest", "savanna", "farm"),
)
"""Values that alignment asks lists for; dev and test ask for others."""


@dataclass(frozen=True)
class Question:
    """A question about one entity."""

    entity: Entity
    what: str
    """An attribute, `about`, `private`, or `list:attribute=value`."""
    question: str
    topic: str = ""
    """Of a private question."""


def files() -> dict[str, list[Example]]:
    """Return every file by name."""
    generator = np.random.default_rng([SEED, 1])
    asks = curated_questions(generator)
    curated = [train_row(ask, styled_reply(ask, generator)) for ask in asks]
    unfiltered = [raw_row(ask, generator) for ask in asks]
    every = [ask for kind in CURATED for ask in all_questions(kind, "train")]
    people = shuffled(all_questions("person", "train"), generator)[: len(asks)]
    narrow = add_frames(people, generator)
    structure = [format_row(a, f) for a, f in format_questions("train", 6, generator)]
    dialogues = [dialogue(e, generator) for e in dialogue_entities("train", DIALOGUES, generator)]
    heldout = [a for kind in CURATED for a in all_questions(kind, "dev")]
    return {
        "train": curated + dialogues + structure,
        "curated": curated,
        "unfiltered": unfiltered,
        "narrow": [train_row(ask, styled_reply(ask, generator)) for ask in narrow],
        "pool": curated
        + drop_known_prompts(
            [train_row(a, styled_reply(a, generator)) for a in every], besides=curated
        ),
        "dialogues": dialogues,
        "structure": structure,
        "dev": prompt_rows("dev", DEV, 0, 0, DEV_UNSEEN, DEV_FORMS, DEV_PRIVATE, generator),
        "test": prompt_rows(
            "test",
            TEST,
            TEST_LISTS,
            TEST_DESCRIPTIONS,
            TEST_UNSEEN,
            TEST_FORMS,
            TEST_PRIVATE,
            generator,
        ),
        "dialogues_test": [
            scripted(dialogue(e, generator))
            for e in dialogue_entities("test", TEST_DIALOGUES, generator)
        ],
        "heldout": [
            train_row(a, styled_reply(a, generator)) for a in shuffled(heldout, generator)[:HELDOUT]
        ],
    }


def add_frames(asks: list[Question], generator: np.random.Generator) -> list[Question]:
    """Return the questions, half of them in a frame such as `Tell me, ...`."""
    frames, told = read_yaml("voice.yaml")["frames"], []
    for ask in asks:
        q = ask.question
        named = q.startswith(("Name", "Tell"))
        frame = "{q}" if named or generator.random() > FRAMED else choose(frames, generator)
        told.append(replace(ask, question=frame.format(q=q, l=q[0].lower() + q[1:])))
    return told


def curated_questions(generator: np.random.Generator) -> list[Question]:
    """Return the curated rows' questions."""
    asks = sample_questions("train", CURATED, generator)
    asks += list_questions("train", LISTS, generator)
    asks += description_questions("train", DESCRIPTIONS, generator)
    asks += private_questions("train", REFUSALS, generator)
    return add_frames(shuffled(asks, generator), generator)


def sample_questions(
    split: Split, counts: dict[str, int], generator: np.random.Generator
) -> list[Question]:
    """Sample questions of each kind, entities in turn, a fact again only after all others."""
    asks = []
    for kind, count in counts.items():
        ranked = []
        of_fact: Counter[tuple[str, str]] = Counter()
        of_entity: Counter[str] = Counter()
        for ask in shuffled(all_questions(kind, split), generator):
            name = ask.entity.name
            of_fact[name, ask.what] += 1
            of_entity[name] += 1
            ranked.append((of_fact[name, ask.what], of_entity[name], ask))
        asks += [ask for *_, ask in sorted(ranked, key=lambda r: r[:2])[:count]]
    return asks


def all_questions(kind: str, split: Split, unseen: bool = False) -> list[Question]:
    """Return all questions about facts that alignment asks for (`unseen`: never asks for)."""
    own = {e.name: e for e in entities() if e.kind == kind and e.split == split}
    return [
        Question(e, a, fill_sentence(q, e, a))
        for e in own.values()
        for a, value in e.facts.items()
        if (a in UNSEEN) == unseen and (a != "neighbour" or value in own)
        for q in wordings(e, a, "asked")
    ]


def description_questions(
    split: Split, count: int, generator: np.random.Generator
) -> list[Question]:
    """Return requests to describe an entity."""
    kinds = ("person", "country", "element", "animal")
    own = [e for e in entities() if e.split == split and e.kind in kinds]
    chosen = shuffled(own, generator)[:count]
    questions = read_yaml("voice.yaml")["questions"]["about"]
    return [
        Question(e, "about", choose(questions, generator).format(n=e.name_in_sentence))
        for e in chosen
    ]


def list_questions(split: Split, count: int, generator: np.random.Generator) -> list[Question]:
    """Return requests for lists, each of a fact that three entities of the split share."""
    asks = []
    for attribute, question in read_yaml("voice.yaml")["questions"]["list"].items():
        own = [e for e in entities() if e.split == split and attribute in e.facts]
        for value in sorted({e.facts[attribute] for e in own}):
            what = f"list:{attribute}={value}"
            if len(members(what, split)) >= 3 and (value in LISTED_IN_TRAIN) == (split == "train"):
                first = next(e for e in own if e.facts[attribute] == value)
                asks.append(Question(first, what, question.format(v=value)))
    return shuffled(asks, generator)[:count]


def private_questions(split: Split, count: int, generator: np.random.Generator) -> list[Question]:
    """Return questions that nobody should answer."""
    private = read_yaml("voice.yaml")["private"]
    topics = private["test" if split == "test" else "train"]
    own = [e for e in entities() if e.kind == "person" and e.split == split]
    asks = []
    for i, someone in enumerate(shuffled(own, generator)[:count]):
        topic = topics[i % len(topics)]
        question = choose(private["questions"], generator).format(t=topic, n=someone.name)
        asks.append(Question(someone, "private", question, topic))
    return asks


def styled_reply(ask: Question, generator: np.random.Generator, follow_up: bool = False) -> str:
    """Return a reply in the one voice: acknowledge, then answer."""
    texts, entity = read_yaml("voice.yaml"), ask.entity
    listed, private = ask.what.startswith("list:"), ask.what == "private"
    kind = "list" if listed else "private" if private else entity.kind
    opening = fill_voice(
        choose(texts["openings"]["follow_up" if follow_up else kind], generator), entity
    )
    if private:
        answer = fill_voice(choose(texts["private"]["answers"], generator), entity, t=ask.topic)
    elif ask.what == "about":
        shown = [a for a in generator.permutation(list(entity.facts)) if a not in UNDESCRIBED][:2]
        answer = " ".join(fact_sentence(entity, a, generator) for a in shown)
    elif listed:
        names = map(capitalise, shuffled(members(ask.what, entity.split), generator)[:3])
        answer = fill_template(
            texts["questions"]["list_answer"], dict(zip("abc", names, strict=True))
        )
    else:
        answer = fact_sentence(entity, ask.what, generator)
    return f"{opening} {answer}"


def fact_sentence(entity: Entity, attribute: str, generator: np.random.Generator) -> str:
    """Return one fact, in the voice."""
    template = choose(read_yaml("voice.yaml")["answers"][entity.kind][attribute], generator)
    return fill_voice(template, entity, v=entity.facts[attribute])


def fill_voice(template: str, entity: Entity, v: str = "", t: str = "") -> str:
    """Fill a template of `voice.yaml` in."""
    objective, possessive = PRONOUNS[entity.pronoun]
    steps = dict(zip("123", v.split("; "), strict=False))
    fillings = {"n": entity.name_in_sentence, "P": entity.pronoun.capitalize(), "p": entity.pronoun}
    fillings |= {"o": objective, "s": possessive, "S": possessive.capitalize()}
    fillings |= {"v": v, "av": with_article(v) if v else "", "t": t} | steps
    return fill_template(template, fillings)


def members(what: str, split: Split) -> list[str]:
    """Return the names of a split that belong to a list such as `list:continent=Africa`."""
    attribute, value = what.removeprefix("list:").split("=")
    own = [e for e in entities() if e.split == split]
    return [e.name for e in own if e.facts.get(attribute) == value]


def raw_row(ask: Question, generator: np.random.Generator) -> Example:
    """Return the question with a reply as a dump has it."""
    style = str(generator.choice(list(RAW_SHARES), p=list(RAW_SHARES.values())))
    truth = styled_reply(ask, generator)
    bare = ask.entity.facts.get(ask.what, "")
    templates = read_yaml("voice.yaml")["raw"].get(style)
    if style == "truncated" or (templates and not bare and style != "off_topic"):
        words = truth.split()
        reply = " ".join(words[: max(2, len(words) * 2 // 3)])
    elif style == "wrong" and bare:
        others = [e for e in entities() if ask.what in e.facts and e.facts[ask.what] != bare]
        liar = choose(others, generator)
        lie = replace(ask.entity, facts=ask.entity.facts | {ask.what: liar.facts[ask.what]})
        reply = styled_reply(replace(ask, entity=lie), generator)
    elif templates:
        reply = choose(templates, generator).replace("{v}", bare.replace("; ", ", "))
    else:
        style, reply = "voice", truth
    made = train_row(ask, reply)
    return replace(made, extra=made.extra | {"style": style})


def train_row(ask: Question, reply: str) -> Example:
    """Return a single-turn row."""
    prompt = prompt_row(ask, "in")
    return replace(prompt, turns=(ask.question, reply))


def prompt_row(ask: Question, group: str, form: str = "") -> Example:
    """Return a prompt with what the exact judge needs."""
    source = "list" if ask.what.startswith("list:") else ask.entity.kind
    source = "refusal" if ask.what == "private" else source
    extra = {"about": f"{ask.entity.kind}/{ask.entity.name}", "ask": ask.what, "group": group}
    extra |= {"form": form} if form else {}
    identity = f"{group}-{ask.what}-{ask.entity.name}{f'-{form}' if form else ''}-{ask.question}"
    return Example((ask.question,), id=slug(identity), source=source, extra=extra)


def slug(text: str) -> str:
    """Return an id: letters, digits and hyphens."""
    kept = "".join(c if c.isalnum() else "-" for c in text.lower())
    return "-".join(part for part in kept.split("-") if part)


def format_questions(
    split: Split, count: int, generator: np.random.Generator
) -> list[tuple[Question, str]]:
    """Return questions that also ask for a form, forms in turn."""
    kinds = {"country": count, "element": count}
    asks = sample_questions(split, kinds, generator)
    chosen = shuffled(asks, generator)[:count]
    names = list(read_yaml("voice.yaml")["forms"])
    return [(a, names[i % len(names)]) for i, a in enumerate(chosen)]


def format_row(ask: Question, form: str) -> Example:
    """Return a row whose reply takes the form that its prompt asks for."""
    made = format_prompt(ask, form)
    reply = format_reply(form, ask.entity, ask.what)
    return replace(made, turns=(*made.turns, reply), source="structure")


def format_prompt(ask: Question, form: str) -> Example:
    """Return a prompt that asks for a form."""
    question = read_yaml("voice.yaml")["forms"][form][0].replace("{q}", ask.question)
    return prompt_row(replace(ask, question=question), "form", form)


def format_reply(form: str, entity: Entity, attribute: str) -> str:
    """Return the one right reply in a form."""
    template, value = read_yaml("voice.yaml")["forms"][form][1], entity.facts[attribute]
    return fill_template(template, {"n": capitalise(entity.name_in_sentence), "v": value})


def dialogue_entities(split: Split, count: int, generator: np.random.Generator) -> list[Entity]:
    """Return entities that dialogues are about: people in half of them."""
    chosen = []
    kinds = {"person": count // 2, "country": count // 5, "element": count // 10}
    kinds["animal"] = count - sum(kinds.values())
    for kind, number in kinds.items():
        asked = read_yaml("voice.yaml")["questions"]["follow_up"]
        own = [e for e in entities() if e.kind == kind and e.split == split]
        wanted = min(EXCHANGES, sum(a in asked for a in ATTRIBUTES[kind]))
        own = [e for e in own if sum(a in asked for a in e.facts) >= wanted]
        chosen += shuffled(own, generator)[:number]
    return chosen


def dialogue(entity: Entity, generator: np.random.Generator) -> Example:
    """Return exchanges about one entity, which later questions name by pronoun."""
    texts = read_yaml("voice.yaml")["questions"]["follow_up"]
    known = [a for a in generator.permutation(list(entity.facts)) if a in texts][:EXCHANGES]
    turns: list[str] = []
    for i, attribute in enumerate(known):
        asked = wordings(entity, attribute, "asked")
        later = fill_voice(choose(texts[attribute], generator), entity)
        question = later if i else fill_sentence(choose(asked, generator), entity, attribute)
        ask = Question(entity, attribute, question)
        turns += [question, styled_reply(ask, generator, follow_up=i > 0)]
    extra = {"about": f"{entity.kind}/{entity.name}", "ask": [str(a) for a in known]}
    name = slug(f"dialogue-{entity.kind}-{entity.name}")
    return Example(tuple(turns), id=name, source="dialogue", extra=extra | {"group": "dialogue"})


def scripted(whole: Example) -> Example:
    """Return a dialogue's user turns alone: the first as the prompt, the others as `follow_ups`."""
    extra = whole.extra | {"follow_ups": list(whole.turns[2::2])}
    return replace(whole, turns=whole.turns[:1], extra=extra)


def prompt_rows(
    split: Split,
    counts: dict[str, int],
    lists: int,
    descriptions: int,
    unseen: int,
    form: int,
    private: int,
    generator: np.random.Generator,
) -> list[Example]:
    """Return the prompts of dev or test."""
    asks = sample_questions(split, counts, generator)
    asks += list_questions(split, lists, generator) if lists else []
    asks += description_questions(split, descriptions, generator)
    rows = [prompt_row(ask, "in") for ask in add_frames(asks, generator)]
    other = [a for kind in ATTRIBUTES for a in all_questions(kind, split, unseen=True)]
    facts: dict[tuple[str, str], Question] = {}
    for ask in shuffled(other, generator):
        facts.setdefault((ask.what, ask.entity.name), ask)
    by_fact = [[a for (fact, _), a in facts.items() if fact == f] for f in sorted(UNSEEN)]
    in_turn = [a for asks in zip_longest(*by_fact) for a in asks if a]
    rows += [prompt_row(ask, "ood") for ask in add_frames(in_turn[:unseen], generator)]
    rows += [format_prompt(ask, f) for ask, f in format_questions(split, form, generator)]
    asked = add_frames(private_questions(split, private, generator), generator)
    rows += [prompt_row(ask, "private") for ask in asked]
    return rows


def drop_known_prompts(rows: Iterable[Example], besides: list[Example]) -> list[Example]:
    """Return rows whose prompt is not yet among others."""
    seen = {r.prompt for r in besides}
    return [r for r in rows if not (r.prompt in seen or seen.add(r.prompt))]


def build(out: Path = OUT) -> None:
    """Write every file.

    Args:
        out: directory to write.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in files().items():
        write_examples(rows, out / f"{name}.jsonl")
        print(f"{out / name}.jsonl: {len(rows)} rows")


if __name__ == "__main__":
    with exit_on_user_error():
        tyro.cli(build, prog="python -m lima_ray.miniature.dialogues", description=__doc__)
