"""The engine on a GPU: run with `CUDA_VISIBLE_DEVICES=0 pytest -m gpu`."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import dialogues
from transformers import AutoModelForCausalLM

from lima_ray.config.sections import Sampling
from lima_ray.engine.cuda_graphs import CudaGraphForward
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Request

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
GREEDY = Sampling(temperature=0, repetition_penalty=1)


def requests(engine: Engine, sampling: Sampling) -> list[Request]:
    """Ragged prompts, some longer than a chunk, and replies of up to eighty tokens."""
    found = []
    for number, example in enumerate(dialogues(24, seed=3, longest=90)):
        ids = engine.prompt(example.turns[:-1])[-700:]
        bounded = sampling.model_copy(update={"max_new_tokens": 10 + 3 * number})
        found.append(Request(str(number), ids, bounded))
    return found


def answer(engine: Engine, sampling: Sampling) -> dict[str, list[int]]:
    return {r.id: r.ids for r in engine.generate(requests(engine, sampling))}


def forward_of(engine: Engine) -> CudaGraphForward:
    assert isinstance(engine.forward, CudaGraphForward)
    return engine.forward


@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_replies_in_fp32_are_those_of_transformers(base_dir: Path, penalty: float) -> None:
    engine = Engine(base_dir, slots=8)
    engine.model.float()
    sampling = GREEDY.model_copy(update={"repetition_penalty": penalty, "penalise_prompt": True})
    loader: Any = AutoModelForCausalLM
    plain = loader.from_pretrained(base_dir, dtype=torch.float32).cuda()
    replies = answer(engine, sampling)
    assert forward_of(engine).recorded
    for request in requests(engine, sampling):
        out = plain.generate(
            torch.tensor([request.ids], device="cuda"),
            attention_mask=torch.ones(1, len(request.ids), device="cuda"),
            do_sample=False,
            max_new_tokens=request.sampling.max_new_tokens,
            repetition_penalty=penalty,
            pad_token_id=0,
        )
        assert replies[request.id] == out[0, len(request.ids) :].tolist()


def test_recorded_and_launched_one_by_one_are_the_same(base_dir: Path) -> None:
    recorded, launched = Engine(base_dir, slots=8), Engine(base_dir, slots=8)
    forward_of(launched).recording = False
    sampling = Sampling(seed=7)
    assert answer(recorded, sampling) == answer(launched, sampling)
    assert forward_of(recorded).recorded and not forward_of(launched).recorded


def test_engines_record_on_threads_of_their_own(base_dir: Path) -> None:
    alone = answer(Engine(base_dir, slots=8), GREEDY)
    said: dict[int, dict[str, list[int]]] = {}

    def work(number: int) -> None:
        said[number] = answer(Engine(base_dir, slots=8), GREEDY)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [said.get(number) == alone for number in range(3)] == [True] * 3


def test_a_model_that_waits_for_the_gpu_is_launched_kernel_by_kernel(
    base_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Waiting(torch.nn.Module):
        """A head that asks the GPU for a number."""

        def __init__(self, head: torch.nn.Module) -> None:
            super().__init__()
            self.head = head

        def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
            assert float(x_BTD.sum()) == float(x_BTD.sum())
            return self.head(x_BTD)

    plain, waiting = Engine(base_dir, slots=8), Engine(base_dir, slots=8)
    waiting.model.lm_head = Waiting(waiting.model.lm_head)
    assert answer(waiting, GREEDY) == answer(plain, GREEDY)
    assert "kernel by kernel" in caplog.text
    torch.rand(3, device="cuda")
