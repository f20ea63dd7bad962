"""The generation engine: many requests at once through a model's own forward, on any device.

    engine = Engine(Path("runs/NAME/export"))
    requests = (Request(row.id, engine.prompt(row.turns), sampling) for row in rows)
    for reply in engine.generate(requests):
        print(reply.id, reply.text)

Requests enter and leave a batch of slots between any two tokens (continuous batching), so a short
reply does not wait for a long one. A server drives the same engine by `submit`, `step` and
`cancel`, all from one thread.

The same seed gives the same reply whatever shares the batch, whichever slot it takes and whenever
it enters: a request draws from random numbers of its own, and its logits are bitwise those that it
has alone (lima_ray/slots.py says how). The engine checks this when it loads and tells it by
`Engine.steady`. It is never promised on a GPU: there a row's rounding may follow its neighbours,
and replies may part where two tokens are almost equally likely.
"""

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lima_ray.config import Sampling
from lima_ray.errors import UserError
from lima_ray.example import Example
from lima_ray.sampling import choose
from lima_ray.slots import STRIDE, WORTH_THREADS_TOKENS, SlotCache, load, threads_if


@dataclass(frozen=True)
class Request:
    """One reply to make."""

    id: str
    """Name of the request, unlike that of any other in flight."""
    ids: list[int]
    """Token ids of the prompt, such as `Engine.prompt` makes."""
    sampling: Sampling
    """How to decode; requests that share a seed share their random numbers."""


@dataclass(frozen=True)
class Reply:
    """A finished reply."""

    id: str
    text: str
    """What was said, without EOT and other control tokens."""
    ids: list[int]
    """Every generated token, EOT included."""
    stopped: bool
    """True where EOT ended it, false where the room did."""
    n_prompt_tokens: int

    @property
    def n_tokens(self) -> int:
        """Generated tokens, EOT included."""
        return len(self.ids)


@dataclass(frozen=True)
class Event:
    """One token of one request, and with its last the reply."""

    id: str
    token: int
    reply: Reply | None = None


@dataclass
class Active:
    """A request in a slot, and its reply so far."""

    request: Request
    slot: int
    limit: int
    """Most tokens, of prompt and reply together."""
    draws: random.Random
    tokens: list[int] = field(default_factory=list)

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
            device: none takes a GPU where there is one. A CPU computes in fp32, CUDA in bf16.

        Raises:
            UserError: no such model, or one whose attention is more than plain causal.
        """
        if slots < 1:
            raise UserError(f"slots is {slots}; an engine needs at least 1")
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.slots = slots
        self.model, self.tokenizer = load(model_dir, self.device, slots)
        self.context: int = self.model.config.max_position_embeddings
        self.vocab: int = self.model.config.vocab_size
        self.stops = stop_ids(self.model, self.tokenizer)
        self.waiting: deque[Request] = deque()
        self.active: dict[str, Active] = {}
        self.free = list(range(slots))
        on_cpu = self.device.type == "cpu"
        self.cache = SlotCache(slots, together=not on_cpu)
        self.seen_SV = torch.zeros(slots, self.vocab, dtype=torch.bool, device=self.device)
        self.batches, places_agree = self.steady_batches()
        self.steady = on_cpu and places_agree

    @property
    def in_flight(self) -> int:
        """Requests that wait or are being answered."""
        return len(self.waiting) + len(self.active)

    def prompt(self, turns: Sequence[str], system: str | None = None) -> list[int]:
        """Token ids of a dialogue to reply to, as the model was trained to see it.

        A base without a chat template gets the text itself, its turns a line each.

        Args:
            turns: the user's and the assistant's in turn; the user begins and ends.
            system: a system message before them.

        Raises:
            UserError: the last turn is the assistant's, or blank.
        """
        if len(turns) % 2 == 0:
            raise UserError(f"the dialogue has {len(turns)} turns; the last must be the user's")
        if not turns[-1].strip():
            raise UserError(
                f"turn {len(turns)} of the dialogue is {turns[-1]!r}: nothing to answer"
            )
        if not self.tokenizer.chat_template:
            return self.tokenizer("\n".join([system, *turns] if system else turns)).input_ids
        return self.tokenizer.apply_chat_template(
            Example(tuple(turns), id="", system=system).messages(),
            add_generation_prompt=True,
            return_dict=False,
        )

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
            self.free.append(self.active.pop(id).slot)
            return True
        kept = deque(request for request in self.waiting if request.id != id)
        found = len(kept) < len(self.waiting)
        self.waiting = kept
        return found

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Admit waiting requests to free slots, then decode one token of each active request."""
        while self.waiting and self.free:
            self.admit(self.waiting[0], self.free[-1])
            self.waiting.popleft()
            self.free.pop()
        active = list(self.active.values())
        if not active:
            return []
        slots = [a.slot for a in active]
        tokens = choose(
            self.logits([(a.slot, a.length - 1, a.last) for a in active]),
            self.seen_SV[slots],
            [a.request.sampling for a in active],
            [a.draws.random() for a in active],
        )
        self.seen_SV[slots, tokens] = True
        return [self.advance(a, token) for a, token in zip(active, tokens, strict=True)]

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

    def admit(self, request: Request, slot: int) -> None:
        """Fill a slot with a prompt, but for its last token, which the next step reads.

        A prompt is computed alone, so that its matrices have the same shape in any company.
        """
        if before := request.ids[:-1]:
            self.cache.aim([slot], [0], self.device)
            self.forward(self.model.get_decoder(), [before], [list(range(len(before)))])
        self.seen_SV[slot] = False
        if request.sampling.penalise_prompt:
            self.seen_SV[slot, request.ids] = True
        limit = min(request.sampling.max_tokens, self.context)
        # A string, since Random takes a negative number for its absolute value.
        draws = random.Random(str(request.sampling.seed))
        self.active[request.id] = Active(request, slot, limit, draws)

    def logits(self, rows: list[tuple[int, int, int]], batch: int = 0) -> torch.Tensor:
        """Read a token into each slot named, and return logits (B, V) of what follows it.

        Args:
            rows: slot, tokens that it holds already, and the token to read.
            batch: rows to compute, filling ones included; 0 takes the smallest steady batch.
        """
        batch = batch or next(size for size in self.batches if size >= len(rows))
        slots, starts, tokens = (list(column) for column in zip(*rows, strict=True))
        filling = [0] * (batch - len(rows))
        self.cache.aim(slots, starts, self.device)
        output = self.forward(
            self.model, [[t] for t in tokens + filling], [[s] for s in starts + filling]
        )
        return output.logits[: len(rows), 0]

    def forward(self, model: Any, ids: list[list[int]], positions: list[list[int]]) -> Any:
        """Run the model, or its decoder alone, on rows of tokens in the slots aimed at."""
        work = len(ids) * len(ids[0]) * self.model.config.hidden_size**2
        with threads_if(work >= WORTH_THREADS_TOKENS):
            return model(
                input_ids=torch.tensor(ids, device=self.device),
                position_ids=torch.tensor(positions, device=self.device),
                use_cache=False,
                slot_cache=self.cache,
            )

    def advance(self, active: Active, token: int) -> Event:
        """Add a token to a reply; EOT, or the end of its room, finishes it and frees the slot."""
        active.tokens.append(token)
        request, stopped = active.request, token in self.stops
        if not stopped and active.length < active.limit:
            return Event(request.id, token)
        self.cancel(request.id)
        text = self.tokenizer.decode(active.tokens, skip_special_tokens=True)
        reply = Reply(request.id, text, active.tokens, stopped, len(request.ids))
        return Event(request.id, token, reply)

    @torch.inference_mode()
    def steady_batches(self) -> tuple[list[int], bool]:
        """Batch sizes whose rows equal those of the largest bitwise, and whether places do too.

        Every slot reads one token, in the largest batch, in each smaller one, and in the largest
        with the rows moved on by a place.
        """
        largest = -(-self.slots // STRIDE) * STRIDE
        rows = [(slot, 0, slot * 7919 % self.vocab) for slot in range(self.slots)]
        expected_BV = self.logits(rows, largest)
        steady = [
            size
            for size in range(STRIDE, largest, STRIDE)
            if torch.equal(self.logits(rows[:size], size), expected_BV[:size])
        ]
        moved_BV = self.logits(rows[1:] + rows[:1], largest)
        return [*steady, largest], torch.equal(moved_BV, expected_BV.roll(-1, 0))


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """Tokens that end a reply: the tokenizer's EOT, and what the model's own settings name."""
    named = model.generation_config.eos_token_id
    named = named if isinstance(named, list) else [named]
    return {token for token in (tokenizer.eos_token_id, *named) if token is not None}
