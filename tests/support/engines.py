"""Requests of tiny engines, and what transformers replies to them."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
)

from lima_ray.config.sections import Sampling
from lima_ray.engine.cpu.forward import CpuForward
from lima_ray.engine.engine import Engine
from lima_ray.engine.loading import SLOT_ATTENTION, slot_attention
from lima_ray.engine.requests import CompletionOutput, Event, Request
from lima_ray.model.attention import register_attention

GREEDY = Sampling(temperature=0, repetition_penalty=1)
VOCAB = 320
CHUNK = CpuForward.chunk


def prompts(count: int, longest: int = 30, seed: int = 0) -> list[list[int]]:
    """Random token ids; the first prompt is one token long."""
    generator = torch.Generator().manual_seed(seed)
    some_ids = partial(torch.randint, 3, VOCAB, generator=generator)
    sizes = torch.randint(2, longest, (count,), generator=generator).tolist()
    return [some_ids((size,)).tolist() for size in [1, *sizes[1:]]]


def plain(model_dir: Path) -> Any:
    """The model as transformers loads it, in fp32."""
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)


def in_slots(model_dir: Path) -> Any:
    """The same with attention in slots, as an engine on a GPU has it."""
    register_attention(SLOT_ATTENTION, slot_attention)
    loader: Any = AutoModelForCausalLM
    return loader.from_pretrained(
        model_dir, dtype=torch.float32, attn_implementation=SLOT_ATTENTION
    )


def hub_greedy(model: Any, ids: list[int], longest: int, penalty: float) -> list[int]:
    """The reply of `generate` in transformers."""
    out = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids)),
        do_sample=False,
        max_length=longest,
        repetition_penalty=penalty,
        pad_token_id=0,
    )
    return out[0, len(ids) :].tolist()


def answer(engine: Engine, requests: Iterable[Request]) -> dict[str, CompletionOutput]:
    return {reply.id: reply for reply in engine.generate(requests)}


def told(engine: Engine, request: Request) -> tuple[list[Event], CompletionOutput]:
    """Every event of a request, and its reply."""
    engine.submit(request)
    events: list[Event] = []
    while engine.in_flight:
        events += engine.step()
    reply = events[-1].reply
    assert reply
    return events, reply


def cpu_forward(engine: Engine) -> CpuForward:
    assert isinstance(engine.forward, CpuForward)
    return engine.forward
