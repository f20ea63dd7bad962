"""Chunked prefill: long prompts delay neither the replies under way nor short prompts."""

from itertools import pairwise

import pytest
from engines import CHUNK, answer, cpu_forward

from lima_ray.config.sections import Sampling
from lima_ray.engine.cpu.kv_slots import SMALLEST_CAPACITY
from lima_ray.engine.engine import PREFILL_TOKENS_A_STEP, Engine
from lima_ray.engine.requests import CompletionOutput, Request

pytestmark = pytest.mark.usefixtures("one_thread")


def test_long_prompts_are_read_between_the_tokens_of_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lima_ray.engine.engine.PREFILL_SHARE_S", float("inf"))
    short = Request("short", [5], Sampling(context=100))
    long = [Request(str(i), [7] * 900, Sampling(max_new_tokens=10)) for i in range(3)]
    alone = answer(engine, [short, *long[:1]])
    engine.submit(short)
    engine.step()
    for request in long:
        engine.submit(request)
    seen: list[list[str]] = []
    replies: dict[str, CompletionOutput] = {}
    while engine.in_flight:
        events = engine.step()
        seen.append([event.id for event in events])
        replies |= {event.id: event.reply for event in events if event.reply}
    begun = {id: next(i for i, ids in enumerate(seen) if id in ids) for id in ("0", "1", "2")}
    for before, (_, step) in enumerate(begun.items()):
        assert step == pytest.approx((before + 1) * 899 / PREFILL_TOKENS_A_STEP, abs=1.5)
    assert all("short" in ids for ids in seen[: alone["short"].n_tokens - 1])
    assert replies["short"] == alone["short"]
    assert replies["0"] == alone["0"]


def test_a_long_prompt_holds_up_neither_streams_nor_a_short_prompt_behind_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where a chunk takes all the time that there is between two tokens.
    monkeypatch.setattr("lima_ray.engine.engine.PREFILL_SHARE_S", 0)
    stream = Request("stream", [5], Sampling(context=200))
    long = Request("long", [7] * (12 * CHUNK + 1), Sampling(max_new_tokens=19))
    short = [Request(str(n), [9, n] * 10, Sampling(context=40)) for n in range(3, 7)]
    alone = answer(engine, [stream, long, *short])
    for request in (stream, long):
        engine.submit(request)
    engine.step()
    chunks, begun, replies = (
        [engine.active["long"].prefilled],
        dict[str, int](),
        dict[str, CompletionOutput](),
    )
    for request in short:
        engine.submit(request)
    for step in range(60):
        events = engine.step()
        assert step > 12 or "stream" in {event.id for event in events}
        for event in events:
            begun.setdefault(event.id, step)
            if event.reply:
                replies[event.id] = event.reply
        if "long" in engine.active:
            chunks.append(engine.active["long"].prefilled)
    assert max(b - a for a, b in pairwise(chunks)) <= CHUNK
    assert max(begun["3"], begun["4"]) <= 4, "short prompts wait for the long one"
    assert begun["long"] <= 12 + len(short) + 1, "the long prompt is passed over"
    for id in ("long", "3", "4", "5", "6"):
        assert replies[id] == alone[id]
    engine.cancel("stream")


def test_a_long_prompt_takes_memory_of_its_own_slot_and_gives_it_back(engine: Engine) -> None:
    cache = cpu_forward(engine).cache

    def room() -> list[int]:
        for layer in cache.layers.values():
            assert [slot_2GCD.shape[2] for slot_2GCD in layer.slots_2GCD] == cache.capacities
            assert layer.capacities_S.tolist() == cache.capacities
        return list(cache.capacities)

    stream = Request("stream", [5], Sampling(context=900))
    alone = answer(engine, [stream])["stream"]
    assert room() == [SMALLEST_CAPACITY] * 4
    engine.submit(stream)
    engine.submit(Request("long", [7] * 1000, Sampling(max_new_tokens=100)))
    engine.step()
    assert room() == [SMALLEST_CAPACITY, 1024, SMALLEST_CAPACITY, SMALLEST_CAPACITY]
    replies = []
    while engine.in_flight:
        replies += [event.reply for event in engine.step() if event.reply]
        if len(replies) == 1:
            assert room()[1:] == [SMALLEST_CAPACITY] * 3
    assert [reply.id for reply in replies] == ["long", "stream"]
    assert replies[1] == alone
    assert room() == [SMALLEST_CAPACITY] * 4


def test_a_prompt_that_is_being_read_can_be_cancelled(engine: Engine) -> None:
    engine.submit(Request("long", [7] * 1500, Sampling(max_new_tokens=100)))
    assert engine.step() == []
    assert engine.cancel("long")
    assert engine.step() == []
    assert sorted(engine.free_slots) == [0, 1, 2, 3]
