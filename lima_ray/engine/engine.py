"""The generation engine: many requests at once through one model, on a CPU or a CUDA GPU.

    engine = Engine(Path("runs/NAME/export"))
    requests = (Request(row.id, engine.prompt(row.turns), sampling) for row in rows)
    for reply in engine.generate(requests):
        print(reply.id, reply.text)

Requests enter and leave a batch of slots between any two tokens (continuous batching), so a short
reply does not wait for a long one. A server drives the same engine by `submit`, `step` and
`cancel`, all from one thread.

On a CPU the engine is batch-invariant: the same seed gives the same reply whatever else is in the
batch, whichever slot the request takes and whenever it enters, since a request has random numbers
of its own and its logits are bitwise those that it has alone (cpu/batch_invariant.py says how).
`Engine.batch_invariant` is the result of a check at loading. It is never promised on a GPU
(cuda_graphs.py): rounding may follow the batch size there, and replies may part where two tokens
are almost equally likely.
"""

import heapq
import random
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch

from lima_ray.config.errors import UserError
from lima_ray.config.sections import WeightFormat
from lima_ray.data.tokenizer import prompt_ids, text_ids
from lima_ray.engine.cpu.forward import CpuForward
from lima_ray.engine.cuda_graphs import CudaGraphForward
from lima_ray.engine.detokenizer import Detokenizer, decode
from lima_ray.engine.forward import Forward
from lima_ray.engine.loading import load, stop_token_ids
from lima_ray.engine.requests import ActiveRequest, CompletionOutput, Event, Request
from lima_ray.engine.sampling import sample, token_logprob
from lima_ray.model.families import context_length

PREFILL_TOKENS_A_STEP = 512
"""Tokens of prompts computed between two tokens of the replies under way, at least one chunk."""
PREFILL_SHARE_S = 0.2
"""Time after which no other chunk is begun between two tokens of the replies under way."""


class Engine:
    """A model with its tokenizer, and slots in which requests are decoded together."""

    def __init__(
        self,
        model_dir: Path,
        slots: int = 32,
        device: torch.device | None = None,
        weights: WeightFormat = "auto",
    ) -> None:
        """Load an export, or a plain base, from its directory.

        Args:
            model_dir: a Hugging Face model with safetensors and its tokenizer.
            slots: requests decoded at once.
            device: None takes a GPU where there is one. A CPU computes in fp32, CUDA in the
                precision of the model's files.
            weights: how a CPU holds them; see `config.sections.Decoding`.

        Raises:
            UserError: no such model, one whose attention is more than plain causal, or a GPU whose
                weights are to be held in another format.
        """
        if slots < 1:
            raise UserError(f"slots is {slots}; an engine needs at least 1")
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.slots = slots
        self.model, self.tokenizer = load(model_dir, self.device, slots, weights)
        self.context: int = context_length(self.model.config)
        self.vocab: int = self.model.config.vocab_size
        self.stop_token_ids = stop_token_ids(self.model, self.tokenizer)
        self.waiting: deque[Request] = deque()
        self.active: dict[str, ActiveRequest] = {}
        self.free_slots = list(range(slots))
        self.oldest_next = False
        """Whether the next chunk is the oldest prompt's, or that of the one with least left."""
        forward = CudaGraphForward if self.device.type == "cuda" else CpuForward
        self.forward: Forward = forward(self.model, slots)
        self.batch_invariant = self.forward.batch_invariant

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self.active)

    def prompt(self, turns: Sequence[str], system: str | None = None) -> list[int]:
        """Return the token ids of a dialogue to reply to; as `data.tokenizer` has it."""
        return prompt_ids(self.tokenizer, turns, system)

    def text_ids(self, text: str) -> list[int]:
        """Return the token ids of plain text to continue; as `data.tokenizer` has it."""
        return text_ids(self.tokenizer, text)

    def check(self, request: Request) -> None:
        """Refuse a request that cannot be answered."""
        name, ids, vocab = f"request {request.id!r}", request.ids, self.vocab
        if request.id in self.active or any(request.id == other.id for other in self.waiting):
            raise UserError(f"{name}: another request of this id is in flight")
        if not ids:
            raise UserError(f"{name}: ids is empty; a prompt has at least one token")
        strange = next((i for i in ids if not 0 <= i < vocab), None)
        if strange is not None:
            raise UserError(f"{name}: ids holds {strange}; the model's tokens are 0 to {vocab - 1}")
        if len(ids) >= request.sampling.context:
            raise UserError(
                f"{name}: sampling.context is {request.sampling.context}, prompt and reply "
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
        """Queue a request that passes `check`; it enters a slot that is free when a step begins."""
        self.check(request)
        self.waiting.append(request)

    def cancel(self, id: str) -> bool:
        """Drop a request and free its slot at once; false where no such request is in flight."""
        if id in self.active:
            slot = self.active.pop(id).slot
            heapq.heappush(self.free_slots, slot)
            self.forward.release(slot)
            return True
        kept = deque(request for request in self.waiting if request.id != id)
        found = len(kept) < len(self.waiting)
        self.waiting = kept
        return found

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Prefill some of the waiting prompts, then decode one token of each reply under way."""
        self.prefill()
        decoding = [a for a in self.active.values() if not a.prefilling]
        if not decoding:
            return []
        logits_BV = self.forward.logits([(a.slot, a.length - 1, a.last_token) for a in decoding])
        # Sampling writes penalties into the logits.
        model_logits = [
            None if a.request.logprobs is None else logits_V.clone()
            for a, logits_V in zip(decoding, logits_BV, strict=True)
        ]
        tokens = sample(
            logits_BV,
            [list(a.penalised) for a in decoding],
            [a.request.sampling for a in decoding],
            [a.rng.random() for a in decoding],
        )
        return [
            self.append(a, token, logits_V)
            for a, token, logits_V in zip(decoding, tokens, model_logits, strict=True)
        ]

    def generate(self, requests: Iterable[Request]) -> Iterator[CompletionOutput]:
        """Yield replies to requests, taken as slots come free; one refused by `check` ends all."""
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

    def prefill(self) -> None:
        """Admit waiting requests to free slots, and prefill prompts up to the step's share.

        A long prompt is prefilled in chunks, so that it delays neither the replies under way nor a
        short prompt behind it: chunks are taken in turn from the prompt that has least left and
        from the oldest, which so is never passed over for long.
        """
        while self.waiting and self.free_slots:
            self.admit(self.waiting.popleft(), heapq.heappop(self.free_slots))
        prefilling = [active for active in self.active.values() if active.prefilling]
        decoding = len(prefilling) < len(self.active)
        left, until_s = PREFILL_TOKENS_A_STEP, time.monotonic() + PREFILL_SHARE_S
        while prefilling and left > 0:
            oldest, shortest = prefilling[0], min(prefilling, key=lambda a: a.prompt_left)
            self.oldest_next = not self.oldest_next
            chosen = shortest if self.oldest_next else oldest
            left -= self.prefill_chunk(chosen)
            if not chosen.prefilling:
                prefilling.remove(chosen)
            if decoding and time.monotonic() > until_s:
                return

    def admit(self, request: Request, slot: int) -> None:
        """Give a request a slot; its prompt is still to prefill."""
        limit = request.reply_limit(self.context)
        # A string, since Random takes a negative number for its absolute value.
        rng = random.Random(str(request.sampling.seed))
        needs_text = request.stream or request.stop
        detokenizer = Detokenizer(self.tokenizer, request.stop) if needs_text else None
        active = self.active[request.id] = ActiveRequest(request, slot, limit, rng, detokenizer)
        if request.sampling.penalise_prompt:
            active.penalised |= dict.fromkeys(request.ids)
        self.forward.reserve(slot, len(request.ids))

    def prefill_chunk(self, active: ActiveRequest) -> int:
        """Prefill the next chunk of a prompt, and return its number of tokens."""
        # The prompt's last token is left to the first decoding step. A chunk is computed alone, so
        # that its matrices have the same shape whatever else is in flight.
        start, last = active.prefilled, len(active.request.ids) - 1
        end = min(start + self.forward.chunk, last)
        self.forward.prefill(active.slot, start, active.request.ids[start:end])
        active.prefilled = end
        return end - start

    def append(self, active: ActiveRequest, token: int, logits_V: torch.Tensor | None) -> Event:
        """Add a token to a reply; EOT, a stop string or the length limit finishes it."""
        active.tokens.append(token)
        active.penalised[token] = None
        request, detokenizer = active.request, active.detokenizer
        logprob = None
        if logits_V is not None:
            logprob = token_logprob(logits_V, token, request.logprobs or 0)
        text = detokenizer.add(token) if detokenizer else ""
        eot = token in self.stop_token_ids
        stop_string = detokenizer is not None and detokenizer.stopped_by is not None
        finished = eot or stop_string or len(active.tokens) >= active.limit
        if finished and detokenizer:
            text += detokenizer.finish()
        active.text += text
        reply = self.finish(active, eot) if finished else None
        return Event(request.id, token, text if request.stream else "", logprob, reply)

    def finish(self, active: ActiveRequest, eot: bool) -> CompletionOutput:
        """Free the slot of a request, and return its reply."""
        request, detokenizer = active.request, active.detokenizer
        self.cancel(request.id)
        text = active.text if detokenizer else decode(self.tokenizer, active.tokens)
        stopped_by = detokenizer.stopped_by if detokenizer and not eot else None
        return CompletionOutput(request.id, text, active.tokens, eot, len(request.ids), stopped_by)
