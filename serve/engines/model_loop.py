"""What answers for one model: how many requests it takes, and subscriptions to their events."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lima_ray.engine.requests import Request
from serve.engines.metrics import EngineMetrics
from serve.engines.subscription import EngineFailed, QueueFull, Subscription


class ModelLoop(ABC):
    """One model, the queue before it, and its requests in flight."""

    engine: Any = None
    """With `slots`, `context` and a tokeniser; none until it is loaded."""
    failure: Exception | None = None
    """Why there is no engine, or none any more."""
    closing = False

    def __init__(self, name: str, queue: int) -> None:
        """Begin with a name for metrics and messages; `queue` requests may wait for a slot."""
        self.name, self.queue = name, queue
        self.metrics = EngineMetrics(name)
        self.requests: dict[str, Any] = {}
        """What answers each request in flight, by the request's id."""

    @property
    def in_flight(self) -> int:
        """Return how many requests wait or are being answered."""
        return len(self.requests)

    @property
    def most(self) -> int:
        """Return how many requests are ever taken at once."""
        return self.queue + (self.engine.slots if self.engine else 0)

    @property
    @abstractmethod
    def problem(self) -> str | None:
        """Return what is wrong with the engine; none while it works or loads."""

    def subscribe(self, requests: Sequence[Request], every_s: float = 0) -> Subscription:
        """Take requests in, all or none.

        Args:
            requests: each with an id of its own, never used again: a step under way may still tell
                what it made for a request that has left.
            every_s: see `Subscription`.

        Raises:
            QueueFull: the queue is full.
            EngineFailed: the engine is broken, or closing.
        """
        if self.failure or self.closing or self.engine is None:
            raise EngineFailed(self.problem or f"{self.name} does not take requests now")
        over = self.in_flight + len(requests) - self.most
        if over > 0:
            self.metrics.refused.inc(len(requests))
            raise QueueFull(self.retry_after_s(over))
        ids = {request.id for request in requests}
        subscription = Subscription(ids, self.unsubscribe, self.metrics, every_s)
        self.begin(requests, subscription)
        return subscription

    @abstractmethod
    def begin(self, requests: Sequence[Request], subscription: Subscription) -> None:
        """Have requests answered, to a subscription."""

    @abstractmethod
    def unsubscribe(self, subscription: Subscription) -> None:
        """Cancel what a subscription still waits for."""

    def retry_after_s(self, places: int) -> int:
        """Return the seconds in which so many places may come free."""
        del places
        return 1
