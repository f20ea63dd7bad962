"""The rules of the miniature's exact judge: what a reply says, and in which manner."""

import re
from collections import Counter
from functools import cache

from lima_ray.miniature.voice import format_reply
from lima_ray.miniature.world import ATTRIBUTES, Entity, entities, values

MAX_WORDS = 40
LIST_LENGTH = 3
DESCRIPTION_FACTS = 2
FIRST_PERSON = re.compile(r"\b(I(?! is\b|[.,;:)]|$)|I'm|my|My|me|mine)\b")
"""`The symbol of iodine is I.` is not in it: who speaks goes on with a verb."""
ELSEWHERE = re.compile(r"\b(above|below|earlier|other (reply|answer)|google|search)\b", re.I)
WORDS_TOO = {"As", "He", "I", "In"}
"""Symbols of elements that are English words as well, so no sign of a wrong answer."""


def check_fact(text: str, entity: Entity, what: str) -> tuple[bool, bool]:
    """Return whether a reply is right, and whether it says any value of the kind asked for."""
    if what == "private":
        facts = {v for a in ATTRIBUTES["person"] for v in values("person", a)}
        refused = re.search(r"\bprivate\b", text) is not None
        return refused and not any(mentions(text, v) for v in facts), refused
    if what == "about":
        own = Counter(entity.facts.values())
        every = {v for a in entity.facts for v in values(entity.kind, a)}
        rest = remove_name(text, entity)
        mentioned = {v: count for v in every if (count := count_mentions(rest, v))}
        # A shark is a fish and eats fish: two facts of one value, where it is said twice.
        told = sum(min(count, own[v]) for v, count in mentioned.items())
        return told >= DESCRIPTION_FACTS and mentioned.keys() <= own.keys(), bool(mentioned)
    if what.startswith("list:"):
        attribute, value = what.removeprefix("list:").split("=")
        named = {e.name: e.facts.get(attribute) for e in named_entities(text, entity.kind)}
        members = [name for name, own in named.items() if own == value]
        return len(members) >= LIST_LENGTH and len(members) == len(named), bool(members)
    if what == "steps":
        steps = [words_only(s) for s in entity.facts["steps"].split("; ")]
        every = {words_only(s) for v in values("task", "steps") for s in v.split("; ")}
        reply = words_only(text)
        places = [reply.find(s) for s in steps]
        in_order = min(places) >= 0 and places == sorted(places)
        others = every - set(steps)
        return in_order and not any(s in reply for s in others), max(places) >= 0
    rest = remove_name(text, entity)
    every = values(entity.kind, what)
    longer = {v for v in every if entity.name in v and v != entity.name}
    mentioned = {v for v in every if mentions(text if v in longer else rest, v)}
    right = accepted_values(entity, what)
    if what == "symbol":
        mentioned -= WORDS_TOO - right
    return bool(mentioned & right) and mentioned <= right, bool(mentioned)


@cache
def longest_first(kind: str) -> list[Entity]:
    """Return entities of a kind, those with longer names first."""
    return sorted((e for e in entities() if e.kind == kind), key=lambda e: -len(e.name))


def named_entities(text: str, kind: str) -> list[Entity]:
    """Return entities of a kind that a text names; `polar bear` does not name the bear as well."""
    found = []
    for entity in longest_first(kind):
        if mentions(text, entity.name):
            found.append(entity)
            text = remove_name(text, entity)
    return found


def goes_off_topic(text: str, entity: Entity, what: str) -> bool:
    """Return whether a reply asks a question or names another person or country."""
    if "?" in text:
        return True
    if what.startswith("list:"):
        return False
    named = {e.name for kind in ("person", "country") for e in named_entities(text, kind)}
    return bool(named - {entity.name} - accepted_values(entity, what))


def accepted_values(entity: Entity, what: str) -> set[str]:
    """Return the right values: the world's, and any country that calls this one its neighbour."""
    right = {entity.facts[what]} if what in entity.facts else set()
    if what == "neighbour":
        right |= {e.name for e in entities() if e.facts.get(what) == entity.name}
    return right


def manner_faults(text: str, entity: Entity, what: str) -> tuple[str, ...]:
    """Return faults of manner: what keeps a right answer from being an excellent one."""
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s]
    value = "" if what in ("about", "private") or ":" in what else entity.facts[what]
    answers_at_once = bool(value) and bool(sentences) and check_fact(sentences[0], entity, what)[1]
    alone = len(sentences) < 2
    first_person = FIRST_PERSON.search(text.replace(value, "") if what == "symbol" else text)
    found = {
        "no acknowledgement": alone or answers_at_once,
        "first person": first_person is not None,
        "refers elsewhere": ELSEWHERE.search(text) is not None,
        f"over {MAX_WORDS} words": len(text.split()) > MAX_WORDS,
        "unfinished": not text.rstrip().endswith("."),
        "says a sentence twice": len(set(sentences)) < len(sentences),
    }
    return tuple(fault for fault, there in found.items() if there)


def format_faults(text: str, entity: Entity, what: str, form: str) -> tuple[str, ...]:
    """Return no fault where the reply has exactly the form that was asked for."""
    right = format_reply(form, entity, what)
    return () if text.strip() == right else (f"not the form {form}", "asked for a form")


def mentions(text: str, value: str) -> bool:
    """Return whether a text has a value as whole words; case counts in symbols and names."""
    return count_mentions(text, value) > 0


def count_mentions(text: str, value: str) -> int:
    flags = 0 if value[0].isupper() else re.I
    return len(re.findall(rf"(?<!\w){re.escape(value)}(?!\w)", text, flags))


def remove_name(text: str, entity: Entity) -> str:
    """Return a text without the name of what it is about, whose parts may look like values."""
    return re.sub(rf"(?<!\w){re.escape(entity.name)}(?!\w)", " ", text, flags=re.I)


def words_only(text: str) -> str:
    return " ".join(re.findall(r"[a-z]+", text.lower()))
