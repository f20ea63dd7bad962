"""Have a model behind an endpoint judge replies: by a grade, or against a reference's replies.

    verdicts = judge(replies, recipe.select, out / "judgements.jsonl")

Of each reply it gives a grade of 1 to 6 (LIMA section 5, appendix D), or, where `select.reference`
names replies, says in both orders which of the two is better (section 4). The questions and the
journal are those of `lima_ray.judge`: what was answered is asked and paid for once.
"""

from collections.abc import Sequence
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Metric, Select
from lima_ray.generation.client import Client
from lima_ray.generation.request_pool import request_all
from lima_ray.judging.asking.judges import (
    JUDGE_SAMPLING,
    EndpointJudge,
    ask,
    selecting_judge,
    unanswered,
)
from lima_ray.judging.asking.reference import pair, read_reference
from lima_ray.judging.asking.run import Asking
from lima_ray.judging.asking.verdict_journal import VerdictJournal
from lima_ray.judging.questions.item import Item
from lima_ray.judging.registry import Judge
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict

TRIAL_ATTEMPTS = 3
TRIAL_TIMEOUT_S = 120.0
"""How long a judge may take with a small reply; it may have to load its model first."""
SHOWN_CHARACTERS = 200
TRIALS = {
    "grade": ("to grade a small reply", "a number from 1 to 6"),
    "win_rate": ("to compare two small replies", "A, B or neither"),
}
"""What a judge is asked beforehand, and what it must answer, by `Select.metric`."""


def judge(replies: list[Reply], select: Select, file: Path) -> list[Verdict]:
    """Return the verdicts on replies, in their order: a grade each, or one of each order."""
    return judge_items(questions(replies, select), selecting_judge(select), file)


def questions(replies: Sequence[Reply], select: Select) -> list[Item]:
    """Return what is asked about replies: a grade each, or which is better in both orders."""
    if select.reference:
        return pair(replies, read_reference(select.reference, replies))
    return [grade_item(reply) for reply in replies]


def judge_items(items: Sequence[Item], judge: EndpointJudge, file: Path) -> list[Verdict]:
    """Ask what a journal does not hold yet, and return the verdicts in the order of the items.

    Raises:
        UserError: the endpoint refuses, or fails again and again; what was answered is kept.
    """
    with VerdictJournal(file, "directory of the replies") as journal:
        Asking(journal, items, [judge]).run()
        found = [journal.find(item, judge.annotator) for item in items]
    return [verdict for verdict in found if verdict]


def grade_item(reply: Reply) -> Item:
    """Return the question for a reply's grade; of a dialogue the turns before it are shown."""
    return Item("grade", (reply.model,), ((reply,),))


def check_answers(endpoint: str, model: str, metric: Metric) -> None:
    """Have the judge try one small question, so that one that cannot is refused beforehand."""
    judge = EndpointJudge(
        model=model, url=endpoint, retries=TRIAL_ATTEMPTS - 1, timeout_s=TRIAL_TIMEOUT_S
    )
    found: list[Verdict] = []

    async def handle(client: Client, item: Item) -> None:
        found.append(await ask(client, judge, item))

    def failed(item: Item, error: str) -> None:
        found.append(unanswered(judge, item, error))

    request_all(judge.endpoint, judge.model, [trial_item(metric)], handle, failed)
    (verdict,) = found
    answer, (asked, expected) = verdict.explanation, TRIALS[metric]
    if verdict.status == "unanswered":
        raise UserError(
            f"the judge {model!r} at {endpoint} was asked {TRIAL_ATTEMPTS} times and gave no "
            f"answer: {answer}; start it, or mend --select.endpoint and --select.endpoint_model"
        )
    if verdict.status == "unreadable":
        raise UserError(
            f"the judge {model!r} at {endpoint} was asked {asked} and answered "
            f"without {expected} on its last line ({len(answer)} characters, ending with "
            f"{answer[-SHOWN_CHARACTERS:]!r}); a judge needs a model that follows such a request "
            f"within {JUDGE_SAMPLING.max_new_tokens} tokens"
        )


def trial_item(metric: Metric) -> Item:
    texts = "The capital of France is Paris.", "It is a large city."
    prompt = ("What is the capital of France?",)
    first, second = (
        Reply("try-out", prompt, model="", sample=0, turn=0, reply=text, stopped=True)
        for text in texts
    )
    return grade_item(first) if metric == "grade" else pair([first], [second])[0]


JUDGE = Judge(judge, lambda _: None, check_answers)
