"""The engine: as `transformers` decodes, in any company, within its bounds."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import BASES
from conftest import C_WORKS, dialogues
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from lima_ray import base
from lima_ray.config import Data, Sampling
from lima_ray.data.encoding import encode
from lima_ray.engine import cuda_graphs
from lima_ray.engine.cpu import compiler
from lima_ray.engine.cpu.batch_invariant import SiLU
from lima_ray.engine.cpu.forward import CpuForward
from lima_ray.engine.cpu.kv_slots import SMALLEST_CAPACITY
from lima_ray.engine.cpu.linear import KernelLinear, PackedLinear, PlainLinear
from lima_ray.engine.cuda_graphs import CudaGraphForward, SyncDetector, power_of_two
from lima_ray.engine.engine import PREFILL_TOKENS_A_STEP, Engine
from lima_ray.engine.forward import SlotToken
from lima_ray.engine.loading import SLOT_ATTENTION, register_slot_attention
from lima_ray.engine.requests import Event, Reply, Request
from lima_ray.engine.sampling import HEAD, sample
from lima_ray.errors import UserError
from lima_ray.tokenizer import eot_id, load_tokenizer

GREEDY = Sampling(temperature=0, repetition_penalty=1)
VOCAB = 320
CHUNK = CpuForward.chunk


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that a second thread only syncs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def engine(base_dir: Path) -> Engine:
    """The tiny base in four slots."""
    return Engine(base_dir, slots=4)


def prompts(count: int, longest: int = 30, seed: int = 0) -> list[list[int]]:
    """Random token ids; the first prompt is one token long."""
    generator = torch.Generator().manual_seed(seed)
    some_ids = partial(torch.randint, 3, VOCAB, generator=generator)
    sizes = torch.randint(2, longest, (count,), generator=generator).tolist()
    return [some_ids((size,)).tolist() for size in [1, *sizes[1:]]]


def plain(model_dir: Path) -> Any:
    """The model as transformers loads it, in fp32."""
    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)


def in_slots(model_dir: Path) -> Any:
    """The same with attention in slots, as an engine on a GPU has it."""
    register_slot_attention()
    loader: Any = AutoModelForCausalLM
    return loader.from_pretrained(
        model_dir, dtype=torch.float32, attn_implementation=SLOT_ATTENTION
    )


def hub_greedy(model: Any, ids: list[int], max_tokens: int, penalty: float) -> list[int]:
    """The reply of `generate` in transformers."""
    out = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids)),
        do_sample=False,
        max_length=max_tokens,
        repetition_penalty=penalty,
        pad_token_id=0,
    )
    return out[0, len(ids) :].tolist()


def answer(engine: Engine, requests: Iterable[Request]) -> dict[str, Reply]:
    """Replies by id."""
    return {reply.id: reply for reply in engine.generate(requests)}


# As transformers decodes


@pytest.mark.parametrize("penalty", [1, 1.3])
def test_greedy_equals_transformers_on_ragged_prompts(
    engine: Engine, base_dir: Path, penalty: float
) -> None:
    sampling = Sampling(
        temperature=0, repetition_penalty=penalty, penalise_prompt=True, max_tokens=45
    )
    rows = prompts(7)
    replies = answer(engine, [Request(str(i), ids, sampling) for i, ids in enumerate(rows)])
    model = plain(base_dir)
    for i, ids in enumerate(rows):
        assert replies[str(i)].ids == hub_greedy(model, ids, 45, penalty)


@pytest.mark.parametrize("length", [CHUNK, CHUNK + 1, CHUNK + 2, 2 * CHUNK + 1, 1000])
def test_prompts_read_in_chunks_equal_transformers(
    engine: Engine, base_dir: Path, length: int
) -> None:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(3, VOCAB, (length,), generator=generator).tolist()
    sampling = GREEDY.model_copy(update={"max_tokens": length + 20})
    reply = answer(engine, [Request("a", ids, sampling)])["a"]
    assert reply.ids == hub_greedy(plain(base_dir), ids, length + 20, 1)


@pytest.mark.parametrize("kind", ["tied llama", "qwen"])
def test_tied_embeddings_and_biases(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 100,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "eos_token_id": 2,
        "initializer_range": 0.2,
    }
    if kind == "qwen":
        model: Any = Qwen2ForCausalLM(Qwen2Config(**sizes))
        for layer in model.model.layers:
            torch.nn.init.normal_(layer.self_attn.q_proj.bias)
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.save_pretrained(tmp_path)
    BASES["qwen" if kind == "qwen" else "metaspace"]().save_pretrained(tmp_path)
    sampling = GREEDY.model_copy(update={"max_tokens": 40})
    rows = prompts(4)
    replies = answer(
        Engine(tmp_path, slots=4), [Request(str(i), ids, sampling) for i, ids in enumerate(rows)]
    )
    for i, ids in enumerate(rows):
        assert replies[str(i)].ids == hub_greedy(model, ids, 40, 1)


def test_penalty_is_over_generated_tokens(engine: Engine, base_dir: Path) -> None:
    model = plain(base_dir)
    prompt = list(range(3, VOCAB, 2))
    ids = list(prompt)
    for _ in range(25):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        for token in set(ids[len(prompt) :]):
            logits[token] = logits[token] / 1.5 if logits[token] > 0 else logits[token] * 1.5
        ids.append(int(logits.argmax()))
    sampling = Sampling(temperature=0, repetition_penalty=1.5, max_tokens=len(ids))
    both = sampling.model_copy(update={"penalise_prompt": True})
    replies = answer(engine, [Request("ours", prompt, sampling), Request("both", prompt, both)])
    assert replies["ours"].ids == ids[len(prompt) :]
    assert replies["both"].ids != replies["ours"].ids


def test_the_forward_of_a_gpu_answers_as_that_of_a_cpu(base_dir: Path) -> None:
    """What a GPU would record, computed here: rows are slots, shapes are power_of_two up."""
    alone, as_on_gpu = Engine(base_dir, slots=5), Engine(base_dir, slots=5)
    model = in_slots(base_dir)
    as_on_gpu.forward = CudaGraphForward(model, 5)
    requests = [
        Request(
            str(size),
            (prompts(2, seed=size)[1] * size)[:size],
            GREEDY.model_copy(update={"max_tokens": size + 60}),
        )
        for size in (1, 33, 300, 511, 600, 7, 650)
    ]
    mine, theirs = answer(alone, requests), answer(as_on_gpu, requests)
    assert {k: v.ids for k, v in mine.items()} == {k: v.ids for k, v in theirs.items()}


def test_a_cache_of_a_gpu_that_runs_out_of_memory_as_it_grows_stays_valid(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = in_slots(base_dir)
    forward, plain = CudaGraphForward(model, 2), cuda_graphs.widen
    ids = [5 + n % 100 for n in range(400)]
    with torch.inference_mode():
        forward.prefill(0, 0, ids[:200])
        before = forward.logits([(0, 200, 7)])
        grown: list[torch.Tensor] = []

        def widen(old_SGCD: torch.Tensor, capacity: int) -> torch.Tensor:
            if len(grown) == 2:
                raise torch.OutOfMemoryError("no memory")
            grown.append(plain(old_SGCD, capacity))
            return grown[-1]

        monkeypatch.setattr(cuda_graphs, "widen", widen)
        with pytest.raises(torch.OutOfMemoryError):
            forward.prefill(1, 256, ids[256:])
        assert torch.equal(forward.logits([(0, 200, 7)]), before)
        monkeypatch.setattr(cuda_graphs, "widen", plain)
        forward.prefill(1, 0, ids[:256])
        forward.prefill(1, 256, ids[256:])
        after = forward.logits([(1, 400, 9)])
        expected = model(torch.tensor([[*ids, 9]]), use_cache=False, slot_cache=Plain())
    torch.testing.assert_close(after[0], expected.logits[0, -1], rtol=1e-4, atol=1e-4)


class Plain:
    """Causal attention without slots."""

    def attend(
        self, _: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """As `SlotCache.attend`."""
        grouped = query.shape[1] != key.shape[1]
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=grouped
        )
        return out.transpose(1, 2)


def test_shapes_of_a_gpu_are_powers_of_two() -> None:
    assert [power_of_two(n) for n in (1, 2, 3, 4, 5, 31, 32, 33)] == [1, 2, 4, 4, 8, 32, 32, 64]
    assert [power_of_two(n, 256) for n in (1, 256, 257)] == [256, 256, 512]


@pytest.mark.parametrize("mask", [True, False])
def test_what_a_graph_cannot_have_is_noticed(base_dir: Path, mask: bool) -> None:
    model = in_slots(base_dir)
    forward = CudaGraphForward(model, 4)
    forward.cache.grow(256)
    with torch.inference_mode(), SyncDetector() as syncs:
        forward.compute((2, 1, 256), torch.tensor([5, 6, 0, 0, 0, 1]))
        if not mask:
            places_B1 = torch.tensor([[0], [0]])
            model(places_B1, position_ids=places_B1, use_cache=False, slot_cache=forward.cache)
    assert bool(syncs.found) != mask


# Drawing


@pytest.mark.parametrize("vocab", [50, 2 * HEAD])
@pytest.mark.parametrize(
    ("temperature", "top_p", "penalty"),
    [(0.7, 0.9, 1.2), (2.0, 1.0, 1.0), (2.0, 0.5, 3.0), (0.3, 0.01, 1.2)],
)
def test_draws_follow_the_processed_distribution_of_transformers(
    vocab: int, temperature: float, top_p: float, penalty: float
) -> None:
    torch.manual_seed(0)
    draws = 4000
    logits_1V = torch.randn(1, vocab) * 3
    seen_1S = torch.randperm(vocab)[None, : vocab // 2]
    expected_1V: Any = logits_1V
    for processor in (
        RepetitionPenaltyLogitsProcessor(penalty),
        TemperatureLogitsWarper(temperature),
        TopPLogitsWarper(top_p),
    ):
        expected_1V = processor(torch.LongTensor(seen_1S), expected_1V)
    sampling = Sampling(temperature=temperature, top_p=top_p, repetition_penalty=penalty)
    drawn = sample(
        logits_1V.repeat(draws, 1),
        seen_1S.tolist() * draws,
        [sampling] * draws,
        [(number + 0.5) / draws for number in range(draws)],
    )
    expected_V = expected_1V.softmax(-1)[0]
    frequencies_V = torch.bincount(torch.tensor(drawn), minlength=vocab) / draws
    assert not frequencies_V[expected_V == 0].any()
    torch.testing.assert_close(frequencies_V, expected_V, atol=1.5 / draws, rtol=0)


def test_choose_decodes_every_row_its_own_way() -> None:
    torch.manual_seed(0)
    logits_BV = torch.randn(40, 1000) * torch.linspace(0.01, 8, 40)[:, None]
    struck = [torch.randperm(1000)[: row * 10].tolist() for row in range(40)]
    uniforms = torch.rand(40).tolist()
    samplings = [
        Sampling(
            temperature=row % 3 * 0.6, top_p=1 - row % 5 * 0.2, repetition_penalty=1 + row % 4 * 0.3
        )
        for row in range(40)
    ]
    alone = [
        sample(logits_BV[row, None].clone(), [struck[row]], [samplings[row]], [uniforms[row]])[0]
        for row in range(40)
    ]
    assert sample(logits_BV, struck, samplings, uniforms) == alone
    assert len(set(alone)) > 20


# Company


def rows_of(engine: Engine) -> CpuForward:
    """An engine's forward on a CPU."""
    assert isinstance(engine.forward, CpuForward)
    return engine.forward


class Recording(Engine):
    """Keeps the logits of every token of every request."""

    def __init__(self, model_dir: Path, slots: int) -> None:
        super().__init__(model_dir, slots)
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

    def run(self, company: list[Request], mine: Request, enters_at: int) -> tuple[Reply, Any]:
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
    "product", [pytest.param(KernelLinear, marks=C_WORKS), PackedLinear, PlainLinear]
)
def test_a_reply_is_bitwise_the_same_in_any_company(
    base_dir: Path, monkeypatch: pytest.MonkeyPatch, product: type
) -> None:
    if product != KernelLinear:
        monkeypatch.setenv("LIMA_KERNELS", "0")
    if product == PlainLinear:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    wide = Recording(base_dir, slots=32)
    products = {type(layer) for layer in wide.model.modules()}
    assert products & {KernelLinear, PackedLinear, PlainLinear} == {product}
    assert wide.batch_invariant
    if product == KernelLinear:
        assert rows_of(wide).batch_sizes == list(range(1, 33))
    else:  # which sizes a library computes alike is the processor's affair
        assert is_batches_of_library(rows_of(wide).batch_sizes, largest=32)
    others = [
        Request(str(i), ids, Sampling(seed=i, max_tokens=1000))
        for i, ids in enumerate(prompts(31, 140))
    ]
    mine = Request("mine", prompts(2, seed=1)[1], Sampling(seed=5, max_tokens=50))
    reply, logits_TV = wide.run([], mine, 0)
    assert reply.n_tokens == 50 - len(mine.ids)
    for company, enters_at in [(others[:1], 0), (others[:7], 3), (others, 0), (others[::-1], 9)]:
        again, other_logits_TV = wide.run(company, mine, enters_at)
        assert torch.equal(logits_TV, other_logits_TV)
        assert again == reply
    again, other_logits_TV = Recording(base_dir, slots=3).run(others[:2], mine, 1)
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
        Request(str(i), ids, Sampling(seed=i, max_tokens=90)) for i, ids in enumerate(prompts(12))
    ]
    shared = answer(engine, requests)
    torch.set_num_threads(1)
    assert engine.batch_invariant
    batches = rows_of(engine).batch_sizes
    if compiler.available():
        assert batches == list(range(1, 17))
    else:
        assert is_batches_of_library(batches, largest=16)
    assert answer(engine, requests) == shared


def test_seeds_differ(engine: Engine) -> None:
    ids = prompts(2)[1]
    replies = answer(
        engine, [Request(str(s), ids, Sampling(seed=s, max_tokens=60)) for s in (0, 1, -1)]
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
    sizes = rows_of(engine).batch_sizes
    if compiler.available():
        assert sizes == list(range(1, 21))
    else:
        assert is_batches_of_library(sizes, largest=24)
    head = engine.model.lm_head
    engine.model.lm_head = Uneven(head, place=False)
    assert rows_of(engine).measure_invariance() == (sizes[-1:], True)
    engine.model.lm_head = Uneven(head, place=True)
    assert rows_of(engine).measure_invariance() == (sizes, False)


def test_silu_is_one_formula_for_every_element() -> None:
    x = torch.randn(5000) * 6
    whole = SiLU()(x)
    torch.testing.assert_close(whole, torch.nn.functional.silu(x))
    for size in (1, 7, 31, 33):
        assert torch.equal(torch.cat([SiLU()(part) for part in x.split(size)]), whole)
    assert torch.equal(SiLU()(torch.tensor([-200.0, 200.0])), torch.tensor([-0.0, 200.0]))


# Coming and going


def test_slots_are_kept_full_and_requests_taken_one_by_one(engine: Engine) -> None:
    rows = prompts(13)
    sampling = [Sampling(seed=i, max_tokens=len(ids) + 5 + 3 * i) for i, ids in enumerate(rows)]
    requests = [Request(str(i), rows[i], sampling[i]) for i in range(13)]
    taken: list[str] = []

    def source() -> Iterator[Request]:
        for request in requests:
            taken.append(request.id)
            yield request

    replies: list[Reply] = []
    for reply in engine.generate(source()):
        replies.append(reply)
        assert len(taken) <= len(replies) + engine.slots
        assert engine.in_flight <= engine.slots
    assert taken == [request.id for request in requests]
    assert sorted(int(reply.id) for reply in replies) == list(range(13))
    for reply in replies:
        alone = answer(engine, [requests[int(reply.id)]])[reply.id]
        assert alone == reply


def test_a_step_tells_one_token_of_every_active_request(engine: Engine) -> None:
    requests = [Request(str(i), ids, Sampling(max_tokens=40)) for i, ids in enumerate(prompts(6))]
    for request in requests:
        engine.submit(request)
    told: dict[str, list[int]] = {}
    replies: dict[str, Reply] = {}
    while engine.in_flight:
        waiting = engine.in_flight
        events = engine.step()
        assert len(events) == min(waiting, engine.slots)
        for event in events:
            told.setdefault(event.id, []).append(event.token)
            if event.reply:
                replies[event.id] = event.reply
    assert {id: reply.ids for id, reply in replies.items()} == told
    assert engine.step() == []


def test_cancel_frees_the_slot_at_once(engine: Engine) -> None:
    requests = [Request(str(i), ids, Sampling(max_tokens=60)) for i, ids in enumerate(prompts(7))]
    expected = answer(engine, requests)
    for request in requests:
        engine.submit(request)
    engine.step()
    assert sorted(engine.active) == ["0", "1", "2", "3"]
    assert engine.cancel("1")
    assert engine.cancel("5")
    assert not engine.cancel("1")
    assert len(engine.free_slots) == 1
    assert [event.id for event in engine.step()] == ["0", "2", "3", "4"]
    replies = {}
    while engine.in_flight:
        replies |= {event.id: event.reply for event in engine.step() if event.reply}
    assert replies == {id: expected[id] for id in ("0", "2", "3", "4", "6")}
    assert sorted(engine.free_slots) == [0, 1, 2, 3]


def test_generate_left_early_leaves_nothing_behind(engine: Engine) -> None:
    requests = [Request(str(i), ids, Sampling(max_tokens=60)) for i, ids in enumerate(prompts(7))]
    replies = engine.generate(requests)
    next(replies)
    replies.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert engine.in_flight == 0
    with pytest.raises(UserError, match="ids is empty"):
        list(engine.generate([*requests[:2], Request("bad", [], GREEDY)]))
    assert engine.in_flight == 0


def test_long_prompts_are_read_between_the_tokens_of_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lima_ray.engine.engine.PREFILL_SHARE_S", float("inf"))
    short = Request("short", [5], Sampling(max_tokens=100))
    long = [Request(str(i), [7] * 900, Sampling(max_tokens=910)) for i in range(3)]
    alone = answer(engine, [short, *long[:1]])
    engine.submit(short)
    engine.step()
    for request in long:
        engine.submit(request)
    seen: list[list[str]] = []
    replies: dict[str, Reply] = {}
    while engine.in_flight:
        events = engine.step()
        seen.append([event.id for event in events])
        replies |= {event.id: event.reply for event in events if event.reply}
    begun = {id: next(i for i, ids in enumerate(seen) if id in ids) for id in ("0", "1", "2")}
    for before, (_, step) in enumerate(begun.items()):
        assert step == pytest.approx((before + 1) * 899 / PREFILL_TOKENS_A_STEP, abs=1.5)
    assert all("short" in ids for ids in seen[: alone["short"].n_tokens - 1])
    assert replies["short"] == alone["short"]
    assert replies["0"] == alone["0"]


def test_a_long_prompt_holds_up_neither_streams_nor_a_short_prompt_behind_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where a chunk takes all the time that there is between two tokens.
    monkeypatch.setattr("lima_ray.engine.engine.PREFILL_SHARE_S", 0)
    stream = Request("stream", [5], Sampling(max_tokens=200))
    long = Request("long", [7] * (12 * CHUNK + 1), Sampling(max_tokens=12 * CHUNK + 20))
    short = [Request(str(n), [9, n] * 10, Sampling(max_tokens=40)) for n in range(3, 7)]
    alone = answer(engine, [stream, long, *short])
    for request in (stream, long):
        engine.submit(request)
    engine.step()
    chunks, begun, replies = [engine.active["long"].prefilled], dict[str, int](), dict[str, Reply]()
    for request in short:
        engine.submit(request)
    for step in range(60):
        events = engine.step()
        assert step > 12 or "stream" in {event.id for event in events}
        for event in events:
            begun.setdefault(event.id, step)
            if event.reply:
                replies[event.id] = event.reply
        if "long" in engine.active:
            chunks.append(engine.active["long"].prefilled)
    assert max(b - a for a, b in pairwise(chunks)) <= CHUNK
    assert max(begun["3"], begun["4"]) <= 4, "short prompts wait for the long one"
    assert begun["long"] <= 12 + len(short) + 1, "the long prompt is passed over"
    for id in ("long", "3", "4", "5", "6"):
        assert replies[id] == alone[id]
    engine.cancel("stream")


def test_a_long_prompt_takes_memory_of_its_own_slot_and_gives_it_back(engine: Engine) -> None:
    cache = rows_of(engine).cache

    def room() -> list[int]:
        for layer in cache.layers.values():
            assert [slot_2GCD.shape[2] for slot_2GCD in layer.slots_2GCD] == cache.capacities
            assert layer.capacities_S.tolist() == cache.capacities
        return list(cache.capacities)

    stream = Request("stream", [5], Sampling(max_tokens=900))
    alone = answer(engine, [stream])["stream"]
    assert room() == [SMALLEST_CAPACITY] * 4
    engine.submit(stream)
    engine.submit(Request("long", [7] * 1000, Sampling(max_tokens=1100)))
    engine.step()
    assert room() == [SMALLEST_CAPACITY, 1024, SMALLEST_CAPACITY, SMALLEST_CAPACITY]
    replies = []
    while engine.in_flight:
        replies += [event.reply for event in engine.step() if event.reply]
        if len(replies) == 1:
            assert room()[1:] == [SMALLEST_CAPACITY] * 3
    assert [reply.id for reply in replies] == ["long", "stream"]
    assert replies[1] == alone
    assert room() == [SMALLEST_CAPACITY] * 4


def test_a_prompt_that_is_being_read_can_be_cancelled(engine: Engine) -> None:
    engine.submit(Request("long", [7] * 1500, Sampling(max_tokens=1600)))
    assert engine.step() == []
    assert engine.cancel("long")
    assert engine.step() == []
    assert sorted(engine.free_slots) == [0, 1, 2, 3]


# What is told


def told(engine: Engine, request: Request) -> tuple[list[Event], Reply]:
    """Every event of a request, and its reply."""
    engine.submit(request)
    events: list[Event] = []
    while engine.in_flight:
        events += engine.step()
    reply = events[-1].reply
    assert reply
    return events, reply


def test_a_stream_tells_the_text_and_nothing_else_does(engine: Engine) -> None:
    ids, sampling = prompts(2)[1], Sampling(max_tokens=200, seed=3)
    plain_events, plain_reply = told(engine, Request("a", ids, sampling))
    events, reply = told(engine, Request("a", ids, sampling, stream=True))
    assert reply == plain_reply
    assert "".join(event.text for event in events) == reply.text
    assert len({event.text for event in events}) > 20
    assert {event.text for event in plain_events} == {""}


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_a_reply_before_itself(engine: Engine, stream: bool) -> None:
    ids, sampling = prompts(2)[1], Sampling(max_tokens=200, seed=3)
    whole = answer(engine, [Request("a", ids, sampling)])["a"]
    stop = whole.text[40:43]
    events, reply = told(engine, Request("a", ids, sampling, stop=("zzzz", stop), stream=stream))
    assert reply.text == whole.text[: whole.text.index(stop)]
    assert (reply.stopped, reply.stopped_by) == (False, stop)
    assert reply.ids == whole.ids[: reply.n_tokens]
    assert reply.n_tokens < whole.n_tokens
    assert "".join(event.text for event in events) == (reply.text if stream else "")


def test_an_empty_stop_string_is_refused(engine: Engine) -> None:
    with pytest.raises(UserError, match="stop holds an empty string"):
        engine.submit(Request("a", [5], GREEDY, stop=("x", "")))


def test_logprobs_are_the_models_own(engine: Engine, base_dir: Path) -> None:
    ids, sampling = prompts(2)[1], Sampling(max_tokens=60, seed=3, repetition_penalty=2)
    events, reply = told(engine, Request("a", ids, sampling, logprobs=4))
    with torch.no_grad():
        logits_TV = plain(base_dir)(torch.tensor([ids + reply.ids])).logits[0, len(ids) - 1 : -1]
    expected_TV = logits_TV.float().log_softmax(-1)
    for event, expected_V in zip(events, expected_TV, strict=True):
        assert event.logprob
        best = expected_V.topk(4)
        assert [token for token, _ in event.logprob.top] == best.indices.tolist()
        found = torch.tensor([logprob for _, logprob in event.logprob.top])
        torch.testing.assert_close(found, best.values, atol=1e-4, rtol=0)
        assert event.logprob.token == event.token
        assert event.logprob.logprob == pytest.approx(float(expected_V[event.token]), abs=1e-4)
    assert told(engine, Request("a", ids, sampling))[0][0].logprob is None


# Bounds


def test_eot_stops_a_reply(brief_dir: Path) -> None:
    engine = Engine(brief_dir, slots=8)
    eot = eot_id(engine.tokenizer)
    sampling = Sampling(temperature=1, repetition_penalty=1, max_tokens=1000)
    ids = engine.prompt(["why the cat reads"])
    replies = answer(
        engine, [Request(str(s), ids, sampling.model_copy(update={"seed": s})) for s in range(8)]
    )
    for reply in replies.values():
        assert reply.stopped
        assert reply.ids.index(eot) == len(reply.ids) - 1 == reply.n_tokens - 1
        assert reply.text == engine.tokenizer.decode(reply.ids[:-1], skip_special_tokens=True)
        assert str(engine.tokenizer.eos_token) not in reply.text
        assert reply.n_prompt_tokens == len(ids)
    assert len({reply.n_tokens for reply in replies.values()}) > 2


def test_prompt_and_reply_fill_max_tokens_or_the_context(tmp_path: Path, data_file: Path) -> None:
    base.build(str(data_file), tmp_path, hidden=32, layers=1, heads=2, vocab=300, context=48)
    engine = Engine(tmp_path, slots=2)
    ids = [5, 6, 7]
    sizes = {20: 20, 48: 48, 2048: 48, 4: 4}
    replies = answer(
        engine, [Request(str(n), ids, GREEDY.model_copy(update={"max_tokens": n})) for n in sizes]
    )
    for asked, total in sizes.items():
        reply = replies[str(asked)]
        assert not reply.stopped
        assert reply.n_prompt_tokens + reply.n_tokens == total
    full = Request("full", list(range(3, 51)), GREEDY)
    with pytest.raises(UserError, match="ids has 48 tokens, and the model's context is 48"):
        engine.submit(full)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("a", [], GREEDY), "request 'a': ids is empty"),
        (Request("a", [4] * 9, Sampling(max_tokens=9)), "sampling.max_tokens is 9, .* 9 tokens"),
        (Request("a", [4, 320], GREEDY), "ids holds 320; the model's tokens are 0 to 319"),
        (Request("a", [-1], GREEDY), "ids holds -1"),
        (Request("twin", [4], GREEDY), "request 'twin': another request of this id"),
    ],
)
def test_a_bad_request_is_refused_before_it_enters(
    engine: Engine, request_: Request, message: str
) -> None:
    engine.submit(Request("twin", [4], GREEDY))
    with pytest.raises(UserError, match=message):
        engine.submit(request_)
    assert engine.in_flight == 1
    engine.cancel("twin")


# Prompts and models


@pytest.mark.parametrize("kind", BASES)
def test_prompts_are_what_training_sees(
    tmp_path: Path, base_dir: Path, engine: Engine, kind: str
) -> None:
    BASES[kind]().save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    row = dialogues(1)[0]
    rows = encode([row], tokenizer, Data())
    ids_T, mask_T = rows.row(0)
    talk = Engine.__new__(Engine)
    talk.tokenizer = tokenizer
    for turns in range(1, len(row.turns), 2):
        ids = talk.prompt(row.turns[:turns])
        assert ids == ids_T[: len(ids)].tolist()
        assert ids[-1] == eot_id(tokenizer)
        assert mask_T[len(ids)]
        assert not mask_T[len(ids) - 1]
    assert talk.prompt(["Hi"], system="Be kind.") == tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}],
        return_dict=False,
    )


def test_a_base_reads_plain_text(engine: Engine) -> None:
    text = engine.tokenizer.decode(engine.prompt(["the cat", "reads", "why?"]))
    assert text == "<s>the cat\nreads\nwhy?"
    assert engine.stop_token_ids == {engine.tokenizer.eos_token_id}
    ids = engine.prompt(["say </s> and <s>"])
    assert ids.count(engine.tokenizer.bos_token_id) == 1
    assert engine.tokenizer.eos_token_id not in ids
    assert engine.tokenizer.decode(ids) == "<s>say </s> and <s>"


@pytest.mark.parametrize(
    ("turns", "message"),
    [([], "has 0 turns"), (["a", "b"], "has 2 turns"), (["a", "b", " "], "turn 3 .* is ' '")],
)
def test_a_dialogue_ends_with_the_user(engine: Engine, turns: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        engine.prompt(turns)


def test_weights_on_a_cpu_are_fp32(engine: Engine, base_dir: Path) -> None:
    assert load_file(base_dir / "model.safetensors")["lm_head.weight"].dtype == torch.bfloat16
    assert engine.model.get_input_embeddings().weight.dtype == torch.float32


def test_what_a_directory_lacks_is_named(tmp_path: Path, base_dir: Path) -> None:
    with pytest.raises(UserError, match=f"no model in {tmp_path}.*config.json"):
        Engine(tmp_path)
    (tmp_path / "config.json").write_bytes((base_dir / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="no weights in safetensors"):
        Engine(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base_dir / name).read_bytes())
    save_file({}, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match=r"cannot be loaded.*safetensors"):
        Engine(tmp_path)
    weights = load_file(base_dir / "model.safetensors")
    lost = "model.layers.1.mlp.up_proj.weight"
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=rf"lacks 1 weights, such as {lost}"):
        Engine(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        Engine(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((base_dir / "tokenizer.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(UserError, match="cannot be loaded"):
        Engine(tmp_path)


def test_attention_that_is_more_than_causal_is_refused(tmp_path: Path, base_dir: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(base_dir)
    BASES["metaspace"]().save_pretrained(tmp_path)
    model.config.update({"attn_logit_softcapping": 30.0})
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="caps attention scores"):
        Engine(tmp_path)


def test_an_engine_has_a_slot(base_dir: Path) -> None:
    with pytest.raises(UserError, match="slots is 0"):
        Engine(base_dir, slots=0)
