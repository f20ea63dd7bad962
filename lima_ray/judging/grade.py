"""Grade replies for helpfulness on LIMA's scale of 1 to 6, by a model behind an endpoint.

    verdicts = grade(replies, EndpointJudge(model="gpt-4o", url="http://localhost:8000/v1"))

The judge reasons first and then prints the number alone on the last line (LIMA section 5, appendix
D); the wording is in `prompts/grade.txt`. What is no such number is `unreadable`: counted, never
scored.
"""

from collections.abc import Sequence

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Select
from lima_ray.generation.client import Client
from lima_ray.generation.request_pool import request_all
from lima_ray.judging.asking.judges import JUDGE_SAMPLING, EndpointJudge, ask, unanswered
from lima_ray.judging.questions.item import Item
from lima_ray.judging.registry import Judge
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Verdict

TRIAL_ATTEMPTS = 3
TRIAL_TIMEOUT_S = 120.0
"""How long a judge may take with a small reply; it may have to load its model first."""
SHOWN_CHARACTERS = 200


def grade(replies: Sequence[Reply], judge: EndpointJudge) -> list[Verdict]:
    """Return a verdict of kind `grade` on each reply, in the order of the replies.

    Args:
        replies: of a dialogue the turn in `reply` is graded, and the turns before it are shown.

    Raises:
        UserError: the endpoint refuses, or fails again and again.
    """
    items = [grade_item(reply) for reply in replies]
    verdicts: dict[int, Verdict] = {}

    async def request_grade(client: Client, number: int) -> None:
        verdicts[number] = await ask(client, judge, items[number])

    def failed(number: int, error: str) -> None:
        verdicts[number] = unanswered(judge, items[number], error)

    request_all(judge.endpoint, judge.model, range(len(items)), request_grade, failed)
    return [verdicts[number] for number in range(len(items))]


def grade_item(reply: Reply) -> Item:
    return Item("grade", (reply.model,), ((reply,),))


def check_answers(endpoint: str, model: str) -> None:
    """Have the judge grade one small reply, so that one that cannot is refused beforehand."""
    prompt, text = ("What is the capital of France?",), "The capital of France is Paris."
    reply = Reply("try-out", prompt, model="", sample=0, turn=0, reply=text, stopped=True)
    judge = EndpointJudge(
        model=model, url=endpoint, retries=TRIAL_ATTEMPTS - 1, timeout_s=TRIAL_TIMEOUT_S
    )
    (verdict,) = grade([reply], judge)
    answer = verdict.explanation
    if verdict.status == "unanswered":
        raise UserError(
            f"the judge {model!r} at {endpoint} was asked {TRIAL_ATTEMPTS} times and gave no "
            f"answer: {answer}; start it, or mend --select.endpoint and --select.endpoint_model"
        )
    if verdict.status == "unreadable":
        raise UserError(
            f"the judge {model!r} at {endpoint} was asked to grade a small reply and answered "
            f"without a number from 1 to 6 on its last line ({len(answer)} characters, ending with "
            f"{answer[-SHOWN_CHARACTERS:]!r}); a judge needs a model that follows such a request "
            f"within {JUDGE_SAMPLING.max_new_tokens} tokens"
        )


def judge(replies: list[Reply], select: Select) -> list[Verdict]:
    return grade(replies, EndpointJudge(model=select.endpoint_model, url=select.endpoint))


JUDGE = Judge(judge, lambda _: None, check_answers)
