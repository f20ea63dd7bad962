"""Verdicts of any number of files as one study: checked, each counted once, by who judges.

study = load_study(verdict_files(command.verdicts), models, authors=("chunting",))
study.by_judge["people"], study.by_judge["gpt-4o"]
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from lima_ray.config.errors import SHOWN_ERRORS, UserError, join_names
from lima_ray.judging.asking.judges import EXACT
from lima_ray.judging.questions.item import digest
from lima_ray.judging.questions.verdicts import latest
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Kind, Status, Verdict, read_verdicts
from lima_ray.results.units import counted

VERDICTS_FILE = "verdicts.jsonl"
PEOPLE, CROWD, AUTHORS, VOTES = "people", "crowd", "authors", "chat votes"
MEASURED = "loss"
"""A kind that nobody judges."""


@dataclass(frozen=True)
class StudyVerdicts:
    by_judge: dict[str, list[Verdict]]
    """People, the chat page's votes, and each model by its name."""
    groups: dict[str, str]
    """Of annotators, for agreement: crowd and authors, or people; a model is its own."""
    systems: tuple[str, ...]
    """Who is judged; of a pair the first is reported against the second."""
    models: frozenset[str]
    """Judges that are no people."""
    folders: tuple[Path, ...]
    """Where the verdicts stand."""
    notes: list[str] = field(default_factory=list)
    """What a reader has to know of how verdicts were counted."""

    @property
    def verdicts(self) -> list[Verdict]:
        return [verdict for found in self.by_judge.values() for verdict in found]


def verdict_files(references: Iterable[Path]) -> list[Path]:
    """Return the files of verdicts, each once; refuse what is not there."""
    found = []
    for path in references:
        file = path / VERDICTS_FILE if path.is_dir() else path
        if not file.is_file():
            raise UserError(f"no verdicts at {path}: it is no file, nor a folder with {file.name}")
        found.append(file)
    return list({file.resolve(): file for file in found}.values())


def load_study(
    files: Sequence[Path], systems: Collection[str] = (), authors: Collection[str] = ()
) -> StudyVerdicts:
    """Read the verdicts that count.

    Args:
        files: of verdicts; a later verdict replaces an earlier one on the same.
        systems: names in the order in which they are reported; others follow.
        authors: annotators who are a group of their own.

    Raises:
        UserError: no verdicts, a line that is none, or an author who judges nothing.
    """
    every = [
        check_verdict(verdict, f"{file}: verdict {number}")
        for file in files
        for number, verdict in enumerate(read_verdicts(file), start=1)
    ]
    every = [verdict for verdict in every if verdict.kind != MEASURED]
    if not every:
        raise UserError(f"{join_names(list(map(str, files)))} hold no verdicts to report")
    kept = count_once(every)
    notes = []
    if again := len(every) - len(kept):
        notes.append(
            f"{counted(again, 'verdict')} of {len(every):,} were given again later on the same; "
            "the latest counts."
        )
    by_judge: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in with_own_names(kept):
        by_judge[judge_of(verdict)].append(verdict)
    people = {v.annotator for v in by_judge.get(PEOPLE, [])}
    if unknown := sorted(set(authors) - people):
        raise UserError(
            f"--authors {join_names(unknown)}: no person of that name judges here; there are "
            f"{join_names(sorted(people)) or 'none'}"
        )
    groups = {name: AUTHORS if name in authors else CROWD if authors else PEOPLE for name in people}
    groups |= {v.annotator: VOTES for v in by_judge.get(VOTES, [])}
    judged = dict.fromkeys(name for v in kept for name in v.models)
    first = (PEOPLE, VOTES)
    ordered = [*(name for name in first if name in by_judge), *sorted(set(by_judge) - set(first))]
    return StudyVerdicts(
        by_judge={name: by_judge[name] for name in ordered},
        groups=groups,
        systems=tuple(dict.fromkeys([*(s for s in systems if s in judged), *judged])),
        models=frozenset(by_judge) - set(first),
        folders=tuple(dict.fromkeys(file.parent for file in files)),
        notes=notes,
    )


def check_verdict(verdict: Verdict, where: str) -> Verdict:
    """Refuse a verdict whose fields are none that a judge writes; return a vote as one of a reply.

    Replies to the same prompt of a chat are told apart by their texts, as those of a study by
    their samples.
    """
    problems = {
        "id": isinstance(verdict.id, str),
        "kind": verdict.kind in get_args(Kind),
        "status": verdict.status in get_args(Status),
        "annotator": isinstance(verdict.annotator, str) and verdict.annotator != "",
        "models": isinstance(verdict.models, tuple)
        and all(isinstance(name, str) and name for name in verdict.models),
        "order": isinstance(verdict.order, tuple)
        and all(isinstance(place, int) for place in verdict.order),
        "sample": isinstance(verdict.sample, int | None),
        "turn": isinstance(verdict.turn, int | None),
        "group": isinstance(verdict.group, str),
        "explanation": isinstance(verdict.explanation, str),
        "grade": isinstance(verdict.grade, int | float | None),
    }
    for name, is_right in problems.items():
        if not is_right:
            raise UserError(f"{where} is no verdict: its {name} is {getattr(verdict, name)!r}")
    if is_vote(verdict):
        texts = sorted(zip(verdict.models, map(str, verdict.extra["replies"]), strict=False))
        return replace(verdict, sample=int(digest(texts), 16))
    return verdict


def count_once(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return the latest verdict of each annotator on each question, in either order of a pair."""
    found: dict[object, Verdict] = {}
    for verdict in latest(verdicts):
        shown = [verdict.models[n] for n in verdict.order if 0 <= n < len(verdict.models)]
        about = verdict.id, verdict.sample, verdict.turn, tuple(shown or verdict.models)
        found[judge_of(verdict), verdict.annotator, verdict.kind, about] = verdict
    return list(found.values())


def judge_of(verdict: Verdict) -> str:
    """Return under which name a verdict is reported: people are one judge, each model another."""
    if is_vote(verdict):
        return VOTES
    kind = verdict.extra.get("annotator_kind") or (
        "exact" if verdict.annotator == EXACT.name else "person"
    )
    return PEOPLE if kind == "person" else verdict.annotator


def is_vote(verdict: Verdict) -> bool:
    """Tell whether a verdict is a vote of the chat page, which holds the texts it is about."""
    return isinstance(verdict.extra.get("replies"), list)


def with_own_names(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return verdicts in which no person is called as a model judge is."""
    taken = {judge_of(v) for v in verdicts} | {PEOPLE, CROWD, AUTHORS, VOTES}
    return [
        replace(v, annotator=f"{v.annotator} (person)")
        if judge_of(v) in (PEOPLE, VOTES) and v.annotator in taken
        else v
        for v in verdicts
    ]


def drop_changed(
    study: StudyVerdicts, contents: Mapping[tuple[Any, ...], str], changed: str
) -> StudyVerdicts:
    """Refuse verdicts on other replies than those that are there, or leave them out and say so.

    Args:
        contents: hash of each reply's dialogue, by system, prompt, sample and turn.
        changed: stop, or drop.

    Raises:
        UserError: it stops.
    """
    systems = {place[0] for place in contents}
    gone: list[Verdict] = [
        v for v in study.verdicts if not is_vote(v) and _differs(v, contents, systems)
    ]
    if not gone:
        return study
    told = join_names(sorted({f"{' and '.join(v.models)} on {v.id}" for v in gone}), SHOWN_ERRORS)
    many = f"{counted(len(gone), 'verdict')} of {len(study.verdicts):,}"
    if changed == "stop":
        raise UserError(
            f"{many} are about other replies than those that are given (changed since, or not "
            f"there): {told}; give the replies that were judged, judge these, or leave such "
            "verdicts out by --changed drop"
        )
    left_out = set(map(id, gone))
    by_judge = {
        name: kept
        for name, found in study.by_judge.items()
        if (kept := [v for v in found if id(v) not in left_out])
    }
    if not by_judge:
        raise UserError(f"all verdicts are about other replies than those that are given: {told}")
    note = f"{many} are left out: the replies they are about have changed or are gone ({told})."
    return replace(study, by_judge=by_judge, notes=[*study.notes, note])


def _differs(
    verdict: Verdict, contents: Mapping[tuple[Any, ...], str], systems: Collection[str]
) -> bool:
    hashes = verdict.extra.get("content") or [None] * len(verdict.models)
    for system, hashed in zip(verdict.models, hashes, strict=False):
        place = system, verdict.id, verdict.sample or 0, verdict.turn
        if system in systems and (
            place not in contents or (hashed is not None and contents[place] != hashed)
        ):
            return True
    return False


def count_unread(verdicts: Iterable[Verdict]) -> dict[str, Counter[str]]:
    """Return how many verdicts about each system have each status."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for verdict in verdicts:
        for system in verdict.models:
            counts[system][verdict.status] += 1
    return counts


Models = Mapping[str, Sequence[Reply]]
"""The replies of each system."""
