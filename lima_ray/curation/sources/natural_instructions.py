"""Super-NaturalInstructions: examples of generation tasks, whose definition and input make the
prompt (LIMA section 2.1: one of each of 50 tasks)."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.config.terminal import printable
from lima_ray.curation import filters
from lima_ray.curation.candidate import Candidate, PartWriter
from lima_ray.curation.dumps.ranges import DumpError
from lima_ray.curation.filters import Result
from lima_ray.curation.recipe import NaturalInstructions
from lima_ray.curation.stages import Task, files_below, stamp
from lima_ray.data.forms import LONE_SURROGATE
from lima_ray.records.files import parse_json

SPLITS = frozenset({"train", "dev", "test", "val", "valid", "validation", "eval"})
"""Names of files that are part of the task that their folder is named after."""
MAX_TASK_BYTES = 256 << 20
"""Of a task's file, which is read whole; the largest published one has 60 MB."""
LEAST_OUTPUTS_SHARE = 0.1
"""A task with fewer distinct outputs for each example is taken for one of labels."""
LABELS = re.compile(
    r"classif|detection|identification|verification|entailment|categori[sz]ation|recognition"
    r"|evaluation|matching|stance|sentiment|answerability|coherence|\bparsing\b|tagging"
    r"|word (?:analogy|semantics)|coreference|state tracking|probing|answer selection",
    re.IGNORECASE,
)
"""In `Categories`: what asks for a label, not for a text."""
REPOSITORY = "https://github.com/allenai/natural-instructions/blob/master/tasks"


@dataclass(frozen=True)
class TaskFacts:
    """What a task's files say about all its examples."""

    name: str
    definition: str
    categories: tuple[str, ...]
    languages: tuple[str, ...]
    """Of input, output and instruction."""
    authors: tuple[str, ...]
    licence: str
    examples: int
    outputs: int
    """Distinct ones."""


class NaturalInstructionsReader:
    """Tasks in a file or folder, each a file or a folder of splits."""

    def __init__(self, section: NaturalInstructions, inputs: Path, seed: int) -> None:
        self.section, self.seed = section, seed
        self.path = inputs / section.path
        self.tests = {
            "language": self.in_english,
            "classification": self.no_labels,
            "few_outputs": self.many_outputs,
        }
        self.filters: tuple[str, ...] = (*self.tests, "empty", "length", "not_drawn")

    def tasks(self, stage: int, parts: Sequence[Any]) -> list[Task]:
        if stage:
            return []
        files: dict[str, list[Path]] = {}
        for file in files_below(self.path, ["*.json"]):
            split = file.stem.lower() in SPLITS
            files.setdefault(file.parent.name if split else file.stem, []).append(file)
        return [
            Task(name, {"name": name, "files": [str(f) for f in those], "stamps": stamps(those)})
            for name, those in sorted(files.items())
        ]

    def run(self, task: Task, out: PartWriter) -> None:
        name = task.arguments["name"]
        files = [read_task(Path(file)) for file in task.arguments["files"]]
        instances = [i for file in files for i in file["Instances"] if isinstance(i, dict)]
        facts = read_facts(name, files, instances)
        failure = filters.first_failure(self.tests, facts)
        usable: list[tuple[str, str, str]] = []
        seen: set[str] = set()
        for number, instance in enumerate(instances):
            out.seen += 1
            id = printable(f"{name}/{instance.get('id') or number}")
            if id in seen:
                id = f"{id}-{number}"
            seen.add(id)
            prompt = "\n\n".join(t for t in (facts.definition, text(instance.get("input"))) if t)
            reply = text(instance.get("output"))
            if failure:
                out.drop(id, *failure)
            elif not text(instance.get("input")) or not reply or not facts.definition:
                out.drop(id, "empty", "no definition, input or output")
            elif (fits := filters.length_between(prompt, 1, self.section.max_chars)) is not True:
                out.drop(id, "length", fits[1])
            else:
                usable.append((id, prompt, reply))
        self.draw(usable, facts, out)

    def draw(self, usable: list[tuple[str, str, str]], facts: TaskFacts, out: PartWriter) -> None:
        """Keep some examples, the same for a seed whatever else the task holds."""
        chosen = set(sorted((id for id, *_ in usable), key=self.drawn)[: self.most])
        for id, prompt, reply in usable:
            if id not in chosen:
                out.drop(id, "not_drawn", f"{self.most} of a task are")
                continue
            out.keep(
                Candidate(
                    id=id,
                    turns=(prompt, reply),
                    source=self.section.source,
                    group=facts.name,
                    url=f"{REPOSITORY}/{facts.name}.json",
                    authors=facts.authors,
                    licence=facts.licence,
                    why=f"{', '.join(facts.categories)}: one of {facts.examples:,} examples",
                )
            )

    @property
    def most(self) -> int:
        """Examples of a task."""
        return self.section.examples_per_task

    def drawn(self, id: str) -> bytes:
        """Return what orders examples at random."""
        return hashlib.sha256(f"{self.seed}/{id}".encode()).digest()

    def in_english(self, facts: TaskFacts) -> Result:
        """Keep a task in English alone."""
        other = [lang for lang in facts.languages if lang.lower() != "english"]
        return (False, other[0]) if other and self.section.english_only else True

    def no_labels(self, facts: TaskFacts) -> Result:
        """Keep a task of which no category asks for labels."""
        found = [category for category in facts.categories if LABELS.search(category)]
        return (False, found[0]) if found and self.section.generation_only else True

    def many_outputs(self, facts: TaskFacts) -> Result:
        """Keep a task whose outputs differ."""
        if not self.section.generation_only or not facts.examples:
            return True
        if facts.outputs > max(facts.examples * LEAST_OUTPUTS_SHARE, 2):
            return True
        return False, f"{facts.outputs:,} distinct outputs of {facts.examples:,} examples"


def read_task(file: Path) -> dict[str, Any]:
    """Return a task's file.

    Raises:
        DumpError: it is too large, cut off, no JSON, or no task.
    """
    if (size := file.stat().st_size) > MAX_TASK_BYTES:
        most = MAX_TASK_BYTES >> 20
        raise DumpError(f"{file} has {size >> 20:,} MiB; a task's file has at most {most}")
    try:
        found = parse_json(file.read_bytes(), str(file))
    except UserError as error:
        raise DumpError(str(error)) from error
    instances = found.get("Instances") if isinstance(found, dict) else None
    if not isinstance(instances, list):
        raise DumpError(f"{file} is no task: it needs an object with a list `Instances`")
    return found


def read_facts(
    name: str, files: Sequence[Mapping[str, Any]], instances: Sequence[Mapping[str, Any]]
) -> TaskFacts:
    """Return what a task's files say; the first that says something counts."""

    def said(key: str) -> tuple[str, ...]:
        return next((found for file in files if (found := texts(file.get(key)))), ())

    spoken = ("Input_language", "Output_language", "Instruction_language")
    return TaskFacts(
        name=name,
        definition=(said("Definition") or ("",))[0],
        categories=said("Categories"),
        languages=tuple(dict.fromkeys(lang for key in spoken for lang in said(key))),
        authors=said("Contributors"),
        licence=", ".join(said("Instance License")),
        examples=len(instances),
        outputs=len({json.dumps(instance.get("output")) for instance in instances}),
    )


def texts(value: Any) -> tuple[str, ...]:
    """Return the texts of a value that is one, or a list of them; half a character is no text."""
    values = value if isinstance(value, list) else [value]
    found = [v.strip() for v in values if isinstance(v, str) and not LONE_SURROGATE.search(v)]
    return tuple(filter(None, found))


def text(value: Any) -> str:
    """Return the first text of a value."""
    return (texts(value) or ("",))[0]


def stamps(files: Sequence[Path]) -> list[list[int]]:
    """Return what tells files from others in their places."""
    return [stamp(file) for file in files]
