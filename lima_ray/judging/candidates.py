"""Grade candidates for a dataset on LIMA's scale of 1 to 6, for the selector `graded`.

judge = EndpointJudge(model="gpt-4o", url="http://localhost:8000/v1")
grades = grade_candidates(candidates, judge, Path("grades.jsonl"))

The judge is asked as in `grade` (LIMA section 5, appendix D). Each judgement is a verdict, a line
of a journal, so that a run that was stopped goes on.
"""

from collections.abc import Sequence
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.curation.candidate import Candidate
from lima_ray.judging.asking.judges import EndpointJudge
from lima_ray.judging.asking.run import Asking
from lima_ray.judging.asking.verdict_journal import VerdictJournal
from lima_ray.judging.endpoint import grade_item
from lima_ray.records.reply import Reply


def grade_candidates(
    candidates: Sequence[Candidate], judge: EndpointJudge, file: Path
) -> dict[str, float]:
    """Grade the last reply of each candidate, or go on where an earlier call stopped.

    Args:
        candidates: dialogues that end with a reply; their ids differ.
        file: journal of the verdicts. A grade in it counts where judge, dialogue, wording and
            sampling are the same; what has none is asked again.

    Returns:
        grades by id, in the order of the candidates; a judgement that was not read is none.

    Raises:
        UserError: a candidate without a reply, an endpoint that refuses or fails again and again, a
            judge that gives no grades, or another process that writes the journal. What was graded
            is kept.
    """
    items = [grade_item(to_reply(candidate)) for candidate in candidates]
    with VerdictJournal(file, "place for the grades") as journal:
        asking = Asking(journal, items, [judge], again=("unreadable", "unanswered"), verb="graded")
        asking.run()
        found = {item.id: journal.find(item, judge.annotator) for item in items}
    grades = {id: one.grade for id, one in found.items() if one and one.grade is not None}
    told = (
        "; those without a grade are not chosen, and the same command asks for them again"
        if len(grades) < len(items)
        else ""
    )
    print(f"{file}: {asking.line()}{told}", flush=True)
    return grades


def to_reply(candidate: Candidate) -> Reply:
    """Return a candidate's last turn as a reply to the turns before it; refuse one without."""
    turns = candidate.turns
    if not turns or len(turns) % 2:
        raise UserError(
            f"candidate {candidate.id} does not end with a reply, so it has no grade; choose the "
            "rows of its source by another selector"
        )
    number, extra = len(turns) // 2 - 1, {"group": candidate.group}
    return Reply(
        candidate.id, turns[:-1], candidate.source, 0, number, turns[-1], stopped=True, extra=extra
    )
