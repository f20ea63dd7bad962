"""What a served model measures, in Prometheus through Ray's metrics port.

`lima_first_token_s` (from a request's arrival to its first token), `lima_inter_token_s` (a step:
one token of every reply under way), `lima_batch` (replies under way), `lima_queue` (requests that
wait for a slot), and as counters `lima_tokens`, `lima_prompt_tokens`, `lima_replies` by how they
ended, `lima_cancelled` and `lima_refused` (the queue was full). Each is tagged with the model, and
by Serve with the replica.
"""

from collections.abc import Sequence
from typing import Any

from ray.serve import metrics

from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Event

SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]


class EngineMetrics:
    def __init__(self, model: str) -> None:
        self.model = model
        self.first_token = self.made(
            metrics.Histogram, "first_token_s", "Seconds to the first token.", boundaries=SECONDS
        )
        self.inter_token = self.made(
            metrics.Histogram, "inter_token_s", "Seconds between tokens.", boundaries=SECONDS
        )
        self.batch = self.made(metrics.Gauge, "batch", "Replies under way.")
        self.queue = self.made(metrics.Gauge, "queue", "Requests that wait for a slot.")
        self.tokens = self.made(metrics.Counter, "tokens", "Tokens generated.")
        self.prompt_tokens = self.made(
            metrics.Counter, "prompt_tokens", "Tokens of answered prompts."
        )
        self.replies = self.made(metrics.Counter, "replies", "Replies, by their end.", "end")
        self.cancelled = self.made(metrics.Counter, "cancelled", "Requests that were cancelled.")
        self.refused = self.made(metrics.Counter, "refused", "Requests refused by a full queue.")

    def made(self, kind: Any, name: str, description: str, *tags: str, **settings: Any) -> Any:
        """Register a metric with the model's tag."""
        metric = kind(
            f"lima_{name}", description=description, tag_keys=("model", *tags), **settings
        )
        metric.set_default_tags({"model": self.model})
        return metric

    def step(self, seconds: float, events: Sequence[Event], engine: Engine) -> None:
        """Count a step: its time, its tokens, and the replies that it finished."""
        self.batch.set(len(engine.active))
        self.queue.set(len(engine.waiting))
        if not events:
            return
        self.inter_token.observe(seconds)
        self.tokens.inc(len(events))
        for event in events:
            if event.reply:
                self.prompt_tokens.inc(event.reply.n_prompt_tokens)
                self.replies.inc(1, {"end": end_of(event)})


def end_of(event: Event) -> str:
    """Return what ended a reply: eot, a stop string, or its length."""
    reply = event.reply
    assert reply
    return "eot" if reply.stopped else "stop" if reply.stopped_by is not None else "length"
