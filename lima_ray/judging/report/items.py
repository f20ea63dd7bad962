"""Places in which systems reply, with their replies and what judges say of them."""

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from lima_ray.judging.report.loading import VOTES, Models, StudyVerdicts, is_vote, judge_of
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict
from lima_ray.results.statistics.verdict_table import TIE

BAD = {"fail", "unsafe", "down", "1", "2"}
FAILS, UNREAD, DISAGREE = "some reply fails", "some verdict was not read", "judges disagree"

Place = tuple[str, int, int]
"""Id of the prompt, number of the sample, and the turn."""


@dataclass
class ReadingItem:
    """The replies in one place, and the verdicts on them."""

    place: Place
    replies: dict[str, Reply] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def group(self) -> str:
        return str(next(iter(self.replies.values())).extra.get("group", ""))

    @property
    def prompt(self) -> str:
        return next(iter(self.replies.values())).conversations[-1]

    def labels(self) -> list[str]:
        """Return what the verdicts say, as the filter offers it."""
        found, said = [], defaultdict(set)
        for verdict in self.verdicts:
            judge = judge_of(verdict)
            if not verdict.was_read:
                found.append(UNREAD)
                continue
            value = label_of(verdict)
            about = " against ".join(sorted(verdict.models))
            said[verdict.kind, about, verdict.turn].add(value)
            preferred = " preferred" if verdict.kind == "pairwise" and value != TIE else ""
            found.append(f"{judge}\t{about}: {value}{preferred}")
            if value in BAD:
                found.append(FAILS)
        if any(len(values) > 1 for values in said.values()):
            found.append(DISAGREE)
        return list(dict.fromkeys(found))


def reading_items(study: StudyVerdicts, models: Models) -> list[ReadingItem]:
    """Return the places in which systems reply, in the order of the replies, and those voted on."""
    found: dict[Place, ReadingItem] = {}
    for system, replies in models.items():
        for reply in replies:
            place = reply.id, reply.sample, reply.turn
            found.setdefault(place, ReadingItem(place)).replies[system] = reply
    last: dict[tuple[str, int], Place] = {}
    for place in found:
        last[place[:2]] = max(last.get(place[:2], place), place)
    for verdict in study.verdicts:
        if is_vote(verdict):
            continue
        place = verdict.id, verdict.sample or 0, verdict.turn
        # A dialogue as a whole is read at its last turn.
        at = last.get((place[0], place[1])) if place[2] is None else (*place[:2], place[2])
        if at in found:
            found[at].verdicts.append(verdict)
    return [*found.values(), *vote_items(filter(is_vote, study.verdicts), found)]


def vote_items(votes: Iterable[Verdict], taken: Container[Place]) -> Iterator[ReadingItem]:
    """Yield the replies that votes hold, each pair once; further ones to a prompt are samples."""
    by_texts: dict[tuple[str, int | None], list[Verdict]] = defaultdict(list)
    for vote in votes:
        by_texts[vote.id, vote.sample].append(vote)
    used: set[Place] = set()
    for (id, _), own in by_texts.items():
        turns, texts = own[-1].extra.get("conversations"), own[-1].extra["replies"]
        if not (isinstance(turns, list) and turns):
            continue  # votes of others may lack them
        turn = len(turns) // 2
        places = ((id, sample, turn) for sample in count())
        place = next(one for one in places if one not in taken and one not in used)
        used.add(place)
        shown = {
            name: Reply(
                *(id, tuple(map(str, turns)), name, place[1], turn, str(text), True),
                system=str(own[-1].extra.get("system") or "") or None,
                extra={"group": own[-1].group or VOTES},
            )
            for name, text in zip(own[-1].models, texts, strict=False)
        }
        if shown:
            yield ReadingItem(place, shown, own)


def label_of(verdict: Verdict) -> str:
    """Return what a verdict says; of a pair which system is preferred, or neither."""
    if verdict.kind == "grade" and isinstance(verdict.verdict, int | float):
        return f"{verdict.verdict:g}"
    if verdict.kind != "pairwise" or verdict.verdict == TIE:
        return str(verdict.verdict)
    return verdict.models[verdict.order[0 if verdict.verdict == "A" else 1]]
