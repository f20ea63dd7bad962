"""The engine's loop: which events come, who makes room for whom, and what a failure costs."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from served import wait_until

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import CompletionOutput, Event, Request
from serve.engines.engine_loop import EngineLoop, Subscription
from serve.engines.metrics import EngineMetrics
from serve.engines.subscription import EngineFailed, QueueFull

GREEDY = Sampling(temperature=0, repetition_penalty=1)


@pytest.fixture
def loop(base_dir: Path) -> Iterator[EngineLoop]:
    """An engine of two slots, and two places in its queue."""
    loop = EngineLoop("tiny", lambda: endless(base_dir), queue=2)
    yield loop
    loop.close()
    loop.thread.join(10)
    assert not loop.thread.is_alive()


def endless(base_dir: Path) -> Engine:
    """An engine of two slots, whose replies end where their room does."""
    engine = Engine(base_dir, slots=2)
    engine.stop_token_ids = set()
    return engine


def ask(id: str, tokens: int = 20, **fields: Any) -> Request:
    """A greedy request."""
    sampling = GREEDY.model_copy(update={"max_new_tokens": tokens})
    return Request(id, [5, 9, 17], sampling, **fields)


async def received(subscription: Subscription) -> list[Event]:
    """All events of a subscription."""
    with subscription:
        return [event async for events in subscription for event in events]


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run on a new event loop."""
    return asyncio.run(asyncio.wait_for(work(), 60))


@contextmanager
def before_last_layer(engine: Engine, act: Callable[[], object]) -> Iterator[None]:
    """Do something whenever the model's last layer is about to compute."""

    def hook(*_: object) -> None:
        act()

    handle = engine.model.get_decoder().layers[-1].register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def fail() -> None:
    """What a broken layer does."""
    raise RuntimeError("the layer is broken")


def test_events_come_in_order_and_end_with_the_reply(loop: EngineLoop) -> None:
    async def work() -> None:
        await loop.loaded()
        events = await received(loop.subscribe([ask("a", stream=True), ask("b", 5)]))
        for id, count in (("a", 20), ("b", 5)):
            own = [event for event in events if event.id == id]
            assert len(own) == count
            assert [bool(event.reply) for event in own] == [False] * (count - 1) + [True]
            reply = own[-1].reply
            assert reply and reply.ids == [event.token for event in own]
        assert "".join(event.text for event in events if event.id == "a")
        assert loop.in_flight == 0

    run(work)


def test_an_engine_has_all_threads_whatever_another_is_doing(base_dir: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    other = threading.Thread(target=torch.set_num_threads, args=(1,))
    other.start()
    other.join()  # from now on a new thread has 1
    loop = EngineLoop("tiny", lambda: Counting(base_dir, slots=2))
    engine: Any = run(loop.loaded)
    loop.close()
    torch.set_num_threads(before)
    assert engine.threads == 3


class Counting(Engine):
    """Notes the threads that it may take."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.threads = torch.get_num_threads()
        super().__init__(*args, **options)


def test_who_leaves_has_a_free_slot_before_the_next_step(loop: EngineLoop) -> None:
    steps: list[set[str]] = []

    async def work() -> None:
        engine = await loop.loaded()
        step = engine.step

        def noting_step() -> list[Event]:
            steps.append(set(engine.active))
            return step()

        engine.step = noting_step
        stays = asyncio.create_task(received(loop.subscribe([ask("stays", 400)])))
        with loop.subscribe([ask("goes", 400)]) as leaving:
            async for _ in leaving:
                if len(steps) > 20:
                    break
        left_at = len(steps)
        assert loop.in_flight == 1
        await stays
        # The step under way when it left may still have it; no later one has.
        assert any("goes" in active for active in steps[:left_at])
        assert not any("goes" in active for active in steps[left_at + 1 :])
        assert len(steps) > left_at + 100 and sorted(engine.free_slots) == [0, 1]

    run(work)


def test_leaving_without_listening_cancels(loop: EngineLoop) -> None:
    async def work() -> None:
        engine = await loop.loaded()
        for number in range(20):
            with loop.subscribe([ask(f"{number}", 1000) for number in range(4)]):
                pass
        assert loop.in_flight == 0
        assert len(await received(loop.subscribe([ask("last", 3)]))) == 3
        assert engine.in_flight == 0 and sorted(engine.free_slots) == [0, 1]

    run(work)


def test_events_wait_for_a_listener_that_is_slow(loop: EngineLoop) -> None:
    async def work() -> None:
        await loop.loaded()
        with loop.subscribe([ask("slow", 30)]) as slow:
            assert len(await received(loop.subscribe([ask("quick", 10)]))) == 10
            await asyncio.to_thread(wait_until, lambda: not loop.engine.in_flight)  # pyright: ignore
            assert len([event async for events in slow for event in events]) == 30

    run(work)


def test_all_wake_at_one_beat_but_for_what_comes_first_and_last() -> None:
    async def work() -> None:
        left: list[Subscription] = []
        metrics = EngineMetrics("beat")
        one, other = (Subscription({id}, left.append, metrics, every_s=60) for id in "ab")
        reply = CompletionOutput("a", "", [1, 2, 3], True, 1)
        with one, other:
            events, others = aiter(one), aiter(other)
            one.receive(Event("a", 1))
            other.receive(Event("b", 1))
            assert [event.token for event in await anext(events)] == [1]
            assert [event.token for event in await anext(others)] == [1]
            one.receive(Event("a", 2))
            other.receive(Event("b", 2))
            assert one.due and other.due and one.due.when() == other.due.when()
            assert not one.news.is_set() and not other.news.is_set()
            one.receive(Event("a", 3, reply=reply))
            assert [event.token for event in await anext(events)] == [2, 3]
            other.wake()
            assert [event.token for event in await anext(others)] == [2]
            assert one.due is None and other.due is None

    run(work)


def test_a_full_queue_is_busy_and_says_for_how_long(loop: EngineLoop) -> None:
    async def work() -> None:
        await loop.loaded()
        with loop.subscribe([ask(f"{number}", 1500) for number in range(4)]):
            with pytest.raises(QueueFull) as busy:
                loop.subscribe([ask("one more")])
            assert busy.value.retry_after_s == 1 and loop.in_flight == 4
        # All or none: two have room, five have not.
        with pytest.raises(QueueFull):
            loop.subscribe([ask(f"{number}") for number in range(5)])
        assert loop.in_flight == 0
        assert len(await received(loop.subscribe([ask(f"new {n}", 2) for n in range(4)]))) == 8

    run(work)


def test_retry_after_follows_the_pace_of_replies(loop: EngineLoop) -> None:
    assert loop.retry_after_s(3) == 1
    loop.finished.extend([100.0, 104.0, 108.0])
    assert [loop.retry_after_s(places) for places in (1, 3, 1000)] == [4, 12, 60]


def test_a_request_that_cannot_be_answered_fails_alone(loop: EngineLoop) -> None:
    async def work() -> None:
        await loop.loaded()
        other = asyncio.create_task(received(loop.subscribe([ask("good", 50)])))
        with pytest.raises(UserError, match="ids holds 999999"):
            await received(loop.subscribe([Request("bad", [999_999], GREEDY)]))
        assert len(await other) == 50 and loop.in_flight == 0

    run(work)


def test_several_event_loops_share_an_engine(loop: EngineLoop) -> None:
    counts: dict[int, int] = {}

    def subscribe(number: int) -> None:
        async def work() -> None:
            await loop.loaded()
            counts[number] = len(await received(loop.subscribe([ask(f"{number}", 40)])))

        run(work)

    threads = [threading.Thread(target=subscribe, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counts == dict.fromkeys(range(4), 40)


def test_an_event_loop_that_ended_disturbs_nobody(loop: EngineLoop) -> None:
    async def vanish() -> None:
        await loop.loaded()
        loop.subscribe([ask("orphan", 30)])

    async def work() -> None:
        assert len(await received(loop.subscribe([ask("next", 60)]))) == 60

    run(vanish)
    run(work)
    assert loop.problem is None


def test_a_failed_step_ends_those_in_flight_and_nobody_else(loop: EngineLoop) -> None:
    async def work() -> None:
        engine = await loop.loaded()
        broken = iter([True])
        with before_last_layer(engine, lambda: fail() if next(broken, False) else None):
            several = [received(loop.subscribe([ask(f"{n}", 10)])) for n in range(3)]
            ends = await asyncio.gather(*several, return_exceptions=True)
            assert [str(error) for error in ends] == ["the engine failed: the layer is broken"] * 3
            assert all(isinstance(error, EngineFailed) for error in ends)
            assert len(await received(loop.subscribe([ask("next", 10)]))) == 10
        assert loop.problem is None and loop.in_flight == engine.in_flight == 0

    run(work)


def test_an_idle_engine_does_not_hang_after_a_failed_step(base_dir: Path) -> None:
    loop = EngineLoop("tiny", lambda: endless(base_dir), stuck_after_s=0.05)

    async def work() -> None:
        engine = await loop.loaded()
        with before_last_layer(engine, fail), pytest.raises(EngineFailed):
            await received(loop.subscribe([ask("a")]))
        await asyncio.sleep(0.2)
        assert loop.problem is None

    run(work)
    loop.close()


def test_three_failed_steps_in_a_row_break_the_engine(loop: EngineLoop) -> None:
    async def work() -> None:
        engine = await loop.loaded()
        with before_last_layer(engine, fail):
            for number in range(3):
                assert loop.problem is None
                with pytest.raises(EngineFailed, match="the layer is broken"):
                    await received(loop.subscribe([ask(f"{number}")]))
        await asyncio.to_thread(loop.thread.join, 10)
        assert loop.problem == "the engine of tiny is broken: the layer is broken"
        with pytest.raises(EngineFailed, match="broken"):
            loop.subscribe([ask("late")])

    run(work)


def test_a_step_that_hangs_is_reported_until_it_ends(base_dir: Path) -> None:
    loop = EngineLoop("tiny", lambda: endless(base_dir), stuck_after_s=0.2)
    released = threading.Event()

    async def work() -> None:
        engine = await loop.loaded()
        with before_last_layer(engine, lambda: released.wait(20)):
            waiting = asyncio.create_task(received(loop.subscribe([ask("a", 3)])))
            await asyncio.to_thread(wait_until, lambda: loop.problem)
            assert loop.problem == "the engine of tiny hangs: one step takes over 0.2 s"
            released.set()
            assert len(await waiting) == 3
        assert loop.problem is None

    run(work)
    loop.close()


def test_a_model_that_cannot_be_loaded_is_reported(tmp_path: Path) -> None:
    loop = EngineLoop("nothing", lambda: Engine(tmp_path))

    async def work() -> None:
        with pytest.raises(UserError, match=r"lacks config\.json"):
            await loop.loaded()
        with pytest.raises(EngineFailed, match="nothing is broken"):
            loop.subscribe([ask("a")])

    run(work)


def test_closing_ends_what_is_in_flight(loop: EngineLoop) -> None:
    async def work() -> None:
        await loop.loaded()
        waiting = asyncio.create_task(received(loop.subscribe([ask("a", 1500), ask("b", 1500)])))
        await asyncio.sleep(0.05)
        loop.close()
        with pytest.raises(EngineFailed, match="tiny is closed"):
            await waiting
        with pytest.raises(EngineFailed, match="does not take requests now"):
            loop.subscribe([ask("late")])

    run(work)


def test_draining_answers_those_in_flight_and_late_ones(loop: EngineLoop) -> None:
    async def work() -> None:
        await loop.loaded()
        early = asyncio.create_task(received(loop.subscribe([ask("early", 300)])))
        began_s = time.monotonic()
        draining = asyncio.create_task(loop.drain(late_s=0.5))
        await asyncio.sleep(0.1)
        assert len(await received(loop.subscribe([ask("late", 10)]))) == 10
        assert len(await early) == 300
        await draining
        assert time.monotonic() - began_s >= 0.5 and loop.closing

    run(work)
