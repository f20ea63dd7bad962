"""Grade replies for helpfulness on LIMA's scale of 1 to 6, by a model behind an endpoint.

    verdicts = grade(replies, "http://localhost:8000/v1", "gpt-4o")

The judge reasons first and then prints the number alone on the last line (LIMA section 5, appendix
D); the wording is in `prompts/grade.txt`. What is no such number is `unreadable`: counted, never
scored.
"""

from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling, Select
from lima_ray.generation.client import Client
from lima_ray.generation.endpoint import Endpoint
from lima_ray.generation.request_pool import request_all
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.reading import read_judgement
from lima_ray.judging.questions.wording import load_wording
from lima_ray.judging.registry import Judge
from lima_ray.records.reply import Reply
from lima_ray.records.verdict import Status, Verdict

JUDGE_SAMPLING = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_new_tokens=1024)
TRIAL_ATTEMPTS = 3
TRIAL_TIMEOUT_S = 120.0
"""How long a judge may take with a small reply; it may have to load its model first."""
SHOWN_CHARACTERS = 200


def grade(
    replies: list[Reply],
    endpoint: str,
    model: str,
    *,
    sampling: Sampling = JUDGE_SAMPLING,
    **settings: Any,
) -> list[Verdict]:
    """Return a verdict of kind `grade` on each reply, in the order of the replies.

    Args:
        replies: of a dialogue the turn in `reply` is graded, and the turns before it are shown.
        model: the judge's name there, and the verdicts' annotator.
        sampling: how the judge decodes; `max_new_tokens` is the longest judgement.
        settings: other fields of `Endpoint`, such as `concurrency`.

    Raises:
        UserError: the endpoint refuses, or fails again and again.
    """
    verdicts: dict[int, Verdict] = {}

    def judge(number: int, grade: int | None, explanation: str, status: Status) -> None:
        reply = replies[number]
        verdicts[number] = Verdict(
            id=reply.id,
            kind="grade",
            annotator=model,
            verdict=grade,
            status=status,
            models=(reply.model,),
            grade=grade,
            explanation=explanation,
            sample=reply.sample,
            turn=reply.turn,
            stopped=reply.stopped,
            group=reply.extra.get("group", ""),
        )

    async def request_grade(client: Client, number: int) -> None:
        answer = await client.chat(
            [{"role": "user", "content": judge_prompt(replies[number])}], sampling
        )
        # A judgement that was cut off ends anywhere, so its last line says nothing.
        grade, explanation = parse(answer.text) if answer.stopped else (None, answer.text)
        judge(number, grade, explanation, "unreadable" if grade is None else "read")

    def failed(number: int, error: str) -> None:
        judge(number, None, error, "unanswered")

    server = Endpoint(url=endpoint, **settings)
    request_all(server, model, range(len(replies)), request_grade, failed)
    return [verdicts[number] for number in range(len(replies))]


def check_answers(endpoint: str, model: str) -> None:
    """Have the judge grade one small reply, so that one that cannot is refused beforehand."""
    prompt, text = ("What is the capital of France?",), "The capital of France is Paris."
    reply = Reply("try-out", prompt, model="", sample=0, turn=0, reply=text, stopped=True)
    (verdict,) = grade(
        [reply], endpoint, model, retries=TRIAL_ATTEMPTS - 1, timeout_s=TRIAL_TIMEOUT_S
    )
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


def judge_prompt(reply: Reply) -> str:
    """Return what the judge is asked: the scale, and the dialogue with the reply at its end."""
    return load_wording("grade").prompt(Item("grade", (reply.model,), ((reply,),)))


def parse(text: str) -> tuple[int | None, str]:
    """Return the grade on the last line and the reasoning before it; else none and all of it."""
    found, reasoning = read_judgement(load_wording("grade"), text)
    return (found if isinstance(found, int) else None), reasoning


def judge(replies: list[Reply], select: Select) -> list[Verdict]:
    return grade(replies, select.endpoint, select.endpoint_model)


JUDGE = Judge(judge, lambda _: None, check_answers)
