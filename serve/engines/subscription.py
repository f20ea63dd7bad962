"""A subscription to the events of an engine's requests, and how one fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager
from math import isfinite

from lima_ray.engine.requests import Event
from serve.engines.metrics import EngineMetrics


class EngineFailed(Exception):
    """The engine could not go on with a request; others were not asked to wait for it."""


class QueueFull(Exception):
    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Subscription(AbstractContextManager["Subscription"]):
    """The events of some requests; leaving it cancels what is left of them."""

    def __init__(
        self,
        ids: Collection[str],
        unsubscribe: Callable[["Subscription"], None],
        metrics: EngineMetrics,
        every_s: float = 0,
    ) -> None:
        """Subscribe from now on, on the event loop that runs.

        Args:
            unsubscribe: called at the end, with this.
            metrics: told of each first token.
            every_s: time between two beats, for which events wait, but for first tokens and the
                end. To wake someone for every token costs as much as the token; to wake all at one
                beat holds up the engine once.
        """
        self.ids = set(ids)
        """Requests that have not finished."""
        self.unsubscribe, self.metrics, self.every_s = unsubscribe, metrics, every_s
        self.loop, self.arrived_s = asyncio.get_running_loop(), time.monotonic()
        self.events: list[Event] = []
        self.begun: set[str] = set()
        """Requests that have their first token."""
        self.failure: Exception | None = None
        self.news = asyncio.Event()
        self.due: asyncio.TimerHandle | None = None
        """Wakes the subscriber for events that wait."""

    def __exit__(self, *_: object) -> None:
        if self.due:
            self.due.cancel()
        self.unsubscribe(self)

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        """Yield events as they come, all that are there at once, until all have a reply.

        Raises:
            EngineFailed: the engine lost the requests.
            UserError: one of them cannot be answered; the others end too.
        """
        while self.ids or self.events:
            await self.news.wait()
            self.news.clear()
            if self.failure:
                raise self.failure
            events, self.events = self.events, []
            if events:
                yield events

    def receive(self, event: Event) -> None:
        """Take an event, on the subscriber's event loop."""
        if event.id not in self.ids:
            return
        if event.reply:
            self.ids.discard(event.id)
        first = event.id not in self.begun
        if first:
            self.begun.add(event.id)
            self.metrics.first_token.observe(time.monotonic() - self.arrived_s)
        self.events.append(event)
        if first or not self.ids or not self.every_s:
            self.wake()
        elif self.due is None and isfinite(self.every_s):
            next_beat = self.loop.time() // self.every_s + 1
            self.due = self.loop.call_at(next_beat * self.every_s, self.wake)

    def wake(self) -> None:
        """Have the subscriber take what there is."""
        if self.due:
            self.due.cancel()
            self.due = None
        self.news.set()

    def fail(self, error: Exception) -> None:
        """Learn that nothing more comes, on the subscriber's event loop."""
        self.failure = self.failure or error
        self.news.set()
