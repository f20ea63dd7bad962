"""Replies to the miniature's questions: in one voice, in a form, and as a raw dump has them."""

from dataclasses import replace

import numpy as np

from lima_ray.miniature.prose import capitalise, choose, fill_template, shuffled, with_article
from lima_ray.miniature.questions import Question, members
from lima_ray.miniature.world import PRONOUNS, UNSEEN, Entity, entities, read_yaml

UNDESCRIBED = UNSEEN | {"neighbour"}
"""What descriptions leave out: neighbours may be entities of dev and test."""
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


def styled_reply(
    question: Question, generator: np.random.Generator, follow_up: bool = False
) -> str:
    """Return a reply in the one voice: acknowledge, then answer."""
    texts, entity, what = read_yaml("voice.yaml"), question.entity, question.what
    listed, private = what.startswith("list:"), what == "private"
    kind = "list" if listed else "private" if private else entity.kind
    openings = texts["openings"]["follow_up" if follow_up else kind]
    opening = fill_voice(choose(openings, generator), entity)
    if private:
        template = choose(texts["private"]["answers"], generator)
        answer = fill_voice(template, entity, t=question.topic)
    elif what == "about":
        shown = [a for a in generator.permutation(list(entity.facts)) if a not in UNDESCRIBED][:2]
        answer = " ".join(fact_sentence(entity, a, generator) for a in shown)
    elif listed:
        names = map(capitalise, shuffled(members(what, entity.split), generator)[:3])
        template = texts["questions"]["list_answer"]
        answer = fill_template(template, dict(zip("abc", names, strict=True)))
    else:
        answer = fact_sentence(entity, what, generator)
    return f"{opening} {answer}"


def fact_sentence(entity: Entity, attribute: str, generator: np.random.Generator) -> str:
    template = choose(read_yaml("voice.yaml")["answers"][entity.kind][attribute], generator)
    return fill_voice(template, entity, v=entity.facts[attribute])


def fill_voice(template: str, entity: Entity, v: str = "", t: str = "") -> str:
    """Fill a template of `voice.yaml` in, with a value and a topic."""
    objective, possessive = PRONOUNS[entity.pronoun]
    steps = dict(zip("123", v.split("; "), strict=False))
    fillings = {"n": entity.name_in_sentence, "P": entity.pronoun.capitalize(), "p": entity.pronoun}
    fillings |= {"o": objective, "s": possessive, "S": possessive.capitalize()}
    fillings |= {"v": v, "av": with_article(v) if v else "", "t": t} | steps
    return fill_template(template, fillings)


def format_reply(form: str, entity: Entity, attribute: str) -> str:
    """Return the one right reply in a form."""
    template, value = read_yaml("voice.yaml")["forms"][form][1], entity.facts[attribute]
    return fill_template(template, {"n": capitalise(entity.name_in_sentence), "v": value})


def raw_reply(question: Question, generator: np.random.Generator) -> tuple[str, str]:
    """Return a reply as a dump has it, and its style; what has no one value is cut off instead."""
    style = str(generator.choice(list(RAW_SHARES), p=list(RAW_SHARES.values())))
    right = styled_reply(question, generator)
    entity, what = question.entity, question.what
    value = entity.facts.get(what, "")
    templates = read_yaml("voice.yaml")["raw"].get(style)
    if style == "truncated" or (templates and not value and style != "off_topic"):
        words = right.split()
        return " ".join(words[: max(2, len(words) * 2 // 3)]), "truncated"
    if style == "wrong" and value:
        others = [e for e in entities() if what in e.facts and e.facts[what] != value]
        wrong = choose(others, generator).facts[what]
        mistaken = replace(entity, facts=entity.facts | {what: wrong})
        return styled_reply(replace(question, entity=mistaken), generator), style
    if templates:
        return choose(templates, generator).replace("{v}", value.replace("; ", ", ")), style
    return right, "voice"
