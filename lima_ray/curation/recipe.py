"""The curation recipe: which dumps, by which rule, and how many rows of each."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from lima_ray.config.errors import UserError, describe_invalid, dotted
from lima_ray.config.flags import did_you_mean
from lima_ray.config.loading import read_yaml
from lima_ray.config.paths import RECIPES
from lima_ray.config.sections import Section

CURATION_RECIPES = RECIPES / "curate"
BEFORE_CHATGPT = date(2022, 11, 30)
"""From this day on, people posted what a model had written."""

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
Selector = Literal["score", "random", "longest", "spread", "graded"]


INFINITE_AS_STRING = ConfigDict(ser_json_inf_nan="strings")
"""JSON has no infinite temperature; pydantic needs this at the root and where the field is."""


class SourceSection(Section):
    """What every source says."""

    model_config = INFINITE_AS_STRING

    path: str
    """File or folder of the dump, relative to `inputs`."""
    source: str
    """What the rows' `source` says."""
    rows: int | None = Field(default=None, ge=0)
    """Rows to choose; none takes every candidate, 0 leaves the source out."""
    choose: Selector = "score"
    """Which candidates of a group: of highest score, at random, longest, spread over embeddings, or
    graded best by a model."""
    temperature: float = Field(default=1, ge=1)
    """How rows are shared over groups (sites, categories): p is proportional to n ** (1 / this); 1
    is by their size, 3 the paper's for sites, .inf gives all the same."""
    written_before: date | None = BEFORE_CHATGPT
    """Drop what was written on this day or later; null keeps it, and the card tells its share."""

    @field_validator("written_before", mode="before")
    @classmethod
    def _a_day(cls, said: object) -> object:
        """Refuse a text that is no day, in words that say what one is."""
        if isinstance(said, str) and not DAY.fullmatch(said):
            raise ValueError("write a day as 2022-11-30, or null")
        return said

    @model_validator(mode="after")
    def _some_length(self) -> Self:
        """Refuse lengths that no text has."""
        least, most = getattr(self, "min_chars", 0), getattr(self, "max_chars", None)
        if most is not None and least > most:
            raise ValueError(f"min_chars {least} is above max_chars {most}, so no text fits")
        return self


class StackExchange(SourceSection):
    """Questions and answers of Stack Exchange sites (LIMA section 2.1)."""

    kind: Literal["stackexchange"]
    source: str = "stackexchange"
    temperature: float = Field(default=3, ge=1)
    sites: Literal["all", "stem", "other"] | tuple[str, ...] = "all"
    """Which sites of a folder: the paper's two sets, or names such as cooking."""

    @field_validator("sites", mode="before")
    @classmethod
    def _one_site(cls, said: object) -> object:
        """Take the name of a site for a list of one."""
        return (said,) if isinstance(said, str) and said not in ("all", "stem", "other") else said

    unfiltered: bool = False
    """The control set of LIMA section 5: any answered question and its top answer."""
    min_answer_score: int = 10
    """Least score of a question's top answer."""
    min_chars: int = Field(default=1200, ge=1)
    """Shortest answer, in characters of its text."""
    max_chars: int = Field(default=4096, ge=1)
    """Longest answer."""
    first_person: bool = False
    """Keep answers in the first person."""
    references: bool = False
    """Keep answers that refer to other answers or to the site."""
    prompt: Literal["mixed", "title", "body"] = "mixed"
    """What the prompt is: the question's title, its description, or either at random."""


class StackExchangeDialogues(StackExchange):
    """A question, its top answer, and what asker and answerer then say to each other in comments:
    candidates for LIMA's 30 dialogues, which people edit (LIMA section 6)."""

    kind: Literal["stackexchange_dialogues"]  # pyright: ignore[reportIncompatibleVariableOverride]
    source: str = "multi_turn"
    min_answer_score: int = 1
    min_chars: int = Field(default=200, ge=1)
    first_person: bool = True
    references: bool = True
    prompt: Literal["mixed", "title", "body"] = "body"
    min_exchanges: int = Field(default=2, ge=2)
    """Fewest pairs of turns, of which the first is question and answer."""


class WikiHow(SourceSection):
    """Articles of wikiHow: the title is the prompt, the body the reply."""

    kind: Literal["wikihow"]
    source: str = "wikihow"
    choose: Selector = "random"
    temperature: float = Field(default=float("inf"), ge=1)
    categories: str = ""
    """CSV of `title,category`, relative to `inputs`; without it all articles are one group."""
    min_chars: int = Field(default=1200, ge=1)
    """Shortest body, in characters."""
    max_chars: int = Field(default=20000, ge=1)
    """Longest body."""


class Reddit(SourceSection):
    """Submissions of a subreddit, with the best story of each, or their titles alone."""

    kind: Literal["reddit"]
    source: str = ""
    """What the rows' `source` says; empty takes the subreddit's name in lower case."""
    subreddit: str = "WritingPrompts"
    """Which one, where a dump holds several."""
    take: Literal["stories", "titles"] = "stories"
    """A prompt with its best story, or the titles of questions as prompts alone."""
    min_score: int = 100
    """Least score of a submission, and of a story."""
    min_age_h: float = Field(default=24, ge=0)
    """Hours that a score must have had to settle before it was read."""
    over_18: bool = False
    """Take what is marked as for adults too."""
    min_chars: int = Field(default=600, ge=1)
    """Shortest story, in characters."""
    max_chars: int = Field(default=6000, ge=1)
    """Longest story."""


class NaturalInstructions(SourceSection):
    """Tasks of Super-NaturalInstructions: one example of each."""

    kind: Literal["natural_instructions"]
    source: str = "nlp"
    choose: Selector = "random"
    temperature: float = Field(default=float("inf"), ge=1)
    generation_only: bool = True
    """Leave out tasks of classification, whose outputs are a few labels."""
    english_only: bool = True
    """Leave out tasks whose input, output or instruction is in another language."""
    examples_per_task: int = Field(default=20, ge=1)
    """Examples of a task that are candidates, drawn by the seed."""
    max_chars: int = Field(default=6000, ge=1)
    """Longest prompt, in characters: the definition and the input."""


class Examples(SourceSection):
    """Rows of one's own in any form that `lima_ray.example` reads, the released LIMA among them."""

    kind: Literal["examples"]
    source: str = "authors"
    choose: Selector = "random"
    only: tuple[str, ...] = ()
    """Take rows whose own `source` is one of these alone, and keep it."""


Source = Annotated[
    StackExchange | StackExchangeDialogues | WikiHow | Reddit | NaturalInstructions | Examples,
    Field(discriminator="kind"),
]


KINDS: dict[str, type[SourceSection]] = {
    get_args(section.model_fields["kind"].annotation)[0]: section
    for section in get_args(get_args(Source)[0])
}
"""Section of each `kind`."""


class Curation(Section):
    """Every choice of a dataset."""

    model_config = INFINITE_AS_STRING

    name: str = Field(default="", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*)?$")
    """Name of the dataset; empty takes the recipe file's name."""
    inputs: str = "."
    """Folder of the dumps."""
    out: str = ""
    """Folder of the dataset; empty takes data/NAME."""
    split: Literal["train", "dev", "test"] = "train"
    """What the rows are for; their file is called so."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of every draw."""
    endpoint: str = ""
    """Base URL of the model that grades for `choose: graded`, such as http://localhost:8000/v1;
    OPENAI_API_KEY is its key."""
    endpoint_model: str = ""
    """Model asked there."""
    embedder: str = Field(default="wordllama", pattern=r"^(wordllama|[\w.]+:\w+)$")
    """What makes the vectors for `choose: spread`: `wordllama`, which ships them, or a function of
    yours that returns a vector for each of some texts, as `module:function`."""
    sources: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")], Source] = Field(min_length=1)
    """Each dump by a name of its own; rows of an earlier one win over duplicates in a later."""
    near_duplicates: float = Field(default=0.7, gt=0, le=1)
    """Drop a row whose text has this Jaccard similarity (MinHash of word 5-grams) to an earlier
    one; 1 drops equal ones alone."""
    decontaminate: tuple[str, ...] = ()
    """Files of dev and test prompts, relative to `inputs`: no row may repeat one."""
    overlap: int = Field(default=8, ge=1)
    """Words in a row that count as a repetition of a prompt."""

    @model_validator(mode="after")
    def _grader_named(self) -> Self:
        """Refuse a selector by grades without a model that gives them."""
        graded = [name for name, source in self.sources.items() if source.choose == "graded"]
        if graded and not (self.endpoint and self.endpoint_model):
            raise ValueError(
                f"sources.{graded[0]}.choose is graded, which needs endpoint and endpoint_model"
            )
        return self

    def digest(self) -> str:
        """Return 12 hex digits that tell datasets of other choices apart."""
        tree = self.model_dump(mode="json", exclude={"out", "name"})
        if self.embedder == "wordllama":  # recipes without the field have the same digest
            del tree["embedder"]
        said = json.dumps(tree, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:12]


def load_curation(reference: str, changes: dict[str, Any] | None = None) -> Curation:
    """Read a curation recipe by file or by the name of one that ships.

    Args:
        reference: the file or the name.
        changes: values by dotted name, such as `sources.wikihow.rows`.

    Raises:
        UserError: no such recipe, not YAML, or an unknown key or bad value (all are named).
    """
    path, tree = read_yaml(reference, CURATION_RECIPES, "curation recipe")
    for name, value in (changes or {}).items():
        set_value(tree, name, value)
    if isinstance(sources := tree.get("sources"), dict):
        tree["sources"] = {
            name: section
            for name, section in sources.items()
            if not isinstance(section, dict) or section.get("rows") != 0
        }
    tree["name"] = tree.get("name") or path.stem
    if not tree.get("out"):
        tree["out"] = str(Path("data") / str(tree["name"]))
    try:
        return Curation.model_validate(tree)
    except ValidationError as error:
        unknown = partial(describe_unknown_key, tree)
        where = f"{path} with the flags" if changes else str(path)
        raise UserError(describe_invalid(error, where, unknown, name_field)) from error


def name_field(keys: Sequence[int | str]) -> str:
    """Return a field's dotted name; pydantic puts a source's kind behind the source's name."""
    return dotted(keys if keys[:1] != ("sources",) else (*keys[:2], *keys[3:]))


def describe_unknown_key(tree: dict[str, Any], name: str, value: object) -> str:
    """Say that no field has this name, and which one of the same section is nearest."""
    *section, last = name.split(".")
    fields: type[Section] = Curation
    if section:
        fields = KINDS[tree["sources"][section[1]]["kind"]]
    prefix = f"{dotted(section)}." if section else ""
    meant = did_you_mean(name, [prefix + field for field in fields.model_fields])
    return f"unknown key {prefix}{last} (value {value!r}){meant}"


def set_value(tree: dict[str, Any], name: str, value: Any) -> None:
    """Set a value of a tree of mappings by its dotted name.

    Raises:
        UserError: a section on the way is not there.
    """
    *sections, last = name.split(".")
    here: Any = tree
    for section in sections:
        if not isinstance(here, dict) or section not in here:
            there = ", ".join(here) if isinstance(here, dict) else "nothing"
            raise UserError(f"--{name}: the recipe has no {section!r} there; it has {there}")
        here = here[section]
    if not isinstance(here, dict):
        raise UserError(f"--{name}: {sections[-1]} is a value, {here!r}, and has no {last!r}")
    here[last] = value
