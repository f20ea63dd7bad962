"""On a CPU a sequence's logits are bitwise the same in any batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import C_WORKS
from engines import answer, cpu_forward, prompts

from lima_ray.config.sections import Sampling, WeightFormat
from lima_ray.engine.cpu import compiler
from lima_ray.engine.cpu.batch_invariant import SiLU
from lima_ray.engine.cpu.linear import KernelLinear, PackedLinear, PlainLinear
from lima_ray.engine.engine import Engine
from lima_ray.engine.forward import SlotToken
from lima_ray.engine.requests import CompletionOutput, Request

pytestmark = pytest.mark.usefixtures("one_thread")


class Recording(Engine):
    """Keeps the logits of every token of every request."""

    def __init__(self, model_dir: Path, slots: int, weights: WeightFormat = "auto") -> None:
        super().__init__(model_dir, slots, weights=weights)
        self.kept: dict[str, list[torch.Tensor]] = {}
        forward: Any = self.forward
        self.plain = forward.logits
        forward.logits = self.keep

    def keep(self, rows: list[SlotToken], batch: int = 0) -> torch.Tensor:
        """As `CpuForward.logits`."""
        logits_BV = self.plain(rows, batch)
        by_slot = {active.slot: id for id, active in self.active.items()}
        for (slot, _, _), logits_V in zip(rows, logits_BV, strict=True):
            self.kept.setdefault(by_slot[slot], []).append(logits_V.clone())
        return logits_BV

    def run(
        self, company: list[Request], mine: Request, enters_at: int
    ) -> tuple[CompletionOutput, Any]:
        """Answer a request that enters at a step of others' decoding."""
        self.kept.clear()
        for request in company:
            self.submit(request)
        for _ in range(enters_at):
            self.step()
        self.submit(mine)
        reply = None
        while reply is None:
            replies = [event.reply for event in self.step() if event.id == mine.id]
            reply = next(iter(replies), None)
        for request in company:
            self.cancel(request.id)
        assert self.in_flight == 0
        return reply, torch.stack(self.kept[mine.id])


def is_batches_of_library(batches: list[int], largest: int) -> bool:
    """Whether batch sizes are such as another's matrix products may have alike, in order."""
    return batches[-1] == largest and batches == [
        n for n in range(8, largest + 1, 8) if n in batches
    ]


@pytest.mark.parametrize(
    ("product", "weights"),
    [
        *(pytest.param(KernelLinear, w, marks=C_WORKS) for w in ("fp32", "bf16", "int8")),
        (PackedLinear, "auto"),
        (PackedLinear, "int8"),
        (PlainLinear, "auto"),
    ],
)
def test_a_reply_is_bitwise_the_same_in_any_company(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, product: type, weights: WeightFormat
) -> None:
    if product != KernelLinear:
        monkeypatch.setenv("LIMA_KERNELS", "0")
    if product == PlainLinear:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    wide = Recording(base_dir, 32, weights)
    products = {type(layer) for layer in wide.model.modules()}
    assert products & {KernelLinear, PackedLinear, PlainLinear} == {product}
    assert wide.batch_invariant
    if product == KernelLinear:
        assert cpu_forward(wide).batch_sizes == list(range(1, 33))
    else:  # which sizes a library computes alike is the processor's affair
        assert is_batches_of_library(cpu_forward(wide).batch_sizes, largest=32)
    others = [
        Request(str(i), ids, Sampling(seed=i, context=1000))
        for i, ids in enumerate(prompts(31, 140))
    ]
    mine = Request("mine", prompts(2, seed=1)[1], Sampling(seed=5, context=50))
    reply, logits_TV = wide.run([], mine, 0)
    assert reply.n_tokens == 50 - len(mine.ids)
    for company, enters_at in [(others[:1], 0), (others[:7], 3), (others, 0), (others[::-1], 9)]:
        again, other_logits_TV = wide.run(company, mine, enters_at)
        assert torch.equal(logits_TV, other_logits_TV)
        assert again == reply
    again, other_logits_TV = Recording(base_dir, 3, weights).run(others[:2], mine, 1)
    assert torch.equal(logits_TV, other_logits_TV)
    assert again == reply


def test_rows_agree_on_one_thread_and_two(base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lima_ray.engine.cpu.kernels.WORTH_THREADS_PRODUCTS", 10 * 64**2)
    monkeypatch.setattr("lima_ray.engine.cpu.linear.WORTH_THREADS", 10 * 64**2)
    monkeypatch.setattr("lima_ray.engine.cpu.reference.WORTH_THREADS_KEYS", 8 * 32)
    monkeypatch.setattr("lima_ray.engine.cpu.kernels.WORTH_THREADS", 1)
    torch.set_num_threads(2)
    engine = Engine(base_dir, slots=16)
    requests = [
        Request(str(i), ids, Sampling(seed=i, context=90)) for i, ids in enumerate(prompts(12))
    ]
    shared = answer(engine, requests)
    torch.set_num_threads(1)
    assert engine.batch_invariant
    batches = cpu_forward(engine).batch_sizes
    if compiler.available():
        assert batches == list(range(1, 17))
    else:
        assert is_batches_of_library(batches, largest=16)
    assert answer(engine, requests) == shared


def test_seeds_differ(engine: Engine) -> None:
    ids = prompts(2)[1]
    replies = answer(
        engine, [Request(str(s), ids, Sampling(seed=s, context=60)) for s in (0, 1, -1)]
    )
    assert len({tuple(reply.ids) for reply in replies.values()}) == 3


def test_uneven_rows_are_noticed(base_dir: Path) -> None:
    class Uneven(torch.nn.Module):
        """A head that feels the batch: its size, or each row's place in it."""

        def __init__(self, head: torch.nn.Module, place: bool) -> None:
            super().__init__()
            self.head, self.place = head, place

        def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
            rows = len(x_BTD)
            noise = torch.arange(rows)[:, None, None] if self.place else rows
            return self.head(x_BTD) + noise * 1e-4

    engine = Engine(base_dir, slots=20)
    sizes = cpu_forward(engine).batch_sizes
    if compiler.available():
        assert sizes == list(range(1, 21))
    else:
        assert is_batches_of_library(sizes, largest=24)
    head = engine.model.lm_head
    engine.model.lm_head = Uneven(head, place=False)
    assert cpu_forward(engine).measure_invariance() == (sizes[-1:], True)
    engine.model.lm_head = Uneven(head, place=True)
    assert cpu_forward(engine).measure_invariance() == (sizes, False)


def test_silu_is_one_formula_for_every_element() -> None:
    x = torch.randn(5000) * 6
    whole = SiLU()(x)
    torch.testing.assert_close(whole, torch.nn.functional.silu(x))
    for size in (1, 7, 31, 33):
        assert torch.equal(torch.cat([SiLU()(part) for part in x.split(size)]), whole)
    assert torch.equal(SiLU()(torch.tensor([-200.0, 200.0])), torch.tensor([-0.0, 200.0]))
