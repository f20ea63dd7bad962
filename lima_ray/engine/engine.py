"""The generation engine: many requests at once through one model, on a CPU or a CUDA GPU.

    engine = Engine(Path("runs/NAME/export"))
    requests = (Request(row.id, engine.prompt(row.turns), sampling) for row in rows)
    for reply in engine.generate(requests):
        print(reply.id, reply.text)

Requests enter and leave a batch of slots between any two tokens (continuous batching), so a short
reply does not wait for a long one. A server drives the same engine by `submit`, `step` and
`cancel`, all from one thread.

The same seed gives the same reply whatever shares the batch, whichever slot it takes and whenever
it enters: a request draws from random numbers of its own, and its logits are bitwise those that it
has alone (cpu/kv_slots.py says how). The engine checks this when it loads and tells it by
`Engine.steady`. It is never promised on a GPU (cuda_graphs.py): there a row's rounding may
follow the number of rows, and replies may part where two tokens are almost equally likely.
"""

import heapq
import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lima_ray.config import Sampling
from lima_ray.engine.cpu.forward import SteadyForward
from lima_ray.engine.cuda_graphs import RecordedForward
from lima_ray.engine.detokenizer import ReplyText, decode
from lima_ray.engine.loading import load
from lima_ray.engine.sampling import choose
from lima_ray.errors import UserError
from lima_ray.families import context_of
from lima_ray.tokenizer import prompt_ids, template_eot, text_ids

PROMPT_TOKENS_A_STEP = 512
"""Tokens of prompts computed between two tokens of the replies under way, at least one chunk."""
PROMPT_SHARE_S = 0.2
"""Time after which no other chunk is begun between two tokens of the replies under way."""


@dataclass(frozen=True)
class Request:
    """One reply to make."""

    id: str
    """Name of the request, unlike that of any other in flight."""
    ids: list[int]
    """Token ids of the prompt, such as `Engine.prompt` makes."""
    sampling: Sampling
    """How to decode; requests that share a seed share their random numbers."""
    stop: tuple[str, ...] = ()
    """Texts that end the reply before themselves; none is empty."""
    stream: bool = False
    """Tell the text piece by piece with the events."""
    logprobs: int | None = None
    """Likeliest tokens told with each token's own log probability; none tells neither."""


@dataclass(frozen=True)
class Logprob:
    """Log probabilities at one token, by the model alone: before penalty, temperature and top-p."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens, from the likeliest down."""


@dataclass(frozen=True)
class Reply:
    """A finished reply."""

    id: str
    text: str
    """What was said, without EOT and other control tokens."""
    ids: list[int]
    """Every generated token, EOT included."""
    stopped: bool
    """True where EOT ended it, false where a stop string or the room did."""
    n_prompt_tokens: int
    stopped_by: str | None = None
    """The stop string that ended it."""

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
    reply: Reply | None = None


@dataclass
class Active:
    """A request in a slot, and its reply so far."""

    request: Request
    slot: int
    limit: int
    """Most tokens, of prompt and reply together."""
    draws: random.Random
    text: ReplyText | None
    """The reply's text, where it matters before the end."""
    filled: int = 0
    """Tokens of the prompt that the slot holds."""
    tokens: list[int] = field(default_factory=list)
    struck: dict[int, None] = field(default_factory=dict)
    """Tokens that the penalty makes less likely, as a set in order."""
    said: str = ""
    """Text told so far."""

    @property
    def unread(self) -> int:
        """Tokens of the prompt that are not in the slot yet, but for its last."""
        return len(self.request.ids) - 1 - self.filled

    @property
    def reading(self) -> bool:
        """Whether the prompt is not all in the slot yet, but for its last token."""
        return self.unread > 0

    @property
    def length(self) -> int:
        """Tokens of prompt and reply so far."""
        return len(self.request.ids) + len(self.tokens)

    @property
    def last(self) -> int:
        """The newest token, which the next step reads."""
        return self.tokens[-1] if self.tokens else self.request.ids[-1]


class Engine:
    """A model with its tokenizer, and slots in which requests are decoded together."""

    def __init__(
        self, model_dir: Path, slots: int = 32, device: torch.device | None = None
    ) -> None:
        """Load an export, or a plain base, from its directory.

        Args:
            model_dir: a Hugging Face model with safetensors and its tokenizer.
            slots: requests decoded at once.
            device: none takes a GPU where there is one. A CPU computes in fp32, CUDA in the
                precision of the model's files.

        Raises:
            UserError: no such model, or one whose attention is more than plain causal.
        """
        if slots < 1:
            raise UserError(f"slots is {slots}; an engine needs at least 1")
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.slots = slots
        self.model, self.tokenizer = load(model_dir, self.device, slots)
        self.context: int = context_of(self.model.config)
        self.vocab: int = self.model.config.vocab_size
        self.stops = stop_ids(self.model, self.tokenizer)
        self.waiting: deque[Request] = deque()
        self.active: dict[str, Active] = {}
        self.free = list(range(slots))
        self.oldest_next = False
        """Whether the next chunk is the oldest prompt's, or that of the one with least left."""
        forward = RecordedForward if self.device.type == "cuda" else SteadyForward
        self.forward = forward(self.model, slots)
        self.steady = self.forward.steady

    @property
    def in_flight(self) -> int:
        """Requests that wait or are being answered."""
        return len(self.waiting) + len(self.active)

    def prompt(self, turns: Sequence[str], system: str | None = None) -> list[int]:
        """Token ids of a dialogue to reply to; see `lima_ray.tokenizer.prompt_ids`."""
        return prompt_ids(self.tokenizer, turns, system)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of plain text to go on with; see `lima_ray.tokenizer.text_ids`."""
        return text_ids(self.tokenizer, text)

    def check(self, request: Request) -> None:
        """Refuse a request that cannot be answered.

        Raises:
            UserError: the request, its field, the value, and what would be right.
        """
        name, ids, vocab = f"request {request.id!r}", request.ids, self.vocab
        if request.id in self.active or any(request.id == other.id for other in self.waiting):
            raise UserError(f"{name}: another request of this id is in flight")
        if not ids:
            raise UserError(f"{name}: ids is empty; a prompt has at least one token")
        strange = next((i for i in ids if not 0 <= i < vocab), None)
        if strange is not None:
            raise UserError(f"{name}: ids holds {strange}; the model's tokens are 0 to {vocab - 1}")
        if len(ids) >= request.sampling.max_tokens:
            raise UserError(
                f"{name}: sampling.max_tokens is {request.sampling.max_tokens}, prompt and reply "
                f"together, but the prompt alone has {len(ids)} tokens"
            )
        if len(ids) >= self.context:
            raise UserError(
                f"{name}: ids has {len(ids)} tokens, and the model's context is {self.context}, "
                "prompt and reply together"
            )
        if "" in request.stop:
            raise UserError(f"{name}: stop holds an empty string, which every reply contains")

    def submit(self, request: Request) -> None:
        """Take a request in; it enters a slot when a step begins and one is free.

        Raises:
            UserError: see `check`; the engine is then as it was.
        """
        self.check(request)
        self.waiting.append(request)

    def cancel(self, id: str) -> bool:
        """Drop a request and free its slot at once; false where no such request is in flight."""
        if id in self.active:
            slot = self.active.pop(id).slot
            heapq.heappush(self.free, slot)
            self.forward.release(slot)
            return True
        kept = deque(request for request in self.waiting if request.id != id)
        found = len(kept) < len(self.waiting)
        self.waiting = kept
        return found

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Read on in waiting prompts, then decode one token of each reply under way."""
        self.read_prompts()
        active = [a for a in self.active.values() if not a.reading]
        if not active:
            return []
        logits_BV = self.forward.logits([(a.slot, a.length - 1, a.last) for a in active])
        told = [
            None if a.request.logprobs is None else logits_BV[place].clone()
            for place, a in enumerate(active)
        ]
        tokens = choose(
            logits_BV,
            [list(a.struck) for a in active],
            [a.request.sampling for a in active],
            [a.draws.random() for a in active],
        )
        return [
            self.advance(a, token, logits_V)
            for a, token, logits_V in zip(active, tokens, told, strict=True)
        ]

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Answer requests, taken as slots come free, and yield replies as they finish.

        Raises:
            UserError: a request cannot be answered (`check` tells before); those in flight end.
        """
        source, mine = iter(requests), set[str]()
        try:
            while True:
                for request in islice(source, self.slots - len(mine)):
                    self.submit(request)
                    mine.add(request.id)
                if not mine:
                    return
                for event in self.step():
                    if event.reply and event.id in mine:
                        mine.remove(event.id)
                        yield event.reply
        finally:
            for id in mine:
                self.cancel(id)

    def read_prompts(self) -> None:
        """Admit waiting requests to free slots, and read prompts until the step's share is done.

        A long prompt is read in pieces, so that it holds up neither the replies under way nor a
        short prompt behind it: chunks are taken in turn from the prompt that has least left and
        from the oldest, which so is never passed over for long.
        """
        while self.waiting and self.free:
            self.admit(self.waiting.popleft(), heapq.heappop(self.free))
        reading = [active for active in self.active.values() if active.reading]
        replying = len(reading) < len(self.active)
        left, until_s = PROMPT_TOKENS_A_STEP, time.monotonic() + PROMPT_SHARE_S
        while reading and left > 0:
            oldest, shortest = reading[0], min(reading, key=lambda active: active.unread)
            self.oldest_next = not self.oldest_next
            chosen = shortest if self.oldest_next else oldest
            left -= self.read_chunk(chosen)
            if not chosen.reading:
                reading.remove(chosen)
            if replying and time.monotonic() > until_s:
                return

    def admit(self, request: Request, slot: int) -> None:
        """Give a request a slot; its prompt is not read yet."""
        limit = min(request.sampling.max_tokens, self.context)
        # A string, since Random takes a negative number for its absolute value.
        draws = random.Random(str(request.sampling.seed))
        told = request.stream or request.stop
        text = ReplyText(self.tokenizer, request.stop) if told else None
        active = self.active[request.id] = Active(request, slot, limit, draws, text)
        if request.sampling.penalise_prompt:
            active.struck |= dict.fromkeys(request.ids)
        self.forward.reserve(slot, len(request.ids))

    def read_chunk(self, active: Active) -> int:
        """Put a prompt's next chunk into its slot, and return its tokens.

        The prompt's last token is left to the first decoding step. A chunk is computed alone, so
        that its matrices have the same shape in any company.
        """
        start, last = active.filled, len(active.request.ids) - 1
        end = min(start + self.forward.chunk, last)
        self.forward.read(active.slot, start, active.request.ids[start:end])
        active.filled = end
        return end - start

    def advance(self, active: Active, token: int, logits_V: torch.Tensor | None) -> Event:
        """Add a token to a reply; EOT, a stop string or the end of its room finishes it."""
        active.tokens.append(token)
        active.struck[token] = None
        request, text, stopped = active.request, active.text, token in self.stops
        logprob = None
        if logits_V is not None:
            logprob = log_probability(logits_V, token, request.logprobs or 0)
        new = text.add(token) if text else ""
        halted = text is not None and text.stopped_by is not None
        reply = None
        if stopped or halted or active.length >= active.limit:
            new += text.finish() if text else ""
            reply = self.close(active, active.said + new, stopped)
        active.said += new
        return Event(request.id, token, new if request.stream else "", logprob, reply)

    def close(self, active: Active, said: str, stopped: bool) -> Reply:
        """Free the slot of a finished reply."""
        request, text = active.request, active.text
        self.cancel(request.id)
        whole = said if text else decode(self.tokenizer, active.tokens)
        by = text.stopped_by if text and not stopped else None
        return Reply(request.id, whole, active.tokens, stopped, len(request.ids), by)


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end a reply: the tokenizer's EOT, what the model's own settings name, and what
    its chat template ends replies with (a base's EOS may be another token)."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    ends = {token for token in (tokenizer.eos_token_id, *named) if token is not None}
    return ends | template_eot(tokenizer)


def log_probability(logits_V: torch.Tensor, token: int, top: int) -> Logprob:
    """What a token and the likeliest ones had by the model alone."""
    logprobs_V = logits_V.float().log_softmax(-1)
    best = logprobs_V.topk(top)
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Logprob(token, float(logprobs_V[token]), tuple(pairs))
