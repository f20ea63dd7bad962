"""The replies that verdicts are about: named by the user, or found beside the verdicts."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lima_ray.config.errors import SHOWN_ERRORS, UserError, join_names
from lima_ray.config.flags import did_you_mean
from lima_ray.judging.questions.design import group
from lima_ray.judging.questions.item import digest, show
from lima_ray.judging.questions.replies import REPLIES_FILE, read_models, split_reference
from lima_ray.judging.report.loading import StudyVerdicts, is_vote
from lima_ray.records.files import read_json
from lima_ray.records.reply import Reply


@dataclass(frozen=True)
class Source:
    """Replies of one system from one place."""

    system: str
    path: Path

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent


def find_references(files: Sequence[Path]) -> list[str]:
    """Return what stands beside verdicts: replies that judge.json names, or a replies.jsonl.

    A directory is named once; the name that a judge was given goes before that in the replies.
    """
    folders = list(dict.fromkeys(file.parent for file in files))
    found: dict[Path, str] = {}
    for folder in folders:
        for name, told in ((read_json(folder / "judge.json") or {}).get("models") or {}).items():
            reference = told.get("replies") if isinstance(told, dict) else None
            path = split_reference(str(reference))[1] if reference else None
            if path and path.exists():
                found.setdefault(path.resolve(), f"{name}={path}")
    for folder in folders:
        if (folder / REPLIES_FILE).is_file():
            found.setdefault(folder.resolve(), str(folder))
    return list(found.values())


def read_sources(references: Sequence[str]) -> tuple[dict[str, list[Reply]], list[Source]]:
    """Return the replies of each system, which may stand in several places, and these places.

    Raises:
        UserError: no replies, or two of a system in one place.
    """
    # `read_models` takes each system once, and prompts of tables from the others beside it.
    rounds: list[list[str]] = []
    used: list[set[str]] = []
    for reference in references:
        name = split_reference(reference)[0] or _name_of(reference)
        at = next((n for n, names in enumerate(used) if name not in names), len(used))
        if at == len(used):
            rounds.append([])
            used.append(set())
        rounds[at].append(reference)
        used[at].add(name)
    models: dict[str, list[Reply]] = defaultdict(list)
    sources = []
    for some in rounds:
        found = read_models(some)
        for reference, (system, replies) in zip(some, found.items(), strict=True):
            models[system] += replies
            sources.append(Source(system, split_reference(reference)[1]))
    for system, replies in models.items():
        places = Counter((one.id, one.sample, one.turn) for one in replies)
        if twice := [str(place) for place, many in places.items() if many > 1]:
            raise UserError(
                f"the replies of {system} hold several of the same prompt, sample and turn: "
                f"{join_names(twice, SHOWN_ERRORS)}; name each system's replies by --replies "
                "SYSTEM=DIR"
            )
    return dict(models), sources


def check_systems(models: dict[str, list[Reply]], study: StudyVerdicts) -> list[str]:
    """Refuse replies of a system that no verdict names; return what is told of the others."""
    for system in models:
        if system not in study.systems:
            near = did_you_mean(system, list(study.systems))
            raise UserError(
                f"--replies {system}=...: no verdict is about {system!r}; they are about "
                f"{join_names(sorted(study.systems))}{near}"
            )
    # A vote brings the texts it is about.
    needed = dict.fromkeys(s for v in study.verdicts if not is_vote(v) for s in v.models)
    if models and (lacking := [system for system in needed if system not in models]):
        return [
            f"The replies of {join_names(lacking)} are not given: their verdicts count, and their "
            "replies are neither shown nor checked."
        ]
    return []


def contents_of(models: dict[str, list[Reply]]) -> dict[tuple[str, str, int, int | None], str]:
    """Return the hash of each reply's dialogue and of whole dialogues, as verdicts hold it."""
    found = {}
    for system, replies in models.items():
        for whole in (False, True):
            for (id, sample, turn), judged in group(replies, whole).items():
                side = show(judged)
                hashed = digest([side.system, side.turns, side.judged])
                found[system, id, sample, turn] = hashed
    return found


def _name_of(reference: str) -> str:
    """Return the model that replies name themselves; empty where they name none."""
    (name,) = read_models([reference])
    return name
