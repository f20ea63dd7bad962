"""Grade replies for helpfulness on LIMA's scale of 1 to 6, by a model behind an endpoint.

    verdicts = grade(replies, "http://localhost:8000/v1", "gpt-4o")

The judge reasons first and then prints the number alone on the last line (LIMA section 5, appendix
D); the wording is in `prompts/grade.txt`. What is no such number is `"invalid"`: counted, never
scored.
"""

import re
from string import Template
from typing import Any

from lima_ray.config import PACKAGE, Sampling
from lima_ray.endpoint import Client, Endpoint, ask

WORDING = PACKAGE / "prompts" / "grade.txt"
JUDGING = Sampling(temperature=0, top_p=1, repetition_penalty=1, max_tokens=1024)
NO_ANSWER = "no answer"
"""How the explanation begins where the judge could not be asked."""
LEVEL = re.compile(r"[\s*_#`.\"'()\[\]]*([1-6])[\s*_#`.\"'()\[\]]*")
"""The last line, which may be dressed up (`**4**`) but holds nothing else."""


def grade(
    replies: list[dict[str, Any]],
    endpoint: str,
    model: str,
    *,
    sampling: Sampling = JUDGING,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A verdict of kind `grade` on each reply, in the order of the replies.

    Args:
        replies: records of `replies.jsonl`; of a dialogue the turn in `reply` is graded, and the
            turns before it are shown.
        endpoint: base URL of the judge's server.
        model: the judge's name there, and the verdicts' annotator.
        sampling: how the judge decodes; `max_tokens` is the longest judgement.
        settings: other fields of `Endpoint`, such as `concurrency`.

    Raises:
        UserError: the endpoint refuses, or fails again and again.
    """
    verdicts: dict[int, dict[str, Any]] = {}

    def judge(number: int, verdict: int | str, explanation: str) -> None:
        reply = replies[number]
        record = {"id": reply["id"], "kind": "grade", "annotator": model}
        record |= {"models": [reply["model"]], "sample": reply["sample"], "turn": reply["turn"]}
        record |= {"stopped": reply["stopped"]}
        record |= {"group": reply["group"]} if "group" in reply else {}
        verdicts[number] = record | {"verdict": verdict, "explanation": explanation}

    async def talk(client: Client, number: int) -> None:
        answer = await client.chat(
            [{"role": "user", "content": question(replies[number])}], sampling
        )
        # A judgement that was cut off ends anywhere, so its last line says nothing.
        judge(number, *(parse(answer.text) if answer.stopped else ("invalid", answer.text)))

    def failed(number: int, error: str) -> None:
        judge(number, "invalid", f"{NO_ANSWER}: {error}")

    server = Endpoint(url=endpoint, **settings)
    ask(server, model, range(len(replies)), talk, failed)
    return [verdicts[number] for number in range(len(replies))]


def question(reply: dict[str, Any]) -> str:
    """What the judge is asked: the scale, and the dialogue with the reply at its end."""
    turns = [*reply["conversations"], reply["reply"]]
    speakers = ("User", "Assistant")
    said = [f"{speakers[number % 2]}: {turn}" for number, turn in enumerate(turns)]
    said = [f"System: {reply['system']}", *said] if reply.get("system") else said
    return Template(WORDING.read_text(encoding="utf-8")).substitute(dialogue="\n\n".join(said))


def parse(text: str) -> tuple[int | str, str]:
    """The grade on the last line, or "invalid", and the reasoning before it."""
    reasoning, _, last = text.rstrip().rpartition("\n")
    level = LEVEL.fullmatch(last)
    return (int(level[1]), reasoning.strip()) if level else ("invalid", text)
