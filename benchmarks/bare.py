"""The workload of `benchmarks/load.py` without a server: our engine, or plain `generate`.

    python -m benchmarks.bare engine DIR warm.json --asks asks.json --concurrency 16

`engine` submits and steps as a server does; `generate` is the model's own, one request after
another. Greedy, in this process; in fp32, but for the engine on a GPU.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer

from benchmarks.load import Answer, Ask, load, measures
from lima_ray.config.sections import Sampling
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Request


def main(
    way: tyro.conf.Positional[Literal["engine", "generate"]],
    model: tyro.conf.Positional[Path],
    warm: tyro.conf.Positional[Path],
    asks: tuple[Path, ...],
    concurrency: tuple[int, ...],
) -> None:
    """Print `ready`, then run a workload for each line of stdin and print its figures as JSON.

    Args:
        way: what answers.
        model: directory of the model.
        warm: file with a workload that is not measured.
        asks: files with workloads.
        concurrency: requests in flight at once, for each of them.
    """
    answer = engine_of(Engine(model)) if way == "engine" else generate_of(model)
    rows = load(warm)
    answer(rows, len(rows))
    print("ready", flush=True)
    for file, at_once in zip(asks, concurrency, strict=True):
        sys.stdin.readline()
        rows, before_s = load(file), time.process_time()
        answers = answer(rows, at_once)
        figures = measures(rows, answers) | {"cpu_s": time.process_time() - before_s}
        print(json.dumps(figures), flush=True)


def engine_of(engine: Engine) -> Any:
    """Our engine, in a closed loop of so many clients."""

    def answer(asks: list[Ask], concurrency: int) -> list[Answer]:
        answers: dict[str, Answer] = {}
        left = iter(enumerate(asks))
        while len(answers) < len(asks) or engine.in_flight:
            while engine.in_flight < concurrency and (entry := next(left, None)):
                number, ask = entry
                answers[str(number)] = Answer(sent_s=time.perf_counter())
                ids = engine.tokenizer(ask.prompt).input_ids
                limit = ask.max_new_tokens
                sampling = Sampling(temperature=0, repetition_penalty=1, max_new_tokens=limit)
                engine.submit(Request(str(number), ids, sampling))
            for event in engine.step():
                now_s = time.perf_counter()
                answers[event.id].text_s.append(now_s)
                if event.reply:
                    finish(answers[event.id], now_s, event.reply.text, event.reply.n_tokens)
        return [answers[str(number)] for number in range(len(asks))]

    return answer


def generate_of(model: Path) -> Any:
    """`generate` of `transformers`, one by one."""
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, trust_remote_code=False
    )

    def answer(asks: list[Ask], concurrency: int) -> list[Answer]:
        answers = []
        start_s = time.perf_counter()
        for number, ask in enumerate(asks):
            # Those beyond the first `concurrency` are sent when one before them is answered.
            sent_s = start_s if number < concurrency else answers[number - concurrency].ended_s
            clock = Clock()
            ids_1T = tokenizer(ask.prompt, return_tensors="pt").input_ids
            out_1T = loaded.generate(
                ids_1T,
                attention_mask=torch.ones_like(ids_1T),
                max_new_tokens=ask.max_new_tokens,
                do_sample=False,
                streamer=clock,
                pad_token_id=0,
            )
            reply = out_1T[0, ids_1T.shape[1] :].tolist()
            answers.append(Answer(sent_s=sent_s, text_s=clock.times_s[1:]))
            text = tokenizer.decode(reply, skip_special_tokens=True)
            finish(answers[-1], time.perf_counter(), text, len(reply))
        return answers

    return answer


class Clock(BaseStreamer):
    """Notes when tokens come; the first note is the prompt's."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """A token was made."""
        self.times_s.append(time.perf_counter())

    def end(self) -> None:
        """The reply is whole."""


def finish(answer: Answer, now_s: float, text: str, n_tokens: int) -> None:
    answer.ended_s, answer.text, answer.n_tokens = now_s, text, n_tokens


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.bare", description=__doc__, use_underscores=True)
