"""The engine: as `transformers` decodes, in any company, within its bounds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import BASES
from engines import CHUNK, GREEDY, VOCAB, answer, hub_greedy, plain, prompts, told
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lima_ray import base
from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling
from lima_ray.data.tokenizer import eot_id
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import CompletionOutput, Request

pytestmark = pytest.mark.usefixtures("one_thread")


# As transformers decodes


@pytest.mark.parametrize("penalty", [1, 1.3])
def test_greedy_equals_transformers_on_ragged_prompts(
    engine: Engine, base_dir: Path, penalty: float
) -> None:
    sampling = Sampling(temperature=0, repetition_penalty=penalty, penalise_prompt=True, context=45)
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
    sampling = GREEDY.model_copy(update={"max_new_tokens": 20})
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
    sampling = GREEDY.model_copy(update={"context": 40})
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
    sampling = Sampling(temperature=0, repetition_penalty=1.5, context=len(ids))
    both = sampling.model_copy(update={"penalise_prompt": True})
    replies = answer(engine, [Request("ours", prompt, sampling), Request("both", prompt, both)])
    assert replies["ours"].ids == ids[len(prompt) :]
    assert replies["both"].ids != replies["ours"].ids


# Coming and going


def test_slots_are_kept_full_and_requests_taken_one_by_one(engine: Engine) -> None:
    rows = prompts(13)
    sampling = [Sampling(seed=i, max_new_tokens=5 + 3 * i) for i in range(len(rows))]
    requests = [Request(str(i), rows[i], sampling[i]) for i in range(13)]
    taken: list[str] = []

    def source() -> Iterator[Request]:
        for request in requests:
            taken.append(request.id)
            yield request

    replies: list[CompletionOutput] = []
    for reply in engine.generate(source()):
        replies.append(reply)
        assert len(taken) <= len(replies) + engine.slots
        assert engine.in_flight <= engine.slots
    assert taken == [request.id for request in requests]
    assert sorted(int(reply.id) for reply in replies) == list(range(13))
    for reply in replies:
        alone = answer(engine, [requests[int(reply.id)]])[reply.id]
        assert alone == reply


def test_a_step_returns_one_token_of_every_active_request(engine: Engine) -> None:
    requests = [Request(str(i), ids, Sampling(context=40)) for i, ids in enumerate(prompts(6))]
    for request in requests:
        engine.submit(request)
    told: dict[str, list[int]] = {}
    replies: dict[str, CompletionOutput] = {}
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
    requests = [Request(str(i), ids, Sampling(context=60)) for i, ids in enumerate(prompts(7))]
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
    requests = [Request(str(i), ids, Sampling(context=60)) for i, ids in enumerate(prompts(7))]
    replies = engine.generate(requests)
    next(replies)
    replies.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert engine.in_flight == 0
    with pytest.raises(UserError, match="ids is empty"):
        list(engine.generate([*requests[:2], Request("bad", [], GREEDY)]))
    assert engine.in_flight == 0


# What is told


def test_only_a_stream_has_text_in_its_events(engine: Engine) -> None:
    ids, sampling = prompts(2)[1], Sampling(context=200, seed=3)
    plain_events, plain_reply = told(engine, Request("a", ids, sampling))
    events, reply = told(engine, Request("a", ids, sampling, stream=True))
    assert reply == plain_reply
    assert "".join(event.text for event in events) == reply.text
    assert len({event.text for event in events}) > 20
    assert {event.text for event in plain_events} == {""}


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_a_reply_before_itself(engine: Engine, stream: bool) -> None:
    ids, sampling = prompts(2)[1], Sampling(context=200, seed=3)
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
    ids, sampling = prompts(2)[1], Sampling(context=60, seed=3, repetition_penalty=2)
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
    sampling = Sampling(temperature=1, repetition_penalty=1, context=1000)
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


def test_prompt_and_reply_fill_the_context_or_the_positions(
    tmp_path: Path, data_file: Path
) -> None:
    base.build(str(data_file), tmp_path, hidden=32, layers=1, heads=2, vocab=300, context=48)
    engine = Engine(tmp_path, slots=2)
    ids = [5, 6, 7]
    sizes = {20: 20, 48: 48, 2048: 48, 4: 4}
    replies = answer(
        engine, [Request(str(n), ids, GREEDY.model_copy(update={"context": n})) for n in sizes]
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
        (Request("a", [4] * 9, Sampling(context=9)), "sampling.context is 9, .* 9 tokens"),
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
