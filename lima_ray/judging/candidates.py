"""Grade candidates for a dataset on LIMA's scale of 1 to 6, for the selector `graded`.

grades = grade_candidates(candidates, "http://localhost:8000/v1", "gpt-4o", Path("grades.jsonl"))

The judge is asked as in `grade` (LIMA section 5, appendix D). Each judgement is a verdict, a line
of a journal, so that a run that was stopped goes on.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lima_ray.config.display import ProgressDisplay
from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling
from lima_ray.curation.candidate import Candidate
from lima_ray.generation.client import Client
from lima_ray.generation.endpoint import Endpoint
from lima_ray.generation.request_pool import request_all
from lima_ray.judging.grade import JUDGE_SAMPLING, SHOWN_CHARACTERS, judge_prompt, parse
from lima_ray.records.files import acquire_lock, explain_write_errors
from lima_ray.records.journal import Journal
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Status, Verdict

MOST_UNREADABLE = 16
"""Judgements without a grade, before the first with one, from which the judge counts as unfit."""


def grade_candidates(
    candidates: Sequence[Candidate],
    endpoint: str,
    model: str,
    journal: Path,
    *,
    sampling: Sampling = JUDGE_SAMPLING,
    **settings: Any,
) -> dict[str, float]:
    """Grade the last reply of each candidate, or go on where an earlier call stopped.

    Args:
        candidates: dialogues that end with a reply; their ids differ.
        endpoint: base URL of the judge's server.
        model: the judge's name there, and the verdicts' annotator.
        journal: file of the verdicts. A grade in it counts where judge, dialogue, wording and
            sampling are the same; what has none is asked again.
        sampling: how the judge decodes; `max_tokens` is the longest judgement.
        settings: other fields of `Endpoint`, such as `concurrency`.

    Returns:
        grades by id, in the order of the candidates; a judgement that was not read is none.

    Raises:
        UserError: a candidate without a reply, an endpoint that refuses or fails again and again, a
            judge that gives no grades, or another process that writes the journal. What was graded
            is kept.
    """
    replies = [to_reply(candidate) for candidate in candidates]
    server = Endpoint(url=endpoint, **settings)
    with explain_write_errors(journal, "place for the grades"):
        busy = f"another process is writing to {journal}; wait for it"
        lock = acquire_lock(journal.with_name(f".{journal.name}.lock"), busy)
        try:
            grading = Grading(replies, model, sampling, journal)
            grading.run(server)
        finally:
            lock.release()
    print(grading.summary(), flush=True)
    return grading.grades


def to_reply(candidate: Candidate) -> Reply:
    """Return a candidate's last turn as a reply to the turns before it; refuse one without."""
    turns = candidate.turns
    if not turns or len(turns) % 2:
        raise UserError(
            f"candidate {candidate.id} does not end with a reply, so it has no grade; choose the "
            "rows of its source by another selector"
        )
    number, extra = len(turns) // 2 - 1, {"group": candidate.group}
    return Reply(candidate.id, turns[:-1], "", 0, number, turns[-1], stopped=True, extra=extra)


class Grading:
    """The replies with their grades, of this run and of earlier ones."""

    def __init__(
        self, replies: Sequence[Reply], model: str, sampling: Sampling, journal: Path
    ) -> None:
        self.replies, self.model, self.sampling = replies, model, sampling
        self.journal = Journal(journal)
        self.journal.repair()
        rows = enumerate(self.journal.records(), start=1)
        verdicts = [Verdict.from_json(row, f"{journal}:{number}") for number, row in rows]
        self.read = {v.extra.get("asked"): v.grade for v in verdicts if v.grade is not None}
        """Grades by what was asked."""
        self.asked = [self.digest(reply) for reply in replies]
        self.counts: Counter[Status] = Counter()
        self.counts["read"] = sum(asked in self.read for asked in self.asked)

    def digest(self, reply: Reply) -> str:
        """Return what tells one question to one judge from another."""
        said = [self.model, self.sampling.model_dump(mode="json"), judge_prompt(reply)]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    @property
    def grades(self) -> dict[str, float]:
        """Grades by id."""
        pairs = zip(self.replies, self.asked, strict=True)
        return {reply.id: self.read[asked] for reply, asked in pairs if asked in self.read}

    def run(self, server: Endpoint) -> None:
        todo = [number for number, asked in enumerate(self.asked) if asked not in self.read]
        if not todo:
            return
        with ProgressDisplay(
            len(self.replies), "grading", completed=self.counts["read"], count=True
        ) as self.display:
            request_all(
                server,
                self.model,
                todo,
                self.request_grade,
                lambda number, error: self.keep(number, "unanswered", None, error),
            )

    async def request_grade(self, client: Client, number: int) -> None:
        question = {"role": "user", "content": judge_prompt(self.replies[number])}
        answer = await client.chat([question], self.sampling)
        # A judgement that was cut off ends anywhere, so its last line says nothing.
        grade, explanation = parse(answer.text) if answer.stopped else (None, answer.text)
        self.keep(number, "unreadable" if grade is None else "read", grade, explanation)
        if not self.counts["read"] and self.counts["unreadable"] >= MOST_UNREADABLE:
            raise UserError(
                f"the judge {self.model!r} at {client.url} gave no number from 1 to 6 on "
                f"its last line in {MOST_UNREADABLE} judgements, the last of which ends with "
                f"{explanation[-SHOWN_CHARACTERS:]!r}; choose a judge that follows the request"
            )

    def keep(self, number: int, status: Status, grade: int | None, explanation: str) -> None:
        """Write a verdict so that it survives a kill, count it and show the counts."""
        reply = self.replies[number]
        verdict = Verdict(
            id=reply.id,
            kind="grade",
            annotator=self.model,
            verdict=grade,
            status=status,
            grade=grade,
            explanation=explanation,
            turn=reply.turn,
            group=reply.extra["group"],
            extra={"asked": self.asked[number]},
        )
        self.journal.append(verdict.to_json())
        self.counts[status] += 1
        if grade is not None:
            self.read[self.asked[number]] = grade
        self.display.update(self.counts.total(), numbers=self.line())
        self.display.log(self.line())

    def line(self) -> str:
        lost = [f"{self.counts[s]} {s}" for s in ("unreadable", "unanswered") if self.counts[s]]
        return ", ".join([f"{self.counts['read']}/{len(self.replies)} graded", *lost])

    def summary(self) -> str:
        """Return the counts, and what becomes of candidates without a grade."""
        missing = len(self.replies) - self.counts["read"]
        told = (
            "; those without a grade are not chosen, and the same command asks for them again"
            if missing
            else ""
        )
        return f"{self.journal.file}: {self.line()}{told}"
