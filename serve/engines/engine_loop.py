"""An engine on a thread of its own, and the asyncio tasks that wait for its replies.

    loop = EngineLoop("aligned", lambda: Engine(path))
    await loop.loaded()
    with loop.subscribe([Request("a", ids, sampling, stream=True)]) as events:
        async for batch in events:
            ...

Requests join and leave between two tokens. Whoever stops listening cancels: the request's slot is
free before the next step. A step that fails ends the requests in flight with `EngineFailed` and
nothing else; an engine that fails again and again, or hangs, shows in `problem`.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch

from lima_ray.config.errors import UserError
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Event, Request
from serve.engines.model_loop import ModelLoop
from serve.engines.subscription import EngineFailed, Subscription

FAILURES_IN_A_ROW = 3
"""Steps that may fail one after another before the engine counts as broken."""
LATE_S = 10.0
"""How long an engine that is to go still takes requests."""
RECENT_REPLIES = 32
"""Finished replies from which the time that a place in the queue takes is estimated."""
log = logging.getLogger("ray.serve")


class EngineLoop(ModelLoop):
    """One engine, its thread, and its subscriptions."""

    def __init__(
        self, name: str, load: Callable[[], Engine], queue: int = 64, stuck_after_s: float = 120
    ) -> None:
        """Start loading.

        Args:
            load: makes the engine, on its thread.
            stuck_after_s: a step that takes longer counts as hung.
        """
        super().__init__(name, queue)
        self.stuck_after_s = stuck_after_s
        self.finished: deque[float] = deque(maxlen=RECENT_REPLIES)
        self.step_began_s: float | None = None
        self.failures = 0
        """Steps that failed since the last one that did not."""
        self.inbox: list[Request | str] = []
        """Requests to submit, and ids to cancel, in order."""
        self.call = threading.Condition()
        self.ready = threading.Event()
        # A new thread takes PyTorch's count as it is just then, which an engine at work lowers.
        self.threads = torch.get_num_threads()
        self.thread = threading.Thread(target=self.run, args=(load,), daemon=True, name=name)
        self.thread.start()

    @property
    def problem(self) -> str | None:
        if self.failure:
            return f"the engine of {self.name} is broken: {self.failure}"
        began_s = self.step_began_s
        if began_s is not None and time.monotonic() - began_s > self.stuck_after_s:
            return f"the engine of {self.name} hangs: one step takes over {self.stuck_after_s:g} s"
        if not self.thread.is_alive() and not self.closing:
            return f"the engine's thread of {self.name} has ended"
        return None

    async def loaded(self) -> Engine:
        """Wait for the engine, or raise what its loading raised."""
        await asyncio.to_thread(self.ready.wait)
        if self.engine is None:
            raise self.failure or EngineFailed(f"{self.name} is closed")
        return self.engine

    def begin(self, requests: Sequence[Request], subscription: Subscription) -> None:
        self.requests |= dict.fromkeys(subscription.ids, subscription)
        self.post(*requests)

    def unsubscribe(self, subscription: Subscription) -> None:
        left = [id for id in subscription.ids if self.requests.pop(id, None)]
        if left:
            self.metrics.cancelled.inc(len(left))
            self.post(*left)

    def post(self, *messages: Request | str) -> None:
        """Put messages into the inbox and wake the thread."""
        with self.call:
            self.inbox += messages
            self.call.notify()

    def retry_after_s(self, places: int) -> int:
        """Return the seconds in which so many places come free, by the pace of the last replies."""
        if len(self.finished) < 2:
            return 1
        pace_s = (self.finished[-1] - self.finished[0]) / (len(self.finished) - 1)
        return max(1, min(60, round(places * pace_s)))

    def close(self) -> None:
        """End the thread; requests in flight fail."""
        self.closing = True
        self.post()

    async def drain(self, late_s: float = LATE_S) -> None:
        """Wait for the requests in flight and for late ones, then end the thread.

        Args:
            late_s: time for requests that found this engine before another took over, and whose
                prompts are still being read.
        """
        until_s = time.monotonic() + late_s
        while self.in_flight or time.monotonic() < until_s:
            await asyncio.sleep(0.05)
        self.close()

    # On the engine's thread

    def run(self, load: Callable[[], Engine]) -> None:
        """Load, then step while there is something to answer."""
        torch.set_num_threads(self.threads)
        try:
            self.engine = load()
        except Exception as error:
            self.failure = error
            return
        finally:
            self.ready.set()
        while self.failure is None and not self.closing:
            try:
                self.run_once(self.engine)
            except Exception as error:
                log.exception("a step of %s failed", self.name)
                self.failures += 1
                self.fail_all(self.engine, error)
                if self.failures >= FAILURES_IN_A_ROW:
                    self.failure = error
        self.fail_all(self.engine, EngineFailed(f"{self.name} is closed"))

    def run_once(self, engine: Engine) -> None:
        """Handle the inbox, or wait for one, and take a step."""
        with self.call:
            while not (self.inbox or engine.in_flight or self.closing):
                self.call.wait()
            messages, self.inbox = self.inbox, []
        for message in messages:
            self.take(engine, message)
        if not engine.in_flight:
            return
        began_s = self.step_began_s = time.monotonic()
        try:
            events = engine.step()
        finally:
            self.step_began_s = None
        now_s = time.monotonic()
        self.metrics.step(now_s - began_s, events, engine)
        self.finished += (now_s for event in events if event.reply)
        self.dispatch(events)
        self.failures = 0

    def take(self, engine: Engine, message: Request | str) -> None:
        if isinstance(message, str):
            engine.cancel(message)
            return
        try:
            engine.submit(message)
        except UserError as error:
            subscription = self.requests.get(message.id)
            if subscription:
                self.fail({subscription}, error)

    def dispatch(self, events: list[Event]) -> None:
        """Give a step's events to the event loops of those who listen, in one call each."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Subscription, Event]]] = {}
        for event in events:
            if subscription := self.requests.get(event.id):
                by_loop.setdefault(subscription.loop, []).append((subscription, event))
        for loop, pairs in by_loop.items():
            call_on(loop, self.deliver, pairs)

    def fail_all(self, engine: Engine, error: Exception) -> None:
        """End every request in flight, and empty the engine."""
        with self.call:
            waiting, self.inbox = self.inbox, []
        ids = {message.id for message in waiting if isinstance(message, Request)}
        subscriptions = set(self.requests.copy().values())
        for id in [*engine.active, *(request.id for request in engine.waiting), *ids]:
            engine.cancel(id)
        self.fail(subscriptions, EngineFailed(f"the engine failed: {error}"))

    def fail(self, subscriptions: set[Subscription], error: Exception) -> None:
        for subscription in subscriptions:
            call_on(subscription.loop, subscription.fail, error)

    # On the subscribers' event loops

    def deliver(self, pairs: list[tuple[Subscription, Event]]) -> None:
        for subscription, event in pairs:
            if event.reply:
                self.requests.pop(event.id, None)
            subscription.receive(event)


def call_on(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    """Run a function on an event loop, unless that loop has ended with all that listened."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
