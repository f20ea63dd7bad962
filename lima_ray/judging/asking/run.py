"""Several judges asked at once, each verdict kept as it comes; a stopped run goes on.

asking = Asking(journal, items, judges)
asking.run(workers=0)
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial

from lima_ray.config.display import ProgressDisplay
from lima_ray.config.errors import UserError
from lima_ray.generation.client import Client
from lima_ray.generation.request_pool import request_concurrently
from lima_ray.judging.asking.budget import usage_of
from lima_ray.judging.asking.cluster import ask_on_cluster
from lima_ray.judging.asking.judges import EndpointJudge, ask, unanswered
from lima_ray.judging.asking.verdict_journal import VerdictJournal
from lima_ray.judging.questions.item import Item
from lima_ray.records.verdict import Status, Verdict

MOST_UNREADABLE = 16
"""Judgements without a verdict, before the first with one, from which a judge counts as unfit."""
SHOWN_CHARACTERS = 200
ASKED_AGAIN: tuple[Status, ...] = ("unanswered",)
"""Verdicts whose question is asked again: an unreadable answer is paid for, and came."""


class Asking:
    """The open questions of a study's judges, and what became of them."""

    def __init__(
        self,
        journal: VerdictJournal,
        items: Sequence[Item],
        judges: Sequence[EndpointJudge],
        *,
        again: tuple[Status, ...] = ASKED_AGAIN,
        limit_usd: float | None = None,
        own_weights: Collection[str] = (),
        verb: str = "judged",
    ) -> None:
        """Find what is open.

        Args:
            again: statuses of verdicts whose question is asked again.
            limit_usd: stop where the answers of this run have cost more; none goes on.
            own_weights: hashes of the judged models' weights; a judge that turns out to be one of
                them is stopped.
            verb: what the progress says of a question that is answered.
        """
        self.journal, self.judges, self.verb = journal, judges, verb
        self.limit_usd, self.own_weights = limit_usd, frozenset(own_weights)
        self.todo = {
            judge.annotator.name: journal.open_questions(items, judge.annotator, again)
            for judge in judges
        }
        self.total = len(items) * len(judges)
        self.counts: Counter[str] = Counter(read=self.total - sum(map(len, self.todo.values())))
        self.kept: list[Verdict] = []
        """Verdicts of this run."""
        self.fit = {v.annotator for v in journal.verdicts if v.was_read}
        self.unreadable: Counter[str] = Counter()

    def run(self, workers: int = 0) -> None:
        """Ask all that is open, by Ray actors if there are to be `workers`.

        Raises:
            UserError: an endpoint that refuses or is down, an unfit judge, money spent above the
                limit. What was answered is kept, and other judges finish first.
        """
        if not any(self.todo.values()):
            return
        with ProgressDisplay(
            self.total, "judging", completed=self.counts["read"], count=True
        ) as self.display:
            if workers:
                questions = [(j, i) for j in self.judges for i in self.todo[j.annotator.name]]
                ask_on_cluster(questions, workers, self.keep)
            else:
                asyncio.run(self._ask_here())

    async def _ask_here(self) -> None:
        results = await asyncio.gather(
            *(self._ask_judge(judge) for judge in self.judges), return_exceptions=True
        )
        if errors := [error for error in results if isinstance(error, BaseException)]:
            raise errors[0]

    async def _ask_judge(self, judge: EndpointJudge) -> None:
        async def handle(client: Client, item: Item) -> None:
            self.keep(judge, await ask(client, judge, item))

        todo = self.todo[judge.annotator.name]
        if todo:
            await request_concurrently(
                judge.endpoint, judge.model, todo, handle, partial(self._fail, judge)
            )

    def _fail(self, judge: EndpointJudge, item: Item, error: str) -> None:
        self.keep(judge, unanswered(judge, item, error))

    def keep(self, judge: EndpointJudge, verdict: Verdict) -> None:
        """Write a verdict down, show the counts, and stop what makes no sense to go on with."""
        self.journal.add(verdict)
        self.kept.append(verdict)
        self.counts[verdict.status] += 1
        self.display.update(self.counts.total(), numbers=self.line())
        self.display.log(self.line())
        self._check_fit(judge, verdict)
        if self.own_weights & set(str(verdict.extra.get("snapshot", "")).split()):
            raise UserError(
                f"the judge {verdict.annotator} at {judge.url} turns out to be a model it judges "
                "(its server tells the hash of the same weights); --allow_self allows it"
            )
        if self.limit_usd is not None and (spent := self.spent_usd()) > self.limit_usd:
            raise UserError(
                f"${spent:,.2f} are spent, more than limit_usd ${self.limit_usd:,.2f}; what was "
                "answered is kept, and the same command with a higher --limit_usd goes on there"
            )

    def _check_fit(self, judge: EndpointJudge, verdict: Verdict) -> None:
        name = verdict.annotator
        if verdict.was_read:
            self.fit.add(name)
        self.unreadable[name] += verdict.status == "unreadable"
        if name not in self.fit and self.unreadable[name] >= MOST_UNREADABLE:
            raise UserError(
                f"the judge {name!r} at {judge.url} gave no verdict on its last line in "
                f"{MOST_UNREADABLE} judgements, the last of which ends with "
                f"{verdict.explanation[-SHOWN_CHARACTERS:]!r}; choose a judge that follows the "
                "request"
            )

    def spent_usd(self) -> float:
        """Return what the answers of this run have cost, by the prices that are given."""
        used = [(judge, usage_of(judge, self.kept)) for judge in self.judges]
        return sum(j.cost(u.input_tokens, u.output_tokens) or 0 for j, u in used)

    def line(self) -> str:
        lost = [f"{self.counts[s]} {s}" for s in ("unreadable", "unanswered") if self.counts[s]]
        return ", ".join([f"{self.counts['read']}/{self.total} {self.verb}", *lost])
