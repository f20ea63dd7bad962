"""What goes into the engine and what comes out: requests, events of single tokens, replies."""

import random
from dataclasses import dataclass, field

from lima_ray.config.sections import Sampling
from lima_ray.engine.detokenizer import Detokenizer


@dataclass(frozen=True)
class Request:
    id: str
    """Name of the request, unlike that of any other in flight."""
    ids: list[int]
    """Token ids of the prompt, such as `Engine.prompt` makes."""
    sampling: Sampling
    """How to decode; requests that share a seed share their random numbers."""
    stop: tuple[str, ...] = ()
    """Stop strings: the reply ends before the first of them; none is empty."""
    stream: bool = False
    """Give the text piece by piece with the events."""
    logprobs: int | None = None
    """Number of likeliest tokens to report beside each token's own log probability; None reports
    neither."""

    def reply_limit(self, positions: int) -> int:
        """Return the most tokens of the reply, by a model of so many positions."""
        room = min(self.sampling.context, positions) - len(self.ids)
        return min(room, self.sampling.max_new_tokens or room)


@dataclass(frozen=True)
class Logprob:
    """Log probabilities at one token, by the model alone: before penalty, temperature and top-p."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens, from the likeliest down."""


@dataclass(frozen=True)
class CompletionOutput:
    id: str
    text: str
    """The text, without EOT and other control tokens."""
    ids: list[int]
    """Every generated token, EOT included."""
    stopped: bool
    """True where EOT ended it, false where a stop string or the length limit did."""
    n_prompt_tokens: int
    stopped_by: str | None = None

    @property
    def n_tokens(self) -> int:
        """Generated tokens, EOT included."""
        return len(self.ids)


@dataclass(frozen=True)
class Event:
    """One token of one request, and with its last the reply."""

    id: str
    token: int
    text: str = ""
    """New text, where the request asked for a stream; a token may bring none."""
    logprob: Logprob | None = None
    reply: CompletionOutput | None = None


@dataclass
class ActiveRequest:
    """A request in a slot, and its reply so far."""

    request: Request
    slot: int
    limit: int
    """Most tokens of the reply."""
    rng: random.Random
    """Random numbers of this request alone."""
    detokenizer: Detokenizer | None
    """Set where the reply's text matters before its end: for streams and stop strings."""
    prefilled: int = 0
    """Tokens of the prompt whose keys and values the slot holds."""
    tokens: list[int] = field(default_factory=list)
    penalised: dict[int, None] = field(default_factory=dict)
    """Tokens that the repetition penalty applies to: a set that keeps its order."""
    text: str = ""

    @property
    def prompt_left(self) -> int:
        """Tokens of the prompt still to prefill; its last is left to the first decoding step."""
        return len(self.request.ids) - 1 - self.prefilled

    @property
    def prefilling(self) -> bool:
        return self.prompt_left > 0

    @property
    def length(self) -> int:
        """Tokens of prompt and reply so far."""
        return len(self.request.ids) + len(self.tokens)

    @property
    def last_token(self) -> int:
        """The newest token, which the next step feeds to the model."""
        return self.tokens[-1] if self.tokens else self.request.ids[-1]
