"""The words in which judges are asked, the same for people and models: `prompts/KIND.txt`.

    wording = load_wording("pairwise")      # or load_wording(item.kind, item.whole)
    wording.instructions, wording.levels    # what a person is shown
    wording.prompt(item)                    # what a model is sent: these, the dialogues, the form

A file holds the instructions, a line `---`, and the levels: a verdict, two spaces, what it means.
`prompts/reply.txt` and `prompts/dialogue.txt` say what is judged, in the place of `$target`.
`prompts/model.txt` tells a model how the dialogues stand in the prompt and how to answer.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

from lima_ray.config.errors import UserError
from lima_ray.judging.questions.item import Item, ItemKind, Side, digest

PROMPTS = Path(__file__).parents[1] / "prompts"
ROLES = ("User", "Assistant")
LEVEL = re.compile(r"^(\S+)  +(.+(?:\n +.+)*)", re.M)


@dataclass(frozen=True)
class Wording:
    """How a kind of question is put."""

    kind: ItemKind
    instructions: str
    """What everybody is told before the dialogues, people and models alike; a line a paragraph."""
    levels: dict[str, str]
    """What each verdict means, in the order in which they are offered."""
    form: str
    """Template of a model's prompt around instructions, levels and dialogues."""

    @property
    def version(self) -> str:
        """A hash of what everybody is told."""
        return digest([self.instructions, list(self.levels.items())])

    @property
    def model_version(self) -> str:
        """A hash of what a model is told, with the form in which it must answer."""
        return digest([self.version, self.form])

    def prompt(self, item: Item) -> str:
        """Return what a model is sent: instructions, dialogues, levels, and how to answer."""
        return Template(self.form).substitute(
            instructions=self.instructions,
            material=describe_material(item),
            levels="\n".join(f"{name}  {text}" for name, text in self.levels.items()),
            names=_offer(list(self.levels)),
        )

    def check(self, choice: object) -> str | int:
        """Return an annotator's choice as verdicts hold it; a `UserError` refuses any other."""
        name = str(choice).strip()
        # True is equal to 1, and is no grade.
        if isinstance(choice, bool) or name not in self.levels:
            raise UserError(f"{choice!r} is no verdict; it is one of {', '.join(self.levels)}")
        return int(name) if self.kind == "grade" else name


@cache
def load_wording(kind: ItemKind, whole: bool = False) -> Wording:
    """Return how a kind of question is put: about a reply, or about a dialogue as a whole."""
    text, _, levels = _read(kind).partition("\n---\n")
    target = _read("dialogue" if whole else "reply").strip()
    found = {name: " ".join(meaning.split()) for name, meaning in LEVEL.findall(levels)}
    told = Template(text).substitute(target=target).split("\n\n")
    instructions = "\n\n".join(" ".join(paragraph.split()) for paragraph in told)
    return Wording(kind, instructions, found, _read("model"))


def describe_material(item: Item) -> str:
    """Return the dialogues of an item as a model is sent them, each between tags."""
    parts = material(item).items()
    return "\n\n".join(f"<{name}>\n{text}\n</{name}>" for name, text in parts)


def material(item: Item) -> dict[str, str]:
    """Return what a judge reads: the `conversation`, and of a pair `answer_A` and `answer_B`.

    Turns that both sides share stand once, in the conversation, and a single reply there has no
    role before it.
    """
    sides = item.shown
    if len(sides) == 1:
        return {"conversation": describe_turns(sides[0], 0)}
    shared = sides[0].system == sides[1].system and sides[0].context == sides[1].context
    found = {}
    if shared:
        context = Side(sides[0].system, sides[0].context, ())
        found["conversation"] = describe_turns(context, 0)
    for name, side in zip("AB", sides, strict=True):
        one = shared and len(side.answer) == 1
        begin = side.judged[0] if shared else 0
        found[f"answer_{name}"] = side.turns[-1] if one else describe_turns(side, begin)
    return found


def describe_turns(side: Side, begin: int) -> str:
    """Return turns from one on, each after its role; the system message before the first."""
    turns = [f"System: {side.system}"] if side.system and not begin else []
    for place, text in enumerate(side.turns[begin:], start=begin):
        turns.append(f"{ROLES[place % 2]}: {text}")
    return "\n\n".join(turns)


def _read(name: str) -> str:
    return (PROMPTS / f"{name}.txt").read_text(encoding="utf-8")


def _offer(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
