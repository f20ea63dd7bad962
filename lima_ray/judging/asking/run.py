"""Several judges asked at once, each verdict kept as it comes; a stopped run goes on.

asking = Asking(journal, items, judges)
asking.run(workers=0)
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial

from lima_ray.config.display import ProgressDisplay
from lima_ray.config.errors import UserError
from lima_ray.generation.client import Client
from lima_ray.generation.request_pool import request_concurrently
from lima_ray.judging.asking.budget import spent_usd
from lima_ray.judging.asking.cluster import ask_on_cluster
from lima_ray.judging.asking.judges import EndpointJudge, ask, unanswered
from lima_ray.judging.asking.verdict_journal import VerdictJournal
from lima_ray.judging.questions.item import Item
from lima_ray.records.verdict import Status, Verdict
from lima_ray.results.units import counted

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
        own_weights: Collection[str] = (),
        verb: str = "judged",
    ) -> None:
        """Find what is open.

        Args:
            again: statuses of verdicts whose question is asked again.
            own_weights: hashes of the judged models' weights; a judge that turns out to be one of
                them is stopped.
            verb: what the progress says of a question that is answered.
        """
        self.journal, self.judges, self.verb = journal, judges, verb
        self.own_weights = frozenset(own_weights)
        self.limit_usd: float | None = None
        """Where the answers of this run have cost more, no judge is asked further."""
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
        self.spent_usd = 0.0
        self.problems: dict[str, str] = {}
        """Why a judge is asked no further."""

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
                open_ = {judge.annotator.name: self._open(judge) for judge in self.judges}
                ask_on_cluster(self.judges, open_, workers, self.keep, self._give_up)
            else:
                asyncio.run(self._ask_here())
        if self.problems:
            raise UserError("\n  ".join(dict.fromkeys(self.problems.values())))

    async def _ask_here(self) -> None:
        await asyncio.gather(*(self._ask_judge(judge) for judge in self.judges))

    async def _ask_judge(self, judge: EndpointJudge) -> None:
        async def handle(client: Client, item: Item) -> None:
            self.keep(judge, await ask(client, judge, item))

        name = judge.annotator.name
        try:
            if self.todo[name]:
                await request_concurrently(
                    judge.endpoint,
                    judge.model,
                    self._open(judge),
                    handle,
                    partial(self._fail, judge),
                )
        except UserError as error:
            self._give_up(judge, str(error))

    def _open(self, judge: EndpointJudge) -> Iterator[Item]:
        """Yield a judge's questions until it is to be asked no further.

        Those on their way are waited for: they are paid for.
        """
        for item in self.todo[judge.annotator.name]:
            if judge.annotator.name in self.problems:
                return
            yield item

    def _fail(self, judge: EndpointJudge, item: Item, error: str) -> None:
        self.keep(judge, unanswered(judge, item, error))

    def _give_up(self, judge: EndpointJudge, problem: str) -> None:
        self.problems.setdefault(judge.annotator.name, problem)

    def keep(self, judge: EndpointJudge, verdict: Verdict) -> None:
        """Write a verdict down, show the counts, and see whether to go on."""
        self.journal.add(verdict)
        self.kept.append(verdict)
        self.counts[verdict.status] += 1
        self.spent_usd += spent_usd(judge, verdict)
        self.display.update(self.counts.total(), numbers=self.line())
        self.display.log(self.line())
        self._check_fit(judge, verdict)
        if self.own_weights & set(str(verdict.extra.get("snapshot", "")).split()):
            self.problems[verdict.annotator] = (
                f"the judge {verdict.annotator} at {judge.url} turns out to be a model it judges "
                "(its server tells the hash of the same weights); --allow_self allows it"
            )
        if self.limit_usd is not None and self.spent_usd > self.limit_usd:
            told = (
                f"the answers have cost more than limit_usd ${self.limit_usd:,.2f}; they are kept, "
                "and the same command with a higher --limit_usd goes on there"
            )
            self.problems |= {one.annotator.name: told for one in self.judges}

    def _check_fit(self, judge: EndpointJudge, verdict: Verdict) -> None:
        name = verdict.annotator
        if verdict.was_read:
            self.fit.add(name)
        self.unreadable[name] += verdict.status == "unreadable"
        if name not in self.fit and self.unreadable[name] == MOST_UNREADABLE:
            self.problems[name] = (
                f"the judge {name!r} at {judge.url} gave no verdict on its last line in "
                f"{MOST_UNREADABLE} judgements, the last of which ends with "
                f"{verdict.explanation[-SHOWN_CHARACTERS:]!r}; choose a judge that follows the "
                "request"
            )

    def describe_unanswered(self) -> list[str]:
        """Return, of each judge that did not answer all of this run, how often and why not."""
        lost = [verdict for verdict in self.kept if verdict.status == "unanswered"]
        last = {verdict.annotator: verdict.explanation for verdict in lost}
        counts = Counter(verdict.annotator for verdict in lost)
        return [
            f"{name}: {counted(counts[name], 'question')} got no answer, the last one because: "
            f"{why}; the same command asks again"
            for name, why in last.items()
        ]

    def line(self) -> str:
        lost = [f"{self.counts[s]} {s}" for s in ("unreadable", "unanswered") if self.counts[s]]
        return ", ".join([f"{self.counts['read']}/{self.total} {self.verb}", *lost])
