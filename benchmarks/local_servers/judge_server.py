"""A local server that speaks OpenAI's protocol and judges in a known way, with known faults.

    with serving(JudgeServer(decide=always_a)) as server:
        ...    # python -m lima_ray.judge ... --judges judge@{server.url}

It reads the answers out of the prompt as a model would, reasons, and ends with its verdict.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.local_servers.chat_server import DROP, ChatServer, Response, refused

Decide = Callable[[str, str], str]
"""A verdict on the answers A and B; of a single reply both are the whole conversation."""


def always_a(a: str, b: str) -> str:
    return "A"


def longer(a: str, b: str) -> str:
    return "A" if len(a) > len(b) else "B" if len(b) > len(a) else "neither"


def honest(a: str, b: str) -> str:
    """Prefer the answer that says `good` more often, whatever stands first and is longer."""
    first, second = a.count("good"), b.count("good")
    return "A" if first > second else "B" if second > first else "neither"


@dataclass
class JudgeServer(ChatServer):
    """Judgements by `decide`, and at some requests, counted from 0, a fault instead."""

    decide: Decide = honest
    faults: dict[int, str] = field(default_factory=dict)
    """`429`, `500`, `drop`, `garbage`, `cut`, `off menu`, `hang` or `contradiction`."""
    drifts_at: int = 10**9
    """Request from which another snapshot of the model answers."""
    usage: bool = True
    counts: int | None = None
    """Tokens that it tells of every prompt and answer; none counts them."""
    answered: Counter[str] = field(default_factory=Counter)
    """How often each prompt got a usable answer."""
    number: int = 0

    def answer(self, body: dict[str, Any]) -> Response:
        with self.lock:
            number, self.number = self.number, self.number + 1
        prompt = body["messages"][-1]["content"]
        fault = self.faults.get(number, "")
        time.sleep(self.seconds)
        if fault == "429":
            return refused(429, "slow down", Retry_After="1")
        if fault == "500":
            return refused(500)
        if fault == "hang":
            self.closing.wait()
            return DROP
        if fault == "drop":
            return DROP
        if fault == "garbage":
            return 200, {}, b"<html><script>alert(1)</script></html>"
        with self.lock:
            self.answered[prompt] += 1
        verdict = self.decide(*answers(prompt))
        said = f"Both were read. The better one is clear.\n{verdict}"
        if fault == "off menu":
            said = "I would rather not say."
        if fault == "contradiction":
            said = f"So answer {'B' if verdict == 'A' else 'A'} is better.\n{verdict}"
        return self.completion(said, prompt, number, "length" if fault == "cut" else "stop")

    def completion(self, said: str, prompt: str, number: int, finish: str) -> Response:
        choice = {"message": {"role": "assistant", "content": said}, "finish_reason": finish}
        fingerprint = "fp_new" if number >= self.drifts_at else "fp_old"
        told: dict[str, Any] = {"model": "judge-2026-11-01", "system_fingerprint": fingerprint}
        if self.usage:
            tokens = {"prompt_tokens": len(prompt) // 3, "completion_tokens": 20}
            if self.counts is not None:
                tokens = dict.fromkeys(tokens, self.counts)
            told |= {"usage": tokens}
        return 200, {}, json.dumps({"choices": [choice]} | told).encode()


def answers(prompt: str) -> tuple[str, str]:
    found = re.findall(r"<answer_([AB])>\n(.*?)\n</answer_\1>", prompt, re.S)
    if len(found) == 2:
        return found[0][1], found[1][1]
    conversation = re.findall(r"<conversation>\n(.*?)\n</conversation>", prompt, re.S)[-1]
    return conversation, conversation
